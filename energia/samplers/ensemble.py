"""Hamiltonian samplers that are tuned on all chains together: ChEES-HMC and MEADS."""

from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_array, as_float, is_concrete, optional_float, strong_tree
from energia.energies._energy import Energy
from energia.samplers._blackjax import BlackJAXKernel
from energia.samplers._moments import Moments, Recent, flat, recent_mean, recent_moments
from energia.samplers._sampler import (
    AllChains,
    GradientBased,
    Starts,
    check_entries,
    positive,
    registry,
)
from energia.samplers._trajectory import Jittered, count_on


@registry.register("chees_hmc")
class ChEESHMC(Jittered):
    r"""Hamiltonian Monte Carlo whose trajectory length all chains choose together: exact.

    Transition $i$ makes $\lceil h_i L / \epsilon \rceil$ leapfrog steps, with $h_i$ a Halton
    sequence over (0, 1): lengths that vary avoid resonance, and are the same for all chains, so
    that none waits for another. Meant for many short chains side by side, on an accelerator most of
    all; it runs with any number of chains.

    Warm-up tunes, on all chains together, the step size $\epsilon$ to the target acceptance rate
    (dual averaging on the harmonic mean over chains), a diagonal inverse mass matrix to the
    variances, and $L$ by ascent (Adam) on the change in the estimator of the expected square,
    $\tfrac14 \mathbb E (\|x' - m\|^2 - \|x - m\|^2)^2$ in the metric, with $m$ the running mean.

    Args:
        step_size: $\epsilon$ of the leapfrog integrator, positive; None: tuned.
        trajectory_length: $L$, the longest trajectory, positive; None: tuned.
        inverse_mass_matrix: shape (n,), over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        target_acceptance_rate: in (0, 1).
        max_steps: a trajectory has at most this many steps, at least 1.

    References:
        Hoffman, Radul and Sountsov (2021), An adaptive-MCMC scheme for setting trajectory lengths
        in Hamiltonian Monte Carlo. Sountsov and Hoffman (2021), Focusing on difficult directions
        for learning HMC trajectory lengths (running means).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> normal = en.Gaussian(jnp.zeros(5))
        >>> draws = en.sample(normal, "chees_hmc", key=jax.random.key(0), num_chains=16)
        >>> draws.tuned_sampler.trajectory_length.shape
        ()
    """

    target_acceptance_rate: jax.Array = eqx.field(default=0.651, converter=as_float, kw_only=True)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.dynamic_hmc(
            log_density,
            self.step_size,
            self.inverse_mass_matrix,
            next_random_arg_fn=count_on,
            integration_steps_fn=self._num_steps,
        )

    def _first_scales(self, size: int) -> tuple[float, float]:
        return 1.0, 1.0

    def _velocity(self, proposal: Any) -> jax.Array:
        # BlackJAX hands out the end of a trajectory with its momentum flipped
        momentum = ravel_pytree(proposal.momentum)[0]
        return -momentum * jnp.sqrt(jnp.asarray(self.inverse_mass_matrix))

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {**super()._info(state, info), "energy": info.energy}


class Tuning(eqx.Module):
    """State of warm-up: moments, and averages that give the largest eigenvalues."""

    moments: Recent
    spectra: Recent  # logarithms of the largest eigenvalues of gradients and positions
    fills: tuple[str, ...] = eqx.field(static=True)


MIN_CHAINS = 4


@registry.register("meads")
class MEADS(BlackJAXKernel, GradientBased, AllChains):
    r"""Generalised Hamiltonian Monte Carlo, tuned by largest eigenvalues over all chains: exact.

    Each step is one leapfrog step, one gradient: the momentum is kept up to a share $\alpha$ of
    fresh noise, and accepted by a slice variable that moves by $\delta$ a step, so that rejections,
    which turn the momentum back, come seldom and together.

    Warm-up sets, from all chains together and with running averages over its steps: the scale of
    each entry, $\sigma$, to its standard deviation; the step size
    $\epsilon = \min(1, \tfrac12 \lambda_{\max}^{-1/2})$ by the largest eigenvalue of the second
    moment of $\sigma \nabla E$; and the damping
    $\gamma = \max(\lambda_{\max}^{-1/2}, 1 / t \epsilon)$ by that of the centred $x / \sigma$, with
    $\alpha = 1 - e^{-2 \epsilon \gamma}$ and $\delta = \alpha / 2$. Nothing asks for an acceptance
    rate: look at `acceptance_rate`, which should be above 0.9.

    The published scheme takes its numbers from one fold of chains at one step, needs many chains
    for them, and keeps momenta while scales change under them. Here momenta are kept in units of
    the scale, and the averages run over time too; once warm-up is over the numbers are frozen, and
    the kernel is exact for any number of chains. The eigenvalues take at least 4 chains, better 16.
    A step is one gradient, so that warm-up wants several thousands of them, and draws a `thin`.

    Args:
        step_size: $\epsilon$, positive, in units of the scale; None: tuned.
        scale: $\sigma$, positive, shape (n,), over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        alpha: share of the momentum's variance that is fresh each step, in (0, 1]; None: tuned.
        delta: how far the slice variable moves a step, in (0, 1); None: tuned.

    Raises:
        ValueError: where it is to be tuned on fewer than 4 chains.

    References:
        Hoffman and Sountsov (2022), Tuning-free generalized Hamiltonian Monte Carlo. Neal (2020),
        Non-reversibly updating a uniform [0, 1] value for Metropolis accept/reject decisions.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> normal = en.Gaussian(jnp.zeros(5))
        >>> draws = en.sample(normal, "meads", key=jax.random.key(0), num_chains=16, thin=4)
        >>> draws.tuned_sampler.scale.shape
        (5,)
    """

    tunable = ("step_size", "scale", "alpha", "delta")

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    scale: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    alpha: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    delta: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)

    def __check_init__(self):
        positive(self, *self.tunable)
        for name in ("alpha", "delta"):
            value = getattr(self, name)
            if value is not None and is_concrete(value) and not np.all(np.asarray(value) <= 1):
                raise ValueError(f"MEADS({name}=...) must lie in (0, 1], got {value}")

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        check_entries(self, "scale", position)
        return super().init(energy, position, key)

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        fresh = self.init(energy, position, key)
        return fresh._replace(momentum=state.momentum, slice=state.slice)

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        # kept in units of the scale, so that tuning the scale does not change kinetic energies
        scale: Any = self.scale
        momentum, unravel = ravel_pytree(state.momentum)
        state = state._replace(momentum=unravel(momentum / scale))
        new, info = super().step(energy, state, key)
        momentum = ravel_pytree(new.momentum)[0] * scale
        return new._replace(momentum=unravel(momentum)), info

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        numbers: Any = (self.step_size, self.scale, self.alpha, self.delta)
        return blackjax.ghmc(log_density, *numbers)

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "step_size": jnp.asarray(self.step_size),
        }

    def tune_init(
        self, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple["MEADS", Tuning | None]:
        if not self.unset():
            return self, None
        num_chains = len(next(iter(positions.values())))
        if num_chains < MIN_CHAINS:
            numbers = ", ".join(f"{name}=" for name in self.unset())
            raise ValueError(
                "MEADS is tuned by eigenvalues that pairs of chains tell, got "
                f"num_chains={num_chains}: give {MIN_CHAINS} or more (16 are better), or its "
                f"numbers ({numbers}), or use 'nuts' or 'chees_hmc'"
            )
        moments = Moments.start(positions)
        filled = {
            "step_size": 0.01,
            "scale": np.sqrt(moments.value.covariance),
            "alpha": 1.0,
            "delta": 0.5,
        }
        spectra = Recent.start(np.zeros(2, moments.value.mean.dtype))
        state = jax.tree.map(as_array, (moments, spectra))
        tuning = Tuning(*state, fills=self.unset())
        return strong_tree(self.replace(**{n: filled[n] for n in tuning.fills})), tuning

    def tune(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["MEADS", Any]:
        if tuning is None:
            return self, None
        rows = flat(states.position)
        moments = recent_moments(tuning.moments, rows, step)
        scale = jnp.sqrt(moments.value.covariance)
        seen = (flat(states.logdensity_grad) * scale, (rows - moments.value.mean) / scale)
        spectra = recent_mean(tuning.spectra, jnp.log(jnp.stack([_largest(x) for x in seen])), step)
        steepest, widest = jnp.exp(spectra.value)
        step_size = jnp.minimum(0.5 / jnp.sqrt(steepest), 1.0)
        damping = jnp.maximum(1 / jnp.sqrt(widest), 1 / ((step + 1) * step_size))
        alpha = 1 - jnp.exp(-2 * step_size * damping)
        filled = {"step_size": step_size, "scale": scale, "alpha": alpha, "delta": alpha / 2}
        tuning = Tuning(moments, spectra, tuning.fills)
        return self.replace(**{name: filled[name] for name in tuning.fills}), tuning


def _largest(rows: jax.Array) -> jax.Array:
    """Hoffman and Sountsov's estimate of the largest eigenvalue of the rows' second moment.

    The trace of its square over its trace, both without bias.
    """
    products = rows @ rows.T
    norms, count = jnp.diag(products), len(rows)
    others = jnp.sum(products**2) - jnp.sum(norms**2)
    return others / (count * (count - 1)) / jnp.mean(norms)
