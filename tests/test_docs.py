"""What is shown runs: doctests of every module, README's Python, the examples."""

import ast
import doctest
import importlib
import inspect
import operator
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import energia as en

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(en.__path__, "energia.")
    if not module.name.endswith("__main__")
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


PUBLIC = [
    *en.__all__,
    *(
        f"{module}.{name}"
        for module in en.__all__
        if inspect.ismodule(getattr(en, module))
        for name in getattr(en, module).__all__
    ),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    public = operator.attrgetter(name)(en)
    documentation = inspect.getdoc(public)
    assert documentation
    assert ">>> " in documentation or not callable(public)


GIVE = ("problems.append", "found.append", "notes.append", "Failure", "self._fail")


def messages(module: str) -> list[str]:
    """The warnings that a module can give, as they stand in its source, with … for numbers."""
    found = []
    for node in ast.walk(ast.parse((ROOT / "energia" / module).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in GIVE:
            found += node.args
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.List):
            found += node.value.elts
        elif isinstance(node, ast.Return) and ast.unparse(node).startswith("return f'the weights"):
            found.append(node.value)
        elif isinstance(node, ast.Assign):
            value = node.value
            if ast.unparse(node.targets[0]) in ("problem", "problems", "note"):
                found += value.elts if isinstance(value, ast.Tuple) else [value]
    parts = [n.values if isinstance(n, ast.JoinedStr) else [n] for n in found]
    texts = [
        "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in part)
        for part in parts
        if any(isinstance(p, ast.Constant) and isinstance(p.value, str) for p in part)
    ]
    return [text for text in texts if " " in text]


@pytest.mark.parametrize(
    ("module", "at_least"),
    [
        ("diagnostics/_diagnose.py", 14),
        ("diagnostics/_tempering.py", 4),
        ("evaluate/_estimate.py", 2),
        ("evaluate/_exact.py", 1),
        ("evaluate/_sides.py", 1),
        ("evaluate/_stepping.py", 3),
        ("sampling/_minimize.py", 1),
        ("training/_monitor.py", 4),
        ("training/_run.py", 2),
    ],
)
def test_every_warning_is_explained(module, at_least):
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
    found = messages(module)
    assert len(found) >= at_least, found
    for text in found:
        # what is wrong, up to the advice, without numbers
        parts = re.split(r"…|: |; | \(", text)
        told = max(parts[: max(2, len(parts) // 2)], key=len).strip(" ,(")
        assert told in page, text


@pytest.mark.smoke
def test_readme_python_runs_and_prints_what_is_shown(tmp_path):
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    assert blocks
    assert shown
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    # the first block's; sizes and means of so few draws are not the same on every processor
    shown, printed = (
        re.sub(r"-?\d+(\.\d+)?", "#", text).split() for text in (shown, result.stdout)
    )
    assert printed[: len(shown)] == shown


@pytest.mark.smoke
def test_the_package_tells_what_is_here_and_checks_itself(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "energia"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(re.findall(r": ok \(", result.stdout)) == 3
    for name in (*en.samplers.names(), *en.objectives.names()):
        assert name in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nuts", "hmc", "mala", "langevin"])
def test_quickstart_draws_its_pictures(tmp_path, sampler):
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py"), "--num-steps", "200"]
    result = subprocess.run(
        [*command, "--sampler", sampler, "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "max R-hat" in result.stdout
    from matplotlib.image import imread

    for name in ("composed.png", "digits.png", "traces.png"):
        picture = imread(tmp_path / name)
        assert np.std(picture) > 0.02, name


@pytest.mark.slow
def test_posteriors_find_what_is_known(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "posteriors.py"), "--num-samples", "300"]
    result = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = result.stdout
    assert told.count("max R-hat") == told.count("Pareto k diagnostic values") == 3
    from matplotlib.image import imread

    for name in ("eight_schools.png", "varying_intercepts.png", "mixture.png"):
        assert np.std(imread(tmp_path / name)) > 0.02, name
    for name in ("mu", "tau", "slope", "sigma"):
        found = re.search(rf"^{name} +(\S+) +(\S+) +(\S+)$", told, re.MULTILINE)
        assert found, told
        truth, mean, sd = map(float, found.groups())
        assert abs(mean - truth) < 4 * sd + 0.01, name  # two digits are printed
    inside = re.search(r"90 % intervals hold (\d+) of 30", told)
    assert inside
    assert int(inside[1]) >= 22  # by chance fewer in 1 of 500
    labels = re.search(r"without a label: (\d+)%", told)
    assert labels
    assert int(labels[1]) >= 94
    elpd = re.search(r"elpd_loo +(\S+)", told)
    assert elpd
    assert abs(float(elpd[1]) - eight_schools_elpd()) < 0.3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_boltzmann_machines_score_digits(tmp_path):
    """Fewer steps than it takes by itself: still far above independent pixels, -24.15."""
    command = [sys.executable, str(ROOT / "examples" / "boltzmann.py"), "--num-hidden", "12"]
    options = ["--num-steps", "600", "--layers", "8", "6", "--out", str(tmp_path)]
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = [float(x) for x in re.findall(r"LogLikelihood\((\S+) ±", result.stdout)]
    assert len(found) == 2
    assert -20.5 < found[0] < -18
    assert -24 < found[1] < -18
    from matplotlib.image import imread

    for name in ("rbm_samples.png", "rbm_filters.png", "rbm_completed.png", "dbm_samples.png"):
        assert np.std(imread(tmp_path / name)) > 0.02, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_of_toys_makes_its_table(tmp_path):
    """A twentieth of the steps: every objective runs, and a picture is made."""
    path = tmp_path / "toys.png"
    command = [sys.executable, str(ROOT / "benchmarks" / "toys.py"), "--toys", "moons"]
    options = ["--scale", "0.05", "--out", str(path)]
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ +(\w+) +(-\d+\.\d+) +(-\d+\.\d+) .*/2", result.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["cd", "pcd", "sm", "ssm", "dsm", "nce", "drl"]
    assert all(float(found) < float(own) + 0.1 for _, found, own in rows)
    assert max(float(found) for _, found, _ in rows) > -3.2
    from matplotlib.image import imread

    assert np.std(imread(path)) > 0.02


def eight_schools_elpd() -> float:
    """The sum of log p(y_j | the others), by quadrature over mu and tau; theta integrates out."""
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mu = np.linspace(-30, 40, 701)[:, None, None]
    tau = 5 * np.tan(np.pi * (np.arange(500) + 0.5) / 1000)[:, None]  # half-Cauchy quantiles
    variance = errors**2 + tau**2
    each = -0.5 * (effects - mu) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    joint = each.sum(-1, keepdims=True) - 0.5 * (mu / 5) ** 2
    whole, without = np.exp(joint).sum((0, 1)), np.exp(joint - each).sum((0, 1))
    return float(np.log(whole / without).sum())
