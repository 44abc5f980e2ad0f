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
from blackjax.mcmc import hmc, integrators, metrics, trajectory
from blackjax.smc import resampling, tempered
from blackjax.util import generate_gaussian_noise
from jax.flatten_util import ravel_pytree

from energia._types import Values
from energia.energies._energy import Energy
from energia.samplers._sampler import Kernel

DIVERGING = 1000.0  # an error of the Hamiltonian, as in BlackJAX


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
        # dicts of variables as vectors: each operation of a kernel on a position is then one,
        # however many the variables, which compiles faster, and runs faster on small models
        density, unravel = log_density(energy), ravel_pytree(state.position)[1]
        parts, structure = jax.tree.flatten(state, is_leaf=lambda part: isinstance(part, dict))
        vectors = [ravel_pytree(part)[0] if isinstance(part, dict) else part for part in parts]
        algorithm = self._algorithm(lambda vector: density(unravel(vector)))
        new, info = algorithm.step(key, structure.unflatten(vectors))
        moved = zip(parts, jax.tree.leaves(new), strict=True)
        new = structure.unflatten(unravel(n) if isinstance(old, dict) else n for old, n in moved)
        return new, {**self._info(new, info), "lp": new.logdensity}


def log_density(energy: Energy) -> Any:
    """Minus the energy, as BlackJAX takes it."""
    return lambda position: -energy.at(position)


# --- from BlackJAX's parts: momenta, and dynamics with no Metropolis step


def euclidean(inverse_mass_matrix: Any) -> metrics.Metric:
    """BlackJAX's metric; momenta need no Cholesky factor where a dense matrix is diagonal."""
    metric = metrics.default_metric(inverse_mass_matrix)
    if getattr(inverse_mass_matrix, "ndim", None) != 2:  # diagonal, or of low rank
        return metric
    variance = jnp.diag(inverse_mass_matrix)
    correlated = jnp.any(inverse_mass_matrix != jnp.diag(variance))

    def sample_momentum(rng_key: Any, position: Any) -> Any:
        noise, unravel = ravel_pytree(generate_gaussian_noise(rng_key, position))

        def dense() -> jax.Array:
            factor = jnp.linalg.cholesky(inverse_mass_matrix)
            return jax.scipy.linalg.solve_triangular(factor, noise, trans="T", lower=True)

        return unravel(jax.lax.cond(correlated, dense, lambda: noise / jnp.sqrt(variance)))

    return metric._replace(sample_momentum=sample_momentum)


def unadjusted_hmc(
    log_density: Any,
    step_size: Any,
    inverse_mass_matrix: Any,
    num_integration_steps: Any,
    persistence: Any,
) -> SamplingAlgorithm:
    """Leapfrog trajectories that are accepted unless they diverge, momenta refreshed in part.

    What it tells is that of `blackjax.hmc`: the acceptance rate is the one of a Metropolis step.
    """
    metric = euclidean(inverse_mass_matrix)
    integrate = trajectory.static_integration(
        integrators.velocity_verlet(log_density, metric.kinetic_energy)
    )
    total = trajectory.hmc_energy(metric.kinetic_energy)

    def init(position: Any, rng_key: Any) -> Any:
        momentum = metric.sample_momentum(rng_key, position)
        return integrators.new_integrator_state(log_density, position, momentum)

    def step(rng_key: Any, state: Any) -> tuple[Any, hmc.HMCInfo]:
        fresh = metric.sample_momentum(rng_key, state.position)
        kept, new = persistence, jnp.sqrt(1 - persistence**2)
        momentum = jax.tree.map(lambda p, q: kept * p + new * q, state.momentum, fresh)
        start = state._replace(momentum=momentum)
        end = integrate(start, step_size, num_integration_steps)
        energy = total(end)
        gain = total(start) - energy
        rate = jnp.where(jnp.isnan(gain), 0.0, jnp.minimum(1.0, jnp.exp(gain)))
        diverging = ~(-gain <= DIVERGING)
        end = jax.tree.map(lambda old, new: jnp.where(diverging, old, new), start, end)
        told: Any = momentum, rate, ~diverging, diverging, energy, end, num_integration_steps
        return end, hmc.HMCInfo(*told)

    return SamplingAlgorithm(init, step)


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
