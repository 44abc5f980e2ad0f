"""Microcanonical Langevin and Hamiltonian Monte Carlo."""

from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_array, as_float, optional_float, strong_tree
from energia.energies._energy import Energy
from energia.samplers._blackjax import BlackJAXKernel
from energia.samplers._moments import Moments, Recent, flat, recent_moments
from energia.samplers._sampler import (
    AllChains,
    Biased,
    GradientBased,
    Kernel,
    Starts,
    check_entries,
    positive,
    registry,
)
from energia.samplers._trajectory import Jittered, count_on

DECOHERENCE = 4.0
EFFECTIVE_SAMPLES = 50
TRUST = 1.5
SHRINK = 0.8


class Tuning(eqx.Module):
    """State of warm-up."""

    moments: Recent
    weight: Any
    error: (
        Any  # weighted mean of the energy error's square over its wanted value, at this step size
    )
    largest: Any
    fills: tuple[str, ...] = eqx.field(static=True)


def check_turning(kernel: Kernel, position: Values) -> None:
    """Raise in fewer than two dimensions."""
    if sum(leaf.size for leaf in position.values()) < 2:
        raise ValueError(
            f"{type(kernel).__name__} turns a vector of unit length, and {sorted(position)} has "
            "one entry alone: use 'nuts' or 'slice'"
        )


@registry.register("mclmc")
class MCLMC(BlackJAXKernel, GradientBased, Biased, AllChains):
    r"""Microcanonical Langevin Monte Carlo: unadjusted, and fast in many dimensions.

    The velocity $u$ has unit length and turns along the gradient,
    $\dot x = u$, $\dot u = -(1 - u u^\top) \nabla E(x) / (n - 1)$, with noise that turns it by
    about a right angle over the distance $L$. Each step is one of the minimal-norm integrator, two
    gradients, with no Metropolis step.

    Biased: the discretised chain's law differs from $e^{-E}$ by an amount that grows with the step
    size and shows in the energy error of a step. Warm-up tunes the step size so that the error's
    variance is `desired_energy_variance` an entry, at which the bias of variances is below a few
    per cent on typical targets; `'adjusted_mclmc'` is exact.

    Tuned on all chains together: the step size by the scaling $\mathrm{Var}\,\Delta E \propto
    \epsilon^6$, a diagonal inverse mass matrix to the variances, and $L = 4 \sqrt n$, four times
    the radius of the typical set in the metric: on well scaled targets any $L$ above the radius
    does as well, on correlated ones less is much slower.

    Args:
        L: decoherence length of the velocity, positive; None: tuned.
        step_size: positive; None: tuned.
        inverse_mass_matrix: shape (n,), over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        desired_energy_variance: positive; less is less biased, and slower.

    Raises:
        ValueError: at `init`, in fewer than two dimensions, where a unit vector cannot turn.

    References:
        Robnik, De Luca, Silverstein and Seljak (2023), Microcanonical Hamiltonian Monte Carlo.
        Robnik and Seljak (2024), Fluctuation without dissipation: microcanonical Langevin Monte
        Carlo.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> draws = en.sample(en.Gaussian(jnp.zeros(100)), "mclmc", key=jax.random.key(0))
        >>> print(en.samplers.MCLMC().bias())
        no Metropolis step: biased by its step size
    """

    tunable = ("L", "step_size", "inverse_mass_matrix")

    L: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    inverse_mass_matrix: jax.Array | None = eqx.field(
        default=None, converter=optional_float, kw_only=True
    )
    desired_energy_variance: jax.Array = eqx.field(default=5e-4, converter=as_float, kw_only=True)

    def __check_init__(self):
        positive(self, *self.tunable, "desired_energy_variance")

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        check_turning(self, position)
        check_entries(self, "inverse_mass_matrix", position)
        return super().init(energy, position, key)

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        return self.init(energy, position, key)._replace(momentum=state.momentum)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.mclmc(
            log_density, self.L, self.step_size, inverse_mass_matrix=self.inverse_mass_matrix
        )

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "diverging": ~jnp.asarray(info.nonans),
            "energy_error": info.energy_change,
            "step_size": jnp.asarray(self.step_size),
        }

    def bias(self) -> str | None:
        return "no Metropolis step: biased by its step size"

    def tune_init(
        self, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple["MCLMC", Tuning | None]:
        if not self.unset():
            return self, None
        moments = Moments.start(positions)
        width = np.sqrt(moments.value.mean.size)  # of the typical set, in the metric
        filled = {
            "L": DECOHERENCE * width,
            "step_size": width / 4,
            "inverse_mass_matrix": moments.value.covariance,
        }
        state = jax.tree.map(as_array, (moments, 0.0, 0.0, np.inf))
        tuning = Tuning(*state, fills=self.unset())
        return strong_tree(self.replace(**{n: filled[n] for n in tuning.fills})), tuning

    def tune(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["MCLMC", Any]:
        if tuning is None:
            return self, None
        rows = flat(states.position)
        old: Any = self.step_size
        excess = info["energy_error"] ** 2 / (rows.shape[1] * self.desired_energy_variance) + 1e-8
        trust = jnp.exp(-0.5 * (jnp.log(excess) / (6 * TRUST)) ** 2)
        memory = max(EFFECTIVE_SAMPLES / len(rows), 2)  # in steps
        keep = (memory - 1) / (memory + 1)
        weight = keep * tuning.weight + jnp.mean(trust)
        error = keep * tuning.error + jnp.mean(trust * excess)
        failed = jnp.any(info["diverging"])
        largest = jnp.where(failed, SHRINK * old, tuning.largest)
        new = jnp.minimum(old * (error / weight) ** (-1 / 6), largest)
        moments = recent_moments(tuning.moments, rows, step)
        filled = {
            "L": self.L,
            "step_size": new,
            "inverse_mass_matrix": moments.value.covariance,
        }
        tuning = Tuning(moments, weight, error * (new / old) ** 6, largest, tuning.fills)
        return self.replace(**{name: filled[name] for name in tuning.fills}), tuning


@registry.register("adjusted_mclmc")
class AdjustedMCLMC(Jittered):
    r"""Microcanonical Hamiltonian Monte Carlo with a Metropolis step: exact.

    Transitions draw a direction $u$ of unit length, follow the dynamics of `'mclmc'` without noise
    for $\lceil h_i L / \epsilon \rceil$ steps of two gradients, with $h_i$ a Halton sequence over
    (0, 1) (with one length for all, trajectories may come back to where they began), and accept by
    the energy error.

    Tuned on all chains together as `'chees_hmc'` is: $\epsilon$ by dual averaging, a diagonal
    inverse mass matrix to the variances, and $L$ by the ChEES criterion.

    Args:
        step_size: $\epsilon$, positive; None: tuned.
        trajectory_length: $L$, the longest trajectory, positive; None: tuned.
        inverse_mass_matrix: shape (n,), over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        target_acceptance_rate: in (0, 1).
        max_steps: a trajectory has at most this many steps, at least 1.

    Raises:
        ValueError: at `init`, in fewer than two dimensions, where a unit vector cannot turn.

    References:
        Robnik, Cohn-Gordon and Seljak (2025), Metropolis adjusted microcanonical Hamiltonian Monte
        Carlo. Hoffman, Radul and Sountsov (2021), An adaptive-MCMC scheme for setting trajectory
        lengths in Hamiltonian Monte Carlo.

    Example:
        >>> import energia as en
        >>> en.samplers.AdjustedMCLMC(step_size=0.5).unset()
        ('trajectory_length', 'inverse_mass_matrix')
    """

    target_acceptance_rate: jax.Array = eqx.field(default=0.65, converter=as_float, kw_only=True)

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        check_turning(self, position)
        return super().init(energy, position, key)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.adjusted_mclmc_dynamic(
            log_density,
            self.step_size,  # pyright: ignore[reportArgumentType]
            inverse_mass_matrix=self.inverse_mass_matrix,
            next_random_arg_fn=count_on,
            integration_steps_fn=self._num_steps,
        )

    def _first_scales(self, size: int) -> tuple[float, float]:
        return np.sqrt(size) / 4, np.sqrt(size)

    def _velocity(self, proposal: Any) -> jax.Array:
        return ravel_pytree(proposal.momentum)[0]
