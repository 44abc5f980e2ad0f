"""The inverse mass matrix, estimated along warm-up in growing windows that overlap."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import WelfordAlgorithmState, welford_algorithm
from blackjax.adaptation.metric_recipes import LowRankMetricCoreState, lookup_recipe
from blackjax.mcmc.metrics import LowRankInverseMassMatrix
from jax.flatten_util import ravel_pytree

METRICS = ("auto", "diagonal", "dense", "low_rank")
DENSE_SIZE = 32  # for 'auto': beyond, products with the matrix outweigh gradients of cheap energies
PAYING = 0.5  # squared correlations of an entry, from which 'auto' keeps them
MIN_DRAWS = 10  # of an estimate
ESTIMATE_EVERY = 4  # steps from one estimate to the next: of a small model, it costs some gradients
LARGEST_WEIGHT = 1 - 1e-5  # of correlations: keeps the estimate positive definite in 32 bits
MAX_RANK = 10
LOW_RANK_DRAWS = 256  # the most that it is estimated from
LOW_RANK_EVERY = 32  # steps from one estimate to the next


class Moments(eqx.Module):
    r"""Variances, and covariances if dense, of the draws of the last two windows.

    The foreground began one window before the background, so that the estimate never starts from
    nothing. Of n draws in d dimensions the correlations are kept with the weight
    $1 - (d/n)^2$, none below n = d: shrunk towards the diagonal, which few draws can tell.

    Where `selective`, they are kept only if they pay: if for some entry the squared correlations
    with all others sum to more than one half, taken as products of those of the two windows.
    Weaker ones buy little, and those of one arm of a banana, which the other arm does not have,
    make a metric that is worse than none.
    """

    inverse_mass_matrix: Any
    selective: bool = eqx.field(static=True)
    foreground: WelfordAlgorithmState
    background: WelfordAlgorithmState

    def update(self, state: Any) -> "Moments":
        """With one more draw."""
        draw, _ = ravel_pytree(state.position)
        update = welford_algorithm(self.inverse_mass_matrix.ndim == 1)[1]
        windows = update(self.foreground, draw), update(self.background, draw)
        return Moments(self.inverse_mass_matrix, self.selective, *windows)

    def advance(self, step: jax.Array, adapting: jax.Array, window_ends: jax.Array) -> "Moments":
        """With the estimate of now, while it adapts, and the next window where one ends."""
        often = (step % ESTIMATE_EVERY == 0) | window_ends
        enough = self.foreground.sample_size >= MIN_DRAWS
        estimate = jax.lax.cond(
            adapting & often & enough,
            lambda: self._estimate(),
            lambda: self.inverse_mass_matrix,
        )
        fresh = jax.tree.map(jnp.zeros_like, self.background)
        windows = jax.tree.map(
            lambda new, old: jnp.where(window_ends, new, old),
            (self.background, fresh),
            (self.foreground, self.background),
        )
        return Moments(estimate, self.selective, *windows)

    def _estimate(self) -> jax.Array:
        count = jnp.maximum(self.foreground.sample_size, 2)
        covariance = self.foreground.m2 / (count - 1)
        if covariance.ndim == 1:
            return _positive(covariance, self.inverse_mass_matrix)
        variance = _positive(jnp.diag(covariance), jnp.diag(self.inverse_mass_matrix))
        size = len(variance)
        weight = jnp.clip(1 - (size / count) ** 2, 0, LARGEST_WEIGHT)
        if self.selective:
            weight = jnp.where(self._pays(), weight, 0)
        return jnp.where(jnp.eye(size, dtype=bool), jnp.diag(variance), weight * covariance)

    def _pays(self) -> jax.Array:
        """Whether correlations are strong, and the same in both windows."""
        whole, new = self.foreground, self.background
        older = whole.sample_size - new.sample_size
        total = whole.sample_size * whole.mean - new.sample_size * new.mean
        gap = new.mean - total / jnp.maximum(older, 1)
        between = older * new.sample_size / jnp.maximum(whole.sample_size, 1)
        before = _correlations(whole.m2 - new.m2 - between * jnp.outer(gap, gap))
        since = jnp.where(4 * new.sample_size < older, before, _correlations(new.m2))
        both = jnp.where(jnp.eye(len(gap), dtype=bool), 0, before * since)
        return (older > 0) & (jnp.max(jnp.sum(both, axis=1)) > PAYING)


def _correlations(scatter: jax.Array) -> jax.Array:
    scale = jnp.sqrt(jnp.maximum(jnp.diag(scatter), jnp.finfo(scatter.dtype).tiny))
    return jnp.clip(scatter / jnp.outer(scale, scale), -1, 1)


def _positive(variance: jax.Array, before: jax.Array) -> jax.Array:
    """The variance; what it was before where nothing has moved."""
    return jnp.where((variance > 0) & jnp.isfinite(variance), variance, before)


class LowRank(eqx.Module):
    """A diagonal and a few directions, of the last draws and gradients: BlackJAX's estimate.

    It costs a singular value decomposition, so it is made now and then, of draws that mostly were
    in the one before: the step size is not tuned anew for it.
    """

    inverse_mass_matrix: LowRankInverseMassMatrix
    window: LowRankMetricCoreState

    def update(self, state: Any) -> "LowRank":
        window = _low_rank().update(self.window, state.position, state.logdensity_grad)
        return LowRank(self.inverse_mass_matrix, window)

    def advance(self, step: jax.Array, adapting: jax.Array, window_ends: jax.Array) -> "LowRank":
        often = adapting & ((step + 1) % LOW_RANK_EVERY == 0)
        estimate = jax.lax.cond(
            often & (self.window.buffer_idx >= LOW_RANK_EVERY),
            lambda: _low_rank().final(self.window).inverse_mass_matrix,
            lambda: self.inverse_mass_matrix,
        )
        count = jnp.where(window_ends, 0, self.window.buffer_idx)
        return LowRank(estimate, self.window._replace(buffer_idx=count))


def _low_rank() -> Any:
    return lookup_recipe("fisher_low_rank").build_core(buffer_size=LOW_RANK_DRAWS)


def metric_init(metric: str, size: int) -> Moments | LowRank:
    """Start of an estimate for so many entries; with NumPy's numbers, so nothing compiles."""
    if metric == "low_rank":
        start: Any = np.ones(size), np.zeros((size, MAX_RANK)), np.ones(MAX_RANK)
        unit, zeros = LowRankInverseMassMatrix(*start), np.zeros((LOW_RANK_DRAWS, size))
        window: Any = unit, np.zeros(size), zeros, zeros, 0, 0, 0
        return LowRank(unit, LowRankMetricCoreState(*window))
    dense = metric == "dense" or (metric == "auto" and size <= DENSE_SIZE)
    unit = np.eye(size) if dense else np.ones(size)
    start = np.zeros(size), np.zeros_like(unit), 0
    empty = WelfordAlgorithmState(*start)
    return Moments(unit, metric == "auto", empty, empty)


def metric_update(metric: Any, states: Any, moved: jax.Array) -> Any:
    """With the draws of all chains that moved; states have a leading axis over the chains."""

    def one(metric: Any, chain: Any) -> Any:
        state, moved = chain
        new = metric.update(state)
        return jax.tree.map(lambda new, old: jnp.where(moved, new, old), new, metric), None

    if len(moved) == 1:  # a loop of one step would still be compiled as a loop
        return one(metric, jax.tree.map(lambda leaf: leaf[0], (states, moved)))[0]
    return jax.lax.scan(one, metric, (states, moved))[0]
