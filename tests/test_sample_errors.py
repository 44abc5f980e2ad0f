"""Bad input to `sample`: a clear error, before anything compiles."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.sampling import _memory

KEY = jax.random.key(0)
NORMAL = en.Gaussian([0.0, 0.0])
sample = inspect.unwrap(en.sample)  # what users call: below the type checker of the tests
BLAMELESS = {"energy": NORMAL, "sampler": "nuts", "key": KEY, "num_warmup": 5, "num_samples": 5}


@en.energy(x=en.Real((2,)))
def vector(x):
    return x


@en.energy(x=en.Real((2,)))
def whole(x):
    return jnp.sum(jnp.round(x)).astype(int)


@en.energy(x=en.Real((2,)))
def imaginary(x):
    return jnp.sum(x + 1j)


@en.energy(x=en.Real((2,)))
def forgets_to_return(x):
    jnp.sum(x)


@en.energy
def unknown(x, y):
    return jnp.sum(x**2) + jnp.sum(y**2)


@en.energy(s=en.Binary((3,)), x=en.Real())
def mixed(s, x):
    return jnp.sum(s) * x**2


@en.energy(x=en.Real((2,)))
def infinite(x):
    return jnp.sum(x) + jnp.inf


@en.energy
def up_to_three(x, y):
    return jnp.where(y <= 3, 0.5 * x**2, jnp.inf)


@en.energy(x=en.Real())
def infinite_slope(x):
    return jnp.sqrt(jnp.abs(x - x))


TYPE_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"energy": vector}, r"vector\(x\) must return a scalar, got shape \(2,\) from variables of"),
    ({"energy": whole}, "must return a real number, got dtype int"),
    ({"energy": imaginary}, "must return a real number, got dtype complex"),
    ({"energy": forgets_to_return}, "forgets_to_return returned None"),
    ({"energy": lambda x: x}, "takes an energy, got <function .*: en.energy makes one"),
    ({"energy": en.Gaussian}, "takes an energy, got <class"),
    ({"sampler": en.samplers.NUTS}, r"got <class .*NUTS'>: write NUTS\(...\)"),
    ({"sampler": 3}, "expected the name of a sampler or an en.samplers object, got 3"),
    ({"key": jax.random.PRNGKey(0)}, r"typed JAX key such as jax.random.key\(0\).*legacy PRNGKey"),
    ({"key": 0}, r"typed JAX key such as jax.random.key\(0\), got 0"),
    ({"num_samples": 10.0}, "num_samples= must be an integer, got 10.0"),
    ({"num_chains": True}, "num_chains= must be an integer, got True"),
    (
        {"energy": mixed},
        r"NUTS moves along gradients, and 's' is discrete \(binary \(3,\)\): dra",
    ),
    ({"energy": mixed}, r"'s' is discrete .*, or fix it with \.condition\(s=...\)"),
    ({"energy": mixed, "sampler": "langevin"}, "Langevin moves along gradients, and 's' is dis"),
    ({"init": "zeros"}, "init for 'x' must hold real numbers, got dtype <U5"),
    ({"init": np.zeros(2, complex)}, "init for 'x' must hold real numbers, got dtype complex128"),
    ({"energy": unknown, "init": np.zeros(2)}, r"must be a dict by variable name, .*\('x', 'y'\)"),
    (
        {"energy": unknown, "init": {"x": np.zeros(2, int), "y": 0.0}},
        r"dtype int64, and its support is unknown: .*\.constrain\(x=en.Categorical\(...\)\)",
    ),
]
VALUE_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"sampler": "nut"}, "no sampler is called 'nut': did you mean 'nuts'.*The names are .*mala"),
    ({"sampler": "zzz"}, r"'zzz': The names are .*@en.samplers.register\('zzz'\) adds one"),
    ({"key": jax.random.split(KEY, 3)}, r"must be one key, got an array of keys of shape \(3,\)"),
    ({"num_samples": 0}, "num_samples= must be at least 1, got 0"),
    ({"num_chains": 0}, "num_chains= must be at least 1, got 0"),
    ({"num_warmup": -1}, "num_warmup= must be at least 0, got -1"),
    ({"thin": 0}, "thin= must be at least 1, got 0"),
    ({"num_samples": 2**30, "thin": 4}, "a chain of 4294967301 steps .* is too long: at most"),
    ({"chain_method": "pmap"}, r"must be one of \('auto', 'vectorized', 'parallel'\), got 'pmap'"),
    (
        {"num_warmup": 0},
        r"NUTS is not tuned: give NUTS\(step_size=..., inverse_mass_matrix=...\), or draw with",
    ),
    ({"num_warmup": 0, "sampler": en.samplers.HMC(step_size=0.1)}, r"HMC\(inverse_mass_matrix="),
    ({"init": np.zeros(3)}, r"must have shape \(4, 2\), one start a chain, or \(2,\), .* \(3,\)"),
    ({"init": np.zeros((3, 2))}, r"must have shape \(4, 2\), one start a chain, .* got \(3, 2\)"),
    ({"init": np.array([0.0, np.nan])}, "init for 'x' is not finite: nan"),
    ({"init": {"z": np.zeros(2)}}, r"init= has \['z'\]; the variables are \('x',\)"),
    (
        {"energy": unknown, "init": {"y": 0.0}},
        r"the support of 'x' is unknown, .*init=\{'x': ...\} .*\.constrain\(x=en.Real",
    ),
]


def call(changes: dict[str, Any]) -> None:
    sample(**{**BLAMELESS, **changes})


@pytest.mark.parametrize(("changes", "message"), TYPE_ERRORS)
def test_type_error(
    changes: dict[str, Any],
    message: str,
    compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    with compilations() as seen, pytest.raises(TypeError, match=message):
        call(changes)
    assert seen.count == 0, seen.compiled


@pytest.mark.parametrize(("changes", "message"), VALUE_ERRORS)
def test_value_error(
    changes: dict[str, Any],
    message: str,
    compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    with compilations() as seen, pytest.raises(ValueError, match=message):
        call(changes)
    assert seen.count == 0, seen.compiled


# These look at values, or trace a kernel; nothing that could take long is compiled.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"energy": NORMAL.constrain(x=en.Positive((2,))), "init": [1.0, -1.0]},
            r"init for 'x' .* outside its support positive \(2,\); .* -1.0 at index \(0, 1\)",
        ),
        (
            {"energy": NORMAL.constrain(x=en.Simplex(2)), "init": [0.5, 0.6]},
            "init for 'x' has .* outside its support",
        ),
        (
            {"energy": infinite},
            r"energy of infinite\(x\) or its gradient is not finite at the start of chain 0: "
            r"E = inf at x=\[.*Give init=",
        ),
        (
            {"sampler": en.samplers.HMC(step_size=0.1, inverse_mass_matrix=np.ones(3))},
            r"HMC\(inverse_mass_matrix=...\) must have shape \(2,\) or \(2, 2\), .* got \(3,\)",
        ),
        ({"energy": infinite, "init": [0.0, 0.0]}, r"E = inf at x=\[0. 0.\]"),
        (
            {"energy": en.Gaussian(0.0) + en.total(up_to_three, y=[1.0, 5.0, 2.0, 4.0])},
            r"Not finite: Σ.*That is 2 of its 4 rows; the first is row 1: y=5.0\. .*Give init=",
        ),
        ({"energy": infinite_slope}, r"or its gradient is not finite .* E = 0 at x="),
    ],
)
def test_bad_start(
    changes: dict[str, Any],
    message: str,
    compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    with compilations() as seen, pytest.raises(ValueError, match=message):
        call(changes)
    assert not {"jit(init_states)", "jit(_advance)"} & set(seen.compiled)


class Walk(en.samplers.Kernel):
    """A kernel that has no marker."""

    def init(self, energy, position, key):
        raise AssertionError("never reached")

    def step(self, energy, state, key):
        raise AssertionError("never reached")


class Joint(Walk, en.samplers.AllChains):
    """A kernel that needs all chains."""


def test_kernel_that_does_not_fit() -> None:
    with pytest.raises(TypeError, match="Walk moves real variables, and 's' is discrete"):
        call({"energy": mixed, "sampler": Walk()})
    with pytest.raises(ValueError, match=r"Joint is tuned on all chains .* leave 'auto'"):
        call({"sampler": Joint(), "chain_method": "parallel"})


def test_whole_numbers_for_a_discrete_variable() -> None:
    energy = en.energy(y=en.Categorical(3))(lambda y: 0.1 * y)
    with pytest.raises(TypeError, match=r"must hold whole numbers .*, got float64"):
        call({"energy": energy, "init": 0.5})


def test_extend_and_load() -> None:
    with pytest.warns(en.ConvergenceWarning):
        draws = en.sample(NORMAL, "mala", key=KEY, num_warmup=5, num_samples=5)
    with pytest.raises(ValueError, match="num_samples= must be at least 1, got 0"):
        draws.extend(0)
    with pytest.raises(ValueError, match="is too long: at most 2147483646"):
        draws.extend(2**31)


def test_an_error_within_an_energy_names_it():
    @en.energy(x=en.Real((2,)))
    def mistaken(x):
        return x @ jnp.ones((3, 3)) @ x

    @en.energy(x=en.Real())
    def branching(x):
        return x if x > 0 else x**2

    for energy, error, text in (
        (mistaken, TypeError, "'mistaken', called with x of shape (2,)"),
        (branching, jax.errors.TracerBoolConversionError, "jnp.where(condition, a, b)"),
    ):
        with pytest.raises(error) as told:
            en.sample(energy, "nuts", key=jax.random.key(0))
        assert any(text in note for note in told.value.__notes__)


@pytest.mark.parametrize("sampler", ["hmc", "smc"])
def test_more_draws_than_memory_holds(sampler):
    wide = en.Gaussian(jnp.zeros(1000))
    with pytest.raises(MemoryError, match=r"need about [\d,.]+ GB, and .* free.*collect="):
        en.sample(wide, sampler, key=KEY, num_warmup=1, num_samples=10**8)


@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_a_run_that_is_extended_counts_the_draws_that_it_has(monkeypatch):
    short: dict[str, Any] = {"key": KEY, "num_chains": 2, "num_warmup": 50}
    draws = en.sample(NORMAL, "mala", num_samples=100, **short)
    monkeypatch.setattr(_memory, "available", lambda: _memory.COPIES * 500 * 8)
    with pytest.raises(MemoryError, match="502 draws of 8 bytes"):
        draws.extend(151)
    assert draws.extend(150).num_samples == 250
    kept = en.sample(NORMAL, "mala", num_samples=500, collect=lambda x: x[0], **short)
    assert kept["value"].shape == (2, 500)


def test_free_memory_is_known_here():
    free = _memory.available()
    assert free is None or 0 < free < 2**50


def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(_memory, "CGROUP", tmp_path)
    free = _memory.available()
    told = {"max": "2000", "current": "1900", "stat": "anon 1100\ninactive_file 700"}
    for name, text in told.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert _memory.available() == 2000 - 1900 + 700
    (tmp_path / "memory.max").write_text("max\n")
    unlimited = _memory.available()
    assert (unlimited is None) == (free is None)
    assert unlimited is None or unlimited > 2000
