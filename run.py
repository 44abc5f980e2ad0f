"""Set up and run: a task runner that needs nothing but Python 3.11 or newer, and pip.

    python3 run.py quickstart [ARGS]      examples/quickstart.py with ARGS
    python3 run.py test [PYTEST ARGS]     ruff, pyright, and every test that is not slow
    python3 run.py test --all [...]       the same with the slow tests
    python3 run.py smoke [PYTEST ARGS]    a smoke subset on the newest Python found
    python3 run.py docs [--execute]       the documentation, in site/; with the examples run anew

The tests run under XLA flags that compile fast (variable XLA_FLAGS: yours, where it is set), the
smoke subset under XLA's own.

Each task makes a virtual environment in this folder where there is none (`.venv`, or `.venv-3.x`
for another Python than the one that runs this), installs energia into it, editable, with what the
task needs, and runs there. A second run installs nothing unless pyproject.toml has changed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# This file must parse on every Python 3, so that an old one gets the message and not a SyntaxError.
ROOT = Path(__file__).resolve().parent
OLDEST = "3.11"
KNOWN = ("3.14", "3.13", "3.12", "3.11")  # looked for, newest first
EXTRAS = {"quickstart": "examples", "test": "test", "smoke": "test", "docs": "docs"}
# Most of the tests' time is XLA's, for programs that run for a moment: its older emitters and LLVM
# at level 1 compile them faster. At level 0 what samples runs slower than this saves.
COMPILE_FAST = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
STAMP = "energia-install.json"


class Failure(Exception):
    """A task cannot go on; the message says what to do."""


def main(argv):
    """Run the task that the command line names and return its exit code."""
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not argv or argv[0] not in EXTRAS:
        problem = f"no task {argv[0]!r}" if argv else "no task given"
        print(f"{problem}; the tasks are {', '.join(EXTRAS)}\n\n{__doc__}", file=sys.stderr)
        return 2
    task, arguments = argv[0], argv[1:]
    try:
        if sys.version_info[:2] < number(OLDEST):
            raise Failure(too_old())
        if task == "smoke":
            return smoke(arguments)
        python = environment(ROOT / ".venv", sys.executable, EXTRAS[task])
        return {"quickstart": quickstart, "test": test, "docs": docs}[task](python, arguments)
    except Failure as failure:
        print(f"run.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# --- the tasks


def quickstart(python, arguments):
    """Run the first example with the arguments passed through."""
    return call([python, ROOT / "examples" / "quickstart.py", *arguments])


def test(python, arguments):
    """Run the static checks and the tests: all of them, also after one has failed."""
    everything = "--all" in arguments
    arguments = [argument for argument in arguments if argument != "--all"]
    chosen = ["--hypothesis-profile=ci"] if everything else ["-m", "not slow"]
    steps = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format --check": [python, "-m", "ruff", "format", "--check", "."],
        "pyright": [python, "-m", "pyright", "--pythonpath", python],
        "pytest": [*pytest(python), *chosen, *arguments],
    }
    return run_all(steps, compile_fast(python))


def smoke(arguments):
    """Run the smoke subset on the newest Python found."""
    newest, version = newest_python()
    if newest == sys.executable:
        say(f"Python {version}, which runs this, is the newest found: the smoke tests run on it")
        folder = ROOT / ".venv"
    else:
        say(f"the newest Python found is {version} ({newest})")
        folder = ROOT / f".venv-{short(version)}"
    python = environment(folder, newest, EXTRAS["smoke"])
    return run_all({"pytest -m smoke": [*pytest(python), "-m", "smoke", *arguments]})


def docs(python, arguments):
    """Build the documentation; a warning is an error."""
    return run_all({"the documentation": [python, "tools/build_site.py", *arguments]})


def pytest(python):
    """Pytest on two processes, a file in one of them: its tests share what they have compiled."""
    return [python, "-m", "pytest", "-n", "2", "--dist", "loadfile"]


def compile_fast(python):
    """Return the variables under which XLA compiles fast, where this version knows the flags.

    XLA ends the process at a flag that it does not know. Flags that the caller has set stay alone.
    """
    if "XLA_FLAGS" in os.environ:
        return {}
    flags = {"XLA_FLAGS": COMPILE_FAST}
    return flags if output(python, "import jax; print(jax.devices())", flags) else {}


def run_all(steps, more=None):
    """Run every step, say which failed, and return the first exit code that is not zero."""
    variables = {
        **(more or {}),
        # A thread for each of the two test processes: small programs on pools of threads that share
        # the cores take three times as long.
        "NPROC": "1",
        # What compiles slowly is compiled once and kept for later runs.
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        # The version is pinned: no look at the registry for a newer one.
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    codes = {}
    for name, command in steps.items():
        say(name)
        codes[name] = call(command, variables)
    failed = [name for name, code in codes.items() if code]
    say(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(codes)}")
    return codes[failed[0]] if failed else 0


# --- the environment


def environment(folder, base, extra):
    """Return the Python of a virtual environment with energia and the extra installed."""
    stamp = folder / STAMP
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = read(stamp)
    version = probe(base)
    if installed.get("python") != version or probe(python) is None:
        if folder.exists() and not stamp.exists():
            if probe(python) is None or short(probe(python)) != short(version):
                raise Failure(
                    f"{folder.name} is there, was not made by run.py, and is no virtual "
                    f"environment of Python {short(version)}: move it away"
                )
        else:
            create(folder, base, version)
        installed = {"python": version, "extras": []}

    current = {
        "python": version,
        "extras": sorted({extra, *installed.get("extras", [])}),
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "checkout": str(ROOT),  # an editable install points here
    }
    if installed != current:
        extras = ",".join(current["extras"])
        say(f"installing energia[{extras}] into {folder.name}; this may take minutes")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if call([*pip, "--editable", f".[{extras}]"]):
            raise Failure(f"pip could not install energia[{extras}]: its message stands above")
        stamp.write_text(json.dumps(current, indent=2) + "\n", encoding="utf-8")
    return str(python)


def create(folder, base, version):
    """Make a virtual environment, in place of what run.py made there before."""
    if output(base, "import ensurepip, venv") is None:
        raise Failure(
            f"Python {version} ({base}) cannot make virtual environments: it lacks venv or "
            f"ensurepip. On Debian and Ubuntu: apt install python{short(version)}-venv"
        )
    say(f"making {folder.name} with Python {version}")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    # The stamp comes first: an environment half made is then known as run.py's, and made again.
    stamp = folder / STAMP
    stamp.write_text("{}\n", encoding="utf-8")
    if call([base, "-m", "venv", folder]):
        raise Failure(f"python -m venv could not make {folder.name}: its message stands above")
    stamp.write_text(json.dumps({"python": version}) + "\n", encoding="utf-8")


def read(stamp):
    """Return what a stamp says; nothing where it is missing or unreadable."""
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


# --- interpreters


def newest_python():
    """Return path and version of the newest Python that runs; at equal minors the one that runs."""
    own = probe(sys.executable)
    for minor in KNOWN:
        if number(minor) <= number(short(own)):
            break
        for candidate in candidates(minor):
            version = probe(candidate)
            if version is not None and short(version) == minor:
                return candidate, version
    return sys.executable, own


def candidates(minor):
    """Yield the places where a Python of this minor version may be: PATH, then pyenv's folder."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("python" + minor, path=folder) if folder else None
        if found:
            yield found
    pattern = re.compile(re.escape(minor) + r"\.(\d+)$")  # no betas, no free-threaded builds
    folders = (Path.home() / ".pyenv" / "versions").glob(minor + ".*")
    matches = [(pattern.match(folder.name), folder) for folder in folders]
    patches = [(int(match.group(1)), folder) for match, folder in matches if match]
    for _, folder in sorted(patches, reverse=True):
        yield str(folder / "bin" / "python")


def probe(python):
    """Return the version of a Python, found by running it; None where it does not run.

    A name on PATH says little: pyenv keeps shims there for versions that are not active.
    """
    return output(python, "import sys; print('.'.join(map(str, sys.version_info[:3])))")


def output(python, code, variables=None):
    """Return what Python code prints; None where it fails."""
    command = [str(python), "-c", code]
    environ = dict(os.environ, **(variables or {}))
    try:
        text = subprocess.check_output(command, stderr=subprocess.DEVNULL, env=environ)
        return text.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def too_old():
    """Say that this Python is too old, and which other one there is."""
    own = ".".join(map(str, sys.version_info[:3]))
    message = f"energia needs Python {OLDEST} or newer; this is {own} ({sys.executable})"
    newest, _ = newest_python()
    if newest == sys.executable:
        return f"{message}: install one and run this again with it"
    return f"{message}. There is a newer one here: {newest} run.py {' '.join(sys.argv[1:])}"


def short(version):
    """Turn '3.11.7' into '3.11'."""
    return ".".join(version.split(".")[:2])


def number(version):
    """Turn '3.11' into (3, 11), which compares by size."""
    return tuple(int(part) for part in version.split("."))


# --- processes


def call(command, variables=None):
    """Run a command in this folder and return its exit code, as a shell gives it."""
    environ = dict(os.environ, **(variables or {}))
    code = subprocess.run([str(part) for part in command], cwd=str(ROOT), env=environ).returncode
    return 128 - code if code < 0 else code


def say(message):
    """Print a line that stands out from the tools' own output."""
    print(f"==> {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
