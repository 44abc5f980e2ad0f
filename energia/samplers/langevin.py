"""Langevin dynamics: unadjusted, and Metropolis-adjusted."""

from typing import Any, NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_float, is_concrete, optional_float
from energia.energies._energy import Energy
from energia.energies._uniform import normal
from energia.samplers._adaptation import StepSizeTuned
from energia.samplers._blackjax import BlackJAXKernel
from energia.samplers._sampler import (
    Biased,
    GradientBased,
    Kernel,
    check_entries,
    positive,
    registry,
)

MAX_TILT = 15.0


class LangevinState(NamedTuple):
    """Position of an unadjusted chain. No gradient is kept: the energy may change between steps."""

    position: Values


def _pair(bounds: Any) -> tuple[jax.Array, jax.Array] | None:
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"Langevin(bounds=...) must be a pair, lowest and highest, got {bounds!r}")
    return as_float(bounds[0]), as_float(bounds[1])


@registry.register("langevin")
class Langevin(Kernel, GradientBased, Biased):
    r"""Unadjusted Langevin dynamics, $x' = x - \epsilon \nabla E(x) + \sqrt{2\epsilon}\,\xi$.

    Biased: with no Metropolis step the chain's law differs from $e^{-E}$ by order $\epsilon$ (on a
    Gaussian of precision $\lambda$ its variance is $1 / \lambda(1 - \epsilon\lambda/2)$); `'mala'`
    is exact. With `noise_scale` or `clip` it is the cold, short-run kernel of deep energy models,
    whose draws do not follow $e^{-E}$ at any step size: noise $s$ in place of $\sqrt{2\epsilon}$
    samples about the temperature $s^2 / 2\epsilon$.

    Args:
        step_size: $\epsilon$, positive. (Texts that write $x - \tfrac{\epsilon}{2} \nabla E$ have
            twice this number.)
        noise_scale: standard deviation of the noise, at least 0; None: $\sqrt{2\epsilon}$.
        clip: bound on the absolute value of each entry of $\nabla E$, positive; None: no bound.
        bounds: $(l, h)$, numbers or arrays: each step is projected on $l \le x \le h$, as samples
            of images are clipped to the range of pixels. The chain's law tends to $e^{-E}$ within
            the bounds, with an error of order $\sqrt\epsilon$ near them. Of variables whose
            support is bounded, these are bounds in unconstrained coordinates. None: no bounds.

    References:
        Roberts and Tweedie (1996), Exponential convergence of Langevin distributions. Nijkamp et
        al. (2019), Learning non-convergent short-run MCMC. Du and Mordatch (2019), Implicit
        generation and modeling with energy-based models. Bubeck, Eldan and Lehec (2018), Sampling
        from a log-concave distribution with projected Langevin Monte Carlo.

    Example:
        >>> import energia as en
        >>> print(en.samplers.Langevin(step_size=0.01).bias())
        no Metropolis step: biased by order step_size
    """

    step_size: jax.Array = eqx.field(default=0.01, converter=as_float, kw_only=True)
    noise_scale: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    clip: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    bounds: tuple[jax.Array, jax.Array] | None = eqx.field(
        default=None, converter=_pair, kw_only=True
    )

    def __check_init__(self):
        positive(self, "step_size", "clip")
        if self.bounds is not None and all(map(is_concrete, self.bounds)):
            low, high = map(np.asarray, self.bounds)
            if not np.all(low < high):
                raise ValueError(f"Langevin(bounds=...) needs low < high, got {low} and {high}")
        scale = self.noise_scale
        if scale is not None and is_concrete(scale) and not np.all(np.asarray(scale) >= 0):
            raise ValueError(f"Langevin(noise_scale=...) must be at least 0, got {scale}")

    def init(self, energy: Energy, position: Values, key: jax.Array) -> LangevinState:
        return LangevinState(position)

    def step(
        self, energy: Energy, state: LangevinState, key: jax.Array
    ) -> tuple[LangevinState, dict[str, jax.Array]]:
        gradient = jax.grad(energy.at)(state.position)
        names = sorted(gradient)
        keys = [key] if len(names) == 1 else list(jax.random.split(key, len(names)))
        noise_scale = self.noise_scale
        if noise_scale is None:
            noise_scale = jnp.sqrt(2 * self.step_size)
        new = {}
        for name, subkey in zip(names, keys, strict=True):
            x, slope = state.position[name], gradient[name]
            if self.clip is not None:
                slope = jnp.clip(slope, -self.clip, self.clip)
            noise = normal(subkey, x.shape, x.dtype)
            moved = x - self.step_size * slope + noise_scale * noise
            if self.bounds is not None:
                moved = jnp.clip(moved, *self.bounds)
            new[name] = moved.astype(x.dtype)
        return LangevinState(new), {}

    def bias(self) -> str | None:
        if self.noise_scale is not None or self.clip is not None:
            return "noise_scale or clip is set: short-run dynamics that do not sample exp(-E)"
        return "no Metropolis step: biased by order step_size"


@registry.register("mala")
class MALA(BlackJAXKernel, StepSizeTuned, GradientBased):
    r"""The Metropolis-adjusted Langevin algorithm: exact.

    Proposes $x - \epsilon \nabla E(x) + \sqrt{2\epsilon}\,\xi$ and accepts by Metropolis and
    Hastings. Warm-up tunes the step size to the target acceptance rate by dual averaging.

    Args:
        step_size: $\epsilon$, positive; None: tuned.
        target_acceptance_rate: in (0, 1); 0.574 is optimal in high dimension.

    References:
        Roberts and Tweedie (1996), Exponential convergence of Langevin distributions. Roberts and
        Rosenthal (1998), Optimal scaling of discrete approximations to Langevin diffusions.

    Example:
        >>> import energia as en
        >>> en.samplers.MALA().unset()
        ('step_size',)
    """

    tunable = ("step_size",)

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    target_acceptance_rate: jax.Array = eqx.field(default=0.574, converter=as_float, kw_only=True)

    def __check_init__(self):
        positive(self, "step_size")

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.mala(log_density, self.step_size)  # pyright: ignore[reportArgumentType]

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "acceptance_rate": info.acceptance_rate,
            "step_size": jnp.asarray(self.step_size),
        }


@registry.register("barker")
class Barker(BlackJAXKernel, StepSizeTuned, GradientBased):
    r"""The Barker proposal: a random walk that the gradient tilts, exact and robust.

    Draws $z \sim N(0, \epsilon^2)$ for each entry and moves by $+z$ with the probability
    $1 / (1 + e^{z\,\partial E(x)})$, else by $-z$, in the coordinates of the metric, and accepts by
    Metropolis and Hastings. A gradient can turn a move round but not lengthen it, so that a step
    size far from right, a start in the tails or scales that differ cost much less than they cost
    `'mala'`.

    Warm-up tunes the step size to the target acceptance rate (dual averaging) and a diagonal
    inverse mass matrix to the variances (Stan's doubling windows).

    Args:
        step_size: $\epsilon$, positive; None: tuned.
        inverse_mass_matrix: shape (n,), over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        target_acceptance_rate: in (0, 1); 0.4 is about optimal in high dimension.

    References:
        Livingstone and Zanella (2022), The Barker proposal: combining robustness and efficiency in
        gradient-based MCMC. Vogrinc, Livingstone and Zanella (2023), Optimal design of the Barker
        proposal and other locally balanced Metropolis-Hastings algorithms.

    Example:
        >>> import energia as en
        >>> en.samplers.Barker(step_size=0.5).unset()
        ('inverse_mass_matrix',)
    """

    tunable = ("step_size", "inverse_mass_matrix")

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    inverse_mass_matrix: jax.Array | None = eqx.field(
        default=None, converter=optional_float, kw_only=True
    )
    target_acceptance_rate: jax.Array = eqx.field(default=0.4, converter=as_float, kw_only=True)

    def __check_init__(self):
        positive(self, "step_size", "inverse_mass_matrix")

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        check_entries(self, "inverse_mass_matrix", position)
        return super().init(energy, position, key)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        variances: Any = self.inverse_mass_matrix
        scale = jnp.asarray(self.step_size) * jnp.sqrt(variances)
        log_density = _clipped(log_density, MAX_TILT / scale)
        # BlackJAX multiplies a move by the root of the mass matrix, where Livingstone and Zanella
        # (appendix G) have the root of a covariance: its inverse is what it takes for one
        return blackjax.barker(log_density, self.step_size, 1 / variances)  # pyright: ignore

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "acceptance_rate": jnp.nan_to_num(info.acceptance_rate),  # NaN is refused
            "step_size": jnp.asarray(self.step_size),
        }


def _clipped(log_density: Any, bound: jax.Array) -> Any:
    """The same values, with a gradient whose entries are clipped to a bound.

    BlackJAX's logistic function overflows, and rejects, where a gradient times a move exceeds 88:
    in the tails, where the proposal should be at its best. Any function of the point may stand for
    the gradient in this proposal, and 15 standard moves tilt it all the way.
    """

    def value(position: Any) -> jax.Array:
        fixed = jax.lax.stop_gradient(position)
        density, slopes = jax.value_and_grad(log_density)(fixed)
        flat, unravel = ravel_pytree(slopes)
        slopes = unravel(jnp.clip(flat, -bound, bound))
        moves = jax.tree.map(lambda s, x, y: jnp.sum(s * (x - y)), slopes, position, fixed)
        return density + sum(jax.tree.leaves(moves))

    return value
