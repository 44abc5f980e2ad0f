"""Running means and covariances of chains, for tuning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.samplers._sampler import Starts

FORGETS = 5.0  # the weight of step s in an average at step t is about (s / t)^(FORGETS - 1)
PRIOR = 10.0  # steps that the starting values count for


def fresh_weight(step: jax.Array) -> jax.Array:
    r"""What a new observation weighs in an average that forgets the start of a run.

    $w_t = a / (t + a + t_0)$: polynomial-decay averaging (Shamir and Zhang, 2013). It needs no
    window and no length of warm-up, and moves ever more slowly.
    """
    return FORGETS / (step + FORGETS + PRIOR)


def flat(values: Values) -> jax.Array:
    """A dict of arrays with a leading axis over chains as one matrix (chain, entry), names sorted.

    The order of entries is that of `jax.flatten_util.ravel_pytree` on one chain.
    """
    rows = [values[name].reshape(len(values[name]), -1) for name in sorted(values)]
    return jnp.concatenate(rows, axis=1)


class Moments(eqx.Module):
    """Mean and covariance of the positions of all chains over the recent part of a run.

    The covariance is a matrix, or its diagonal.
    """

    mean: jax.Array | np.ndarray
    covariance: jax.Array | np.ndarray

    @staticmethod
    def start(positions: Starts, dense: bool = False) -> "Moments":
        """Before the first step: the mean of the starts, and unit variances; nothing compiles."""
        rows = [np.reshape(positions[name], (len(positions[name]), -1)) for name in sorted(positions)]
        mean = np.mean(np.concatenate(rows, axis=1), axis=0)
        ones = np.ones_like(mean)
        return Moments(mean, np.diag(ones) if dense else ones)

    def update(self, rows: jax.Array, step: jax.Array) -> "Moments":
        """With the positions (chain, entry) after a step. Rows that are not finite leave it."""
        weight = jnp.where(jnp.all(jnp.isfinite(rows)), fresh_weight(step), 0.0)
        mean = jnp.mean(rows, axis=0)
        centred, shift = rows - mean, mean - self.mean
        if self.covariance.ndim == 2:
            within, between = centred.T @ centred / len(rows), jnp.outer(shift, shift)
        else:
            within, between = jnp.mean(centred**2, axis=0), shift**2
        spread = within + (1 - weight) * between
        covariance = self.covariance + weight * (spread - self.covariance)
        kept = jnp.where(weight > 0, covariance, self.covariance)
        return Moments(jnp.where(weight > 0, self.mean + weight * shift, self.mean), kept)
