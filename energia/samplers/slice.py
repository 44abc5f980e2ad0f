"""Slice sampling: no gradient, no step size that could be wrong."""

from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from blackjax.mcmc.elliptical_slice import EllipSliceState
from blackjax.mcmc.slice import stepping_out
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_array, is_concrete, optional_float, strong_tree
from energia.energies._energy import Energy
from energia.samplers._blackjax import BlackJAXKernel
from energia.samplers._moments import Moments, Recent, flat, recent_mean, recent_moments
from energia.samplers._sampler import (
    AllChains,
    Kernel,
    Starts,
    VariableLength,
    check_entries,
    positive,
    registry,
)

DENSE = 256  # entries up to which a covariance is tuned as a matrix
JUMPS = 3.0  # a uniform point of an interval is a third of its length away from another, on average


@registry.register("slice")
class Slice(BlackJAXKernel, VariableLength):
    r"""Slice sampling, one coordinate after another in random order: exact.

    Along each coordinate a level $u\,e^{-E(x)}$ is drawn, an interval is stepped out around the
    point until it covers the slice $\{e^{-E} > u\,e^{-E(x)}\}$, and points are drawn in it until
    one lies in the slice. Needs no gradient, takes any density that can be evaluated, and adapts to
    its scale at each place: a width that is wrong costs time, nothing else. A step is a sweep over
    all coordinates, at about five energies each; where coordinates are strongly correlated it mixes
    as slowly as Gibbs sampling.

    Warm-up tunes the width of each coordinate to three times its mean jump, which is the length of
    its slice, were it an interval.

    Args:
        width: of the first interval, positive, in unconstrained space: one number, or one for each
            of the n entries over the variables sorted by name and flattened; None: tuned.
        max_expansions: an interval is at most this many widths long, at least 1.

    References:
        Neal (2003), Slice sampling.

    Example:
        >>> import energia as en, jax
        >>> draws = en.sample(en.Funnel(3), "slice", key=jax.random.key(0), num_warmup=200)
        >>> draws.tuned_sampler.width.shape
        (4, 3)
    """

    tunable = ("width",)

    width: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    max_expansions: jax.Array = eqx.field(default=10, converter=as_array, kw_only=True)

    def __check_init__(self):
        positive(self, "width")
        most = self.max_expansions
        if is_concrete(most) and not (np.issubdtype(most.dtype, np.integer) and np.all(most >= 1)):
            raise ValueError(
                f"Slice(max_expansions=...) must be an integer of at least 1, got {most}"
            )

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        if self.width is not None and self.width.ndim:
            check_entries(self, "width", position)
        return super().init(energy, position, key)

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        new, info = super().step(energy, state, key)
        jumps = ravel_pytree(new.position)[0] - ravel_pytree(state.position)[0]
        return new, {**info, "_jumps": jnp.abs(jumps)}

    def tune_init(
        self, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple["Slice", Recent | None]:
        if not self.unset():
            return self, None
        size = sum(int(np.prod(leaf.shape[1:])) for leaf in positions.values())
        tuning = strong_tree(Recent.start(np.ones(size)))
        return self.replace(width=tuning.value), tuning

    def tune(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["Slice", Any]:
        if tuning is None:
            return self, None
        tuning = recent_mean(tuning, JUMPS * jnp.mean(info["_jumps"], axis=0), step)
        return self.replace(width=tuning.value), tuning

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.coordinate_slice(
            log_density,
            initial_widths=self.width,  # pyright: ignore[reportArgumentType]
            max_expansions=self.max_expansions,  # pyright: ignore[reportArgumentType]
            interval=stepping_out,
        )

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {}


class Tuning(eqx.Module):
    """State of warm-up."""

    moments: Recent
    fills: tuple[str, ...] = eqx.field(static=True)


@registry.register("elliptical_slice")
class EllipticalSlice(Kernel, AllChains):
    r"""Elliptical slice sampling with any Gaussian reference: exact, with nothing to reject.

    For a Gaussian $N(m, C)$ the density is written $e^{-E(x)} = N(x; m, C)\,L(x)$, and the next
    point is drawn on the ellipse through $x - m$ and a draw of $N(0, C)$, where $L$ exceeds a level
    drawn below $L(x)$. Any $m$ and $C$ leave $e^{-E}$ invariant; the nearer the reference is to the
    target, the less is shrunk. Needs no gradient.

    Warm-up tunes mean and covariance to those of all chains together: a full matrix for up to 256
    entries, its diagonal above. Give them where they are known, as for the Gaussian prior of a
    latent Gaussian model, in unconstrained space.

    Where the target's tails are heavier than Gaussian, $L$ grows without bound along them: still
    exact, but a chain that has gone far out stays there for long, and is seldom seen to go there. A
    `covariance` larger than the target's makes this rarer; `'slice'` does not suffer from it.

    Args:
        mean: shape (n,), or one number for all, over the variables sorted by name and flattened, in
            unconstrained space; None: tuned.
        covariance: shape (n, n), or (n,) for a diagonal one; positive definite; None: tuned.

    References:
        Murray, Adams and MacKay (2010), Elliptical slice sampling. Nishihara, Murray and Adams
        (2014), Parallel MCMC with generalized elliptical slice sampling. Fagan, Bhandari and
        Cunningham (2016), Elliptical slice sampling with expectation propagation.

    Example:
        >>> import energia as en
        >>> en.samplers.EllipticalSlice(mean=0.0).unset()
        ('covariance',)
    """

    tunable = ("mean", "covariance")

    mean: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    covariance: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)

    def __check_init__(self):
        covariance, mean = self.covariance, self.mean
        if mean is not None and is_concrete(mean) and not np.isfinite(np.asarray(mean)).all():
            raise ValueError(f"EllipticalSlice(mean=...) must be finite, got {mean}")
        if covariance is None or not is_concrete(covariance):
            return
        if covariance.ndim == 1:
            positive(self, "covariance")
        elif covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]:
            matrix = np.asarray(covariance, np.float64)
            if not np.isfinite(matrix).all() or not np.linalg.eigvalsh(matrix).min() > 0:
                raise ValueError("EllipticalSlice(covariance=...) must be positive definite")

    def init(self, energy: Energy, position: Values, key: jax.Array) -> EllipSliceState:
        self.check_set()
        size = sum(leaf.size for leaf in position.values())
        assert self.mean is not None
        assert self.covariance is not None
        shapes = {"mean": ((), (size,)), "covariance": ((size,), (size, size))}
        for name, allowed in shapes.items():
            if (shape := getattr(self, name).shape) not in allowed:
                raise ValueError(
                    f"EllipticalSlice({name}=...) must have shape "
                    f"{' or '.join(map(str, allowed))}, for the {size} entries of "
                    f"{sorted(position)} in unconstrained space; got {shape}"
                )
        return EllipSliceState(position, -energy.at(position))

    def step(
        self, energy: Energy, state: EllipSliceState, key: jax.Array
    ) -> tuple[EllipSliceState, dict[str, jax.Array]]:
        mean: Any = self.mean
        covariance: Any = self.covariance
        x, unravel = ravel_pytree(state.position)
        if covariance.ndim == 2:
            root = jnp.linalg.cholesky(covariance)
            here = jax.scipy.linalg.solve_triangular(root, x - mean, lower=True)
        else:
            root = jnp.sqrt(covariance)
            here = (x - mean) / root

        def place(z: jax.Array) -> Values:
            return unravel(mean + (root @ z if root.ndim == 2 else root * z))

        # Likelihoods are told relative to the chain's own, and a point that rounding cannot tell
        # from it has exactly that one: else, where log L is so large that it is rounded by more
        # than the level lies below it, the bracket shrinks to the point and never ends.
        density: Any = state.logdensity
        own = density + jnp.sum(here**2) / 2
        close = 8 * jnp.finfo(x.dtype).eps * (1 + jnp.abs(here))

        def log_likelihood(z: jax.Array) -> jax.Array:
            value = jnp.sum(z**2) / 2 - energy.at(place(z)) - own
            value = jnp.where(jnp.isnan(value), -jnp.inf, value)
            return jnp.where(jnp.all(jnp.abs(z - here) <= close), 0.0, value)

        zero, one = jnp.zeros_like(x), jnp.ones_like(x)
        algorithm = blackjax.elliptical_slice(log_likelihood, mean=zero, cov=one)
        start = EllipSliceState(here, jnp.zeros((), x.dtype))
        (there, relative), _ = algorithm.step(key, start)
        log_density = (relative + own - jnp.sum(there**2) / 2).astype(density.dtype)
        new = EllipSliceState(place(there), log_density)
        return new, {"lp": log_density}

    def tune_init(
        self, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple["EllipticalSlice", Tuning | None]:
        if not (fills := self.unset()):
            return self, None
        size = sum(int(np.prod(leaf.shape[1:])) for leaf in positions.values())
        moments = strong_tree(Moments.start(positions, dense=size <= DENSE))
        filled = {name: getattr(moments.value, name) for name in fills}
        return self.replace(**filled), Tuning(moments, fills)

    def tune(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["EllipticalSlice", Any]:
        if tuning is None:
            return self, None
        rows = flat(states.position)
        moments = recent_moments(tuning.moments, rows, step)
        covariance = moments.value.covariance
        if covariance.ndim == 2:  # positive definite too where there are fewer draws than entries
            chains, size = rows.shape
            share = 1 / (1 + (chains * (step + 1.0) / (2 * size)) ** 2)
            covariance += share * (jnp.diag(jnp.diag(covariance)) - covariance)
        filled = {"mean": moments.value.mean, "covariance": covariance}
        kernel = self.replace(**{name: filled[name] for name in tuning.fills})
        return kernel, Tuning(moments, tuning.fills)
