"""What is shown runs: doctests of every module, README's Python, the quickstart."""

import doctest
import importlib
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


@pytest.mark.parametrize("name", en.__all__)
def test_public_names_are_documented(name):
    documentation = getattr(en, name).__doc__
    assert documentation
    assert documentation.strip()


@pytest.mark.smoke
def test_readme_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


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
