"""The one file that knows BlackJAX's calling convention."""

import abc
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import (
    DualAveragingAdaptationState,
    dual_averaging_adaptation,
)
from blackjax.base import SamplingAlgorithm
from blackjax.smc import resampling, tempered

from energia._types import Values
from energia.energies._energy import Energy
from energia.samplers._sampler import Kernel


class BlackJAXKernel(Kernel):
    """A kernel that is a thin shell round a BlackJAX algorithm."""

    @abc.abstractmethod
    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        """The algorithm with this configuration's numbers."""

    @abc.abstractmethod
    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        """What BlackJAX tells, under ArviZ's names."""

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        self.check_set()
        return self._algorithm(log_density(energy)).init(position, key)  # pyright: ignore[reportCallIssue]

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        state, info = self._algorithm(log_density(energy)).step(key, state)
        return state, {**self._info(state, info), "lp": state.logdensity}


def log_density(energy: Energy) -> Any:
    """Minus the energy, as BlackJAX takes it."""
    return lambda position: -energy.at(position)


# --- tuning, from BlackJAX's parts


def step_size_init(initial: float) -> Any:
    """Start of dual averaging, as BlackJAX's own; with numbers of NumPy, so nothing compiles."""
    return DualAveragingAdaptationState(
        log_step_size=np.log(initial),
        log_step_size_avg=0.0,
        step=1,
        avg_error=0.0,
        mu=np.log(10 * initial),
    )  # pyright: ignore[reportArgumentType]


def step_size_update(state: Any, acceptance_rate: jax.Array, target: Any) -> Any:
    """One step of dual averaging; a non-finite acceptance rate counts as a rejection."""
    acceptance_rate = jnp.where(jnp.isfinite(acceptance_rate), acceptance_rate, 0.0)
    return dual_averaging_adaptation(target)[1](state, acceptance_rate)


# --- sequential Monte Carlo


def smc_init(particles: Values) -> Any:
    """Particles of equal weights at the reference, in the dtypes that later states have."""
    state = tempered.init(particles)  # pyright: ignore[reportArgumentType]
    return state._replace(tempering_param=jnp.zeros((), state.weights.dtype))


def smc_step(
    key: jax.Array,
    state: Any,
    densities: tuple[Any, Any],
    kernel: tuple[Any, Any],
    parameters: dict[str, jax.Array],
    num_mcmc_steps: int,
    target_ess: jax.Array,
) -> tuple[Any, Any]:
    """One level of adaptive tempered SMC.

    Args:
        key: a key.
        state: of `smc_init`, or of the step before.
        densities: log density of the reference, and of the target relative to it.
        kernel: `init(position, log_density)` and `step(key, state, log_density, **parameters)`.
        parameters: of the kernel, the same for all particles.
        num_mcmc_steps: steps of the kernel.
        target_ess: effective sample size of the weights, of each particle.
    """
    init, step = kernel
    algorithm = blackjax.adaptive_tempered_smc(
        *densities,
        step,
        init,
        {name: value[None] for name, value in parameters.items()},
        resampling.systematic,
        target_ess,  # pyright: ignore[reportArgumentType]
        num_mcmc_steps=num_mcmc_steps,
    )
    return algorithm.step(key, state)
