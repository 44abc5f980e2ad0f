"""A second run with other numbers compiles nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

Counter = Callable[[], AbstractContextManager[Any]]

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")


@en.energy
def coupled(x, y):
    return jnp.sum((x - y) ** 2)


@en.energy(x=en.Spin((2,)))
def spins(x, y):
    return jnp.sum(x * y) + x[0] * x[1]


def energy(number: float, sampler: Any = None) -> en.Energy:
    """A composite, so that weights and conditioned values are among the other numbers."""
    if sampler in ("gibbs", "gibbs_with_gradients", "discrete_langevin"):
        return number * spins.condition(y=np.full(2, number))
    prior = en.Gaussian([number, -number], scale=[number, 0.5])
    return prior + number * coupled.condition(y=np.full(2, number))


def run(sampler: Any, number: float = 1.0, seed: int = 0, **options: Any) -> en.Draws:
    options = {"num_warmup": 30, "num_samples": 10} | options
    return en.sample(energy(number, sampler), sampler, key=jax.random.key(seed), **options)


@pytest.fixture(autouse=True)
def small_arrays() -> None:
    """What making keys and energies compiles, once."""
    energy(3.0)
    jax.random.key(9)


CHANGES: dict[str, dict[str, Any]] = {
    "numbers in the energy": {"number": 2.0},
    "key": {"seed": 1},
    "num_warmup": {"num_warmup": 700},
    "num_samples": {"num_samples": 1500},  # more than one buffer
    "thin": {"thin": 3},
    "all of them": {"number": 0.5, "seed": 2, "num_warmup": 5, "num_samples": 7, "thin": 2},
}


KERNELS = [
    name
    for name in en.samplers.names()
    if not issubclass(en.samplers.registry.get(name), en.samplers.ParticleSampler)
]


@pytest.mark.parametrize("name", KERNELS)
def test_second_run(name: str, compilations: Counter) -> None:
    draws = run(name)
    for change, options in CHANGES.items():
        with compilations() as seen:
            run(name, **options)
        assert seen.count == 0, (change, seen.compiled)
    with compilations() as seen:
        draws.extend(3).extend(1100)
    assert seen.count == 0, ("extend", seen.compiled)


@pytest.mark.parametrize("method", ["vectorized", "parallel"])
def test_either_way_of_running_chains(method: str, compilations: Counter) -> None:
    draws = run("mala", chain_method=method)
    with compilations() as seen:
        run("mala", chain_method=method, **CHANGES["all of them"])
        draws.extend(3)
    assert seen.count == 0, seen.compiled


@pytest.mark.parametrize(
    "make",
    [
        lambda number: en.samplers.Langevin(step_size=number, noise_scale=number, clip=10 * number),
        lambda number: en.samplers.MALA(step_size=number),
        lambda number: en.samplers.HMC(
            step_size=number,
            inverse_mass_matrix=[number, 1.0],
            num_integration_steps=round(100 * number),
        ),
        lambda number: en.samplers.NUTS(
            step_size=number, inverse_mass_matrix=[number, 1.0], target_acceptance_rate=0.5 + number
        ),
    ],
    ids=["langevin", "mala", "hmc", "nuts"],
)
def test_other_numbers_of_the_sampler(
    make: Callable[[float], en.samplers.Sampler], compilations: Counter
) -> None:
    kernel, other = make(0.1), make(0.05)
    run(kernel, num_warmup=0)
    with compilations() as seen:
        run(other, number=2.0, num_warmup=3)
    assert seen.count == 0, seen.compiled


def test_more_chains_one_after_another(compilations: Counter) -> None:
    starts = {n: np.zeros((n, 2)) for n in (2, 5)}
    run("mala", chain_method="parallel", num_chains=2, init=starts[2])
    with compilations() as seen:
        run("mala", chain_method="parallel", num_chains=5, init=starts[5])
    assert not {"jit(_advance)"} & set(seen.compiled), seen.compiled
