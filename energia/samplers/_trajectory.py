"""Trajectories of jittered length, tuned on all chains together by the ChEES criterion."""

import abc
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.mcmc.dynamic_hmc import halton_sequence
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_array, check_count, is_concrete, optional_float, strong_tree
from energia.energies._energy import Energy
from energia.samplers import _blackjax
from energia.samplers._blackjax import BlackJAXKernel
from energia.samplers._moments import Moments, Recent, flat, recent_mean, recent_moments
from energia.samplers._sampler import AllChains, GradientBased, Starts, check_entries, positive

HALTON_BITS = 16  # the sequence comes back after so many doublings
MIN_RATE = 0.01  # bounds what one chain that is stuck does to a harmonic mean over chains
ADAM = optax.adam(0.025, b1=0.0, b2=0.95)  # the numbers of Hoffman et al.

Same = TypeVar("Same", bound="Jittered")


class Tuning(eqx.Module):
    """State of warm-up."""

    dual: Any
    moments: Recent
    log_length: Any
    mean_log_length: Recent
    adam: Any
    last: Any
    fills: tuple[str, ...] = eqx.field(static=True)


class Jittered(BlackJAXKernel, GradientBased, AllChains):
    """A kernel that moves along trajectories, each of another length, the same for all chains.

    A number that was given stays.
    """

    tunable = ("step_size", "trajectory_length", "inverse_mass_matrix")

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    trajectory_length: jax.Array | None = eqx.field(
        default=None, converter=optional_float, kw_only=True
    )
    inverse_mass_matrix: jax.Array | None = eqx.field(
        default=None, converter=optional_float, kw_only=True
    )
    target_acceptance_rate: eqx.AbstractVar[jax.Array]
    max_steps: jax.Array = eqx.field(default=1000, converter=as_array, kw_only=True)

    def __check_init__(self):
        positive(self, *self.tunable, "target_acceptance_rate")
        if is_concrete(self.max_steps) and self.max_steps.ndim == 0:
            check_count(self.max_steps.item(), "max_steps", 1)
        rate, name = self.target_acceptance_rate, type(self).__name__
        if is_concrete(rate) and not np.all(np.asarray(rate) < 1):
            raise ValueError(f"{name}(target_acceptance_rate=...) must lie in (0, 1), got {rate}")

    @abc.abstractmethod
    def _first_scales(self, size: int) -> tuple[float, float]:
        """Step size and trajectory length to begin with."""

    @abc.abstractmethod
    def _velocity(self, proposal: Any) -> jax.Array:
        """The velocity at the end of a trajectory, in the coordinates of the metric."""

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        check_entries(self, "inverse_mass_matrix", position)
        # trajectories are jittered by a count of transitions in place of a key
        return super().init(energy, position, jnp.zeros((), jnp.int32))

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        fresh = self.init(energy, position, key)
        return fresh._replace(random_generator_arg=state.random_generator_arg)

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        new, info = super().step(energy, state, key)
        return new, {**info, "_start": ravel_pytree(state.position)[0]}

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "n_steps": jnp.asarray(info.num_integration_steps, jnp.int32),
            "step_size": jnp.asarray(self.step_size),
            "_end": ravel_pytree(info.proposal.position)[0],
            "_velocity": self._velocity(info.proposal),
            "_time": jnp.asarray(halton_sequence(state.random_generator_arg - 1, HALTON_BITS)),
        }

    def _num_steps(self, count: jax.Array) -> jax.Array:
        length: Any = self.trajectory_length
        steps = jnp.ceil(halton_sequence(count, HALTON_BITS) * length / self.step_size)
        return jnp.clip(steps, 1, self.max_steps).astype(jnp.int32)

    # --- tuning

    def tune_init(
        self: Same, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple[Same, Tuning | None]:
        if not self.unset():
            return self, None
        moments = Moments.start(positions)
        step_size, length = self._first_scales(moments.value.mean.size)
        step_size = step_size if self.step_size is None else float(self.step_size)
        length = length if self.trajectory_length is None else float(self.trajectory_length)
        filled = {
            "step_size": step_size,
            "trajectory_length": length,
            "inverse_mass_matrix": moments.value.covariance,
        }
        log_length = jnp.asarray(np.log(length), moments.value.mean.dtype)
        state = (
            _blackjax.step_size_init(step_size),
            moments,
            log_length,
            Recent.start(log_length),
            ADAM.init(log_length),
            np.int32(num_warmup - 1),
        )
        tuning = Tuning(*jax.tree.map(as_array, state), fills=self.unset())
        return strong_tree(self.replace(**{n: filled[n] for n in tuning.fills})), tuning

    def tune(
        self: Same, tuning: Tuning | None, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Tuning | None]:
        if tuning is None:
            return self, None
        rates = jnp.nan_to_num(info["acceptance_rate"])
        harmonic = 1 / jnp.mean(1 / jnp.clip(rates, MIN_RATE, 1))
        dual = _blackjax.step_size_update(tuning.dual, harmonic, self.target_acceptance_rate)
        last = step == tuning.last
        step_size = jnp.exp(jnp.where(last, dual.log_step_size_avg, dual.log_step_size))

        slope = self._slope(tuning.moments.value.mean, rates, info)
        change, adam = ADAM.update(-slope, tuning.adam)
        log_length: Any = tuning.log_length + change
        mean_log_length = recent_mean(tuning.mean_log_length, log_length, step)
        moments = recent_moments(tuning.moments, flat(states.position), step)
        filled = {
            "step_size": step_size,
            "trajectory_length": jnp.exp(jnp.where(last, mean_log_length.value, log_length)),
            "inverse_mass_matrix": moments.value.covariance,
        }
        tuning = Tuning(dual, moments, log_length, mean_log_length, adam, tuning.last, tuning.fills)
        return self.replace(**{name: filled[name] for name in tuning.fills}), tuning

    def _slope(self, mean: jax.Array, rates: jax.Array, info: dict[str, jax.Array]) -> jax.Array:
        r"""The slope of the ChEES criterion in the logarithm of the trajectory length.

        $\mathbb E\,(\|x' - m\|^2 - \|x - m\|^2) \langle x' - m, v' \rangle\, h L$, over proposals
        weighted by their acceptance, in the coordinates of the metric.
        """
        scale: Any = jnp.sqrt(jnp.asarray(self.inverse_mass_matrix))
        length: Any = self.trajectory_length
        start, end = (info["_start"] - mean) / scale, (info["_end"] - mean) / scale
        gain = jnp.sum(end**2, axis=1) - jnp.sum(start**2, axis=1)
        speed = jnp.sum(end * info["_velocity"], axis=1)
        slopes = gain * speed * info["_time"] * length
        good = jnp.isfinite(slopes) & ~info["diverging"]
        weights = jnp.where(good, rates, 0.0)
        total = jnp.sum(weights)
        slope = jnp.sum(weights * jnp.where(good, slopes, 0.0)) / jnp.where(total > 0, total, 1.0)
        return jnp.where(jnp.isfinite(slope), slope, 0.0)


def count_on(count: jax.Array) -> jax.Array:
    """The count of the next transition."""
    return count + 1
