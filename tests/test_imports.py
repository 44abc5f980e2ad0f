"""Imports run one way, and importing changes nothing."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import energia

PACKAGE = Path(energia.__file__).parent
# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"_types", "_registry", "_cache"},
    {"_mesh"},
    {"supports"},
    {"energies"},
    {"_reference"},
    {"paths"},
    {"samplers"},
    {"diagnostics"},
    {"sampling"},
    {"objectives"},
    {"training"},
    {"evaluate"},
    {"plot", "data", "interop"},
    {"testing"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a module imports from the package."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = str(node.module)
            names = [f"{module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in (names if module == "energia" else [module])]
    return [(line, name) for line, name in found if name.split(".")[0] == "energia"]


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = layer(path)
    assert own in RANK, f"{own} has no place in the order of layers"
    for line, name in imports(path):
        if name == "energia.__version__" or (name == "energia" and own == "__main__"):
            continue
        if (path.name, name) == ("_result.py", "energia.plot"):
            continue  # by Fit.plot, when it is called
        other = name.split(".")[1]
        assert RANK[other] <= RANK[own], f"{path}:{line}: {own} imports {name}, which is above it"
        assert RANK[other] < RANK[own] or other == own, f"{path}:{line}: {own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_a_backward_import_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from energia.sampling import sample\n    import energia as en\n")
    assert imports(path) == [(2, "energia.sampling"), (3, "energia")]


def test_importing_changes_no_settings_and_loads_no_plots() -> None:
    script = """
        import os, sys, warnings
        import blackjax, equinox, jax, optax
        settings, variables = dict(jax.config.values), dict(os.environ)
        filters = list(warnings.filters)
        import energia
        assert dict(jax.config.values) == settings
        assert dict(os.environ) == variables
        assert warnings.filters == filters
        heavy = {"arviz_base", "arviz_stats", "xarray", "pandas", "matplotlib", "sklearn"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        for name in ("data", "evaluate", "interop", "plot", "testing"):
            assert f"energia.{name}" not in sys.modules, name
            assert name in dir(energia)
            assert getattr(energia, name) is sys.modules[f"energia.{name}"]
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, timeout=120, cwd=PACKAGE.parent)
