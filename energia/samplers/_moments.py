"""Averages over the recent part of a warm-up: means and covariances of chains, and others."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.samplers._sampler import Starts

PRIOR = 4.0  # steps that what an average begins with counts for
FIRST = 8  # the first step at which an average forgets


def flat(values: Values) -> jax.Array:
    """A dict of arrays with a leading axis over chains as one matrix (chain, entry), names sorted.

    The order of entries is that of `jax.flatten_util.ravel_pytree` on one chain.
    """
    rows = [values[name].reshape(len(values[name]), -1) for name in sorted(values)]
    return jnp.concatenate(rows, axis=1)


class Recent(eqx.Module):
    """An average over about the last half of a run, which forgets its start altogether.

    A second average begins anew at every power of two, from the first one with the weight of a few
    steps, and takes the first one's place at the next: no window, and no length of warm-up, has to
    be known. Weights that decay instead would keep too much of a start that is a thousand standard
    deviations off.
    """

    value: Any
    _next: Any
    _steps: Any
    _next_steps: Any

    @staticmethod
    def start(value: Any) -> "Recent":
        """With what to begin with, for NumPy's arrays: nothing compiles."""
        steps = np.asarray(PRIOR, np.float32)
        return Recent(value, value, steps, steps)

    def update(self, merge: Callable[[Any, jax.Array], Any], step: jax.Array) -> "Recent":
        """After a step: `merge(average, weight)` is the average with what is new in that weight."""
        value = merge(self.value, 1 / (self._steps + 1))
        following = merge(self._next, 1 / (self._next_steps + 1))
        turn = (step + 1 >= FIRST) & ((step + 1) & step == 0)
        turned = Recent(
            following, following, self._next_steps + 1, jnp.full_like(self._steps, PRIOR)
        )
        same = Recent(value, following, self._steps + 1, self._next_steps + 1)
        return jax.tree.map(lambda new, old: jnp.where(turn, new, old), turned, same)


class Moments(eqx.Module):
    """Mean and covariance of positions; the covariance is a matrix, or its diagonal."""

    mean: jax.Array | np.ndarray
    covariance: jax.Array | np.ndarray

    @staticmethod
    def start(positions: Starts, dense: bool = False) -> Recent:
        """Before the first step: the mean of the starts, and unit variances."""
        rows = [
            np.reshape(positions[name], (len(positions[name]), -1)) for name in sorted(positions)
        ]
        mean = np.mean(np.concatenate(rows, axis=1), axis=0)
        ones = np.ones_like(mean)
        return Recent.start(Moments(mean, np.diag(ones) if dense else ones))

    def merge(self, rows: jax.Array, weight: jax.Array) -> "Moments":
        """With positions (chain, entry) in a weight. Where they are not finite it stays."""
        weight = jnp.where(jnp.all(jnp.isfinite(rows)), weight, 0.0)
        rows = jnp.where(weight > 0, rows, self.mean)
        mean = jnp.mean(rows, axis=0)
        centred, shift = rows - mean, mean - self.mean
        if self.covariance.ndim == 2:
            within, between = centred.T @ centred / len(rows), jnp.outer(shift, shift)
        else:
            within, between = jnp.mean(centred**2, axis=0), shift**2
        spread = within + (1 - weight) * between
        covariance = self.covariance + weight * (spread - self.covariance)
        return Moments(self.mean + weight * shift, covariance)


def recent_moments(moments: Recent, rows: jax.Array, step: jax.Array) -> Recent:
    """Recent moments with the positions (chain, entry) after a step."""
    return moments.update(lambda average, weight: average.merge(rows, weight), step)


def recent_mean(mean: Recent, new: Any, step: jax.Array) -> Recent:
    """A recent mean of arrays with the arrays after a step."""
    return mean.update(
        lambda average, weight: jax.tree.map(lambda a, b: a + weight * (b - a), average, new), step
    )
