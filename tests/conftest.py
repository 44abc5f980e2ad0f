"""What every test may use: keys, a counter of compilations, the data folder, settings.

Nothing here imports energia: its import hook has to be in place first.
"""

import gc
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import jax
import jax.monitoring
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ["MPLBACKEND"] = "Agg"  # also for the processes that tests start

# Compiling takes longer than Hypothesis's clocks allow. The fixture `key` is a constant, so a test
# may use it beside @given.
_common = hypothesis.settings(
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.register_profile("energia", _common, max_examples=20)
hypothesis.settings.register_profile("ci", _common, max_examples=100)
hypothesis.settings.load_profile("energia")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="base seed of the fixture `key` (default 0); another one draws every test anew",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"energia: base seed {config.getoption('--seed')} (--seed)"


# A compiled program holds memory maps, of which Linux gives a process 65,530: beyond, it is killed.
# The programs are forgotten in time; what is asked for again is compiled again.
MOST_MAPS = 20_000
CHECK_EVERY = 100  # programs
_programs: list[str] = []


def _count_maps() -> int:
    maps = Path("/proc/self/maps")
    return len(maps.read_bytes().splitlines()) if maps.exists() else 0


def pytest_configure(config: pytest.Config) -> None:
    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            _programs.append(str(kwargs.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    yield
    if len(_programs) > CHECK_EVERY:
        _programs.clear()
        if _count_maps() > MOST_MAPS:
            jax.clear_caches()
            gc.collect()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A typed key that belongs to this test alone: it depends on the test's id and on `--seed`."""
    seed = request.config.getoption("--seed")
    assert isinstance(seed, int)
    name = zlib.crc32(request.node.nodeid.encode())
    return jax.random.fold_in(jax.random.key(seed), np.uint32(name))


@dataclass
class Compilations:
    """What JAX did inside a `with compilations() as seen` block, by the names of the functions."""

    compiled: list[str] = field(default_factory=list)
    """Programs handed to XLA, found in the persistent cache or not."""
    traced: list[str] = field(default_factory=list)
    """Functions that JAX traced: the outermost ones, not those that they call."""

    @property
    def count(self) -> int:
        """The number of programs compiled."""
        return len(self.compiled)


@contextmanager
def _count_compilations() -> Iterator[Compilations]:
    seen = Compilations()
    lists = {
        "/jax/core/compile/backend_compile_duration": seen.compiled,
        "/jax/core/compile/jaxpr_trace_duration": seen.traced,
    }

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in lists:
            lists[event].append(str(kwargs.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def compilations() -> Callable[[], AbstractContextManager[Compilations]]:
    """Count what JAX traces and compiles, in every thread.

    with compilations() as seen:
        en.sample(...)
    assert seen.count == 0, seen.compiled
    """
    # A counter that hears nothing would pass every test: JAX may rename its events.
    with _count_compilations() as seen:
        jax.jit(lambda x: x + 1)(np.float32(0)).block_until_ready()
    assert seen.compiled, "JAX reports compilations under another name"
    assert seen.traced, "JAX reports tracing under another name"
    return _count_compilations


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of data sets, from the variable ENERGIA_DATA."""
    folder = Path(os.environ.get("ENERGIA_DATA", ROOT.parent / "shared" / "data")).expanduser()
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}: set ENERGIA_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def data_file(data_dir: Path) -> Callable[[str], Path]:
    """A file of the data sets by its name; a test that asks for one that is absent is skipped."""

    def find(name: str) -> Path:
        file = data_dir / name
        if not file.exists():
            pytest.skip(f"no {name} in {data_dir}")
        return file

    return find
