"""The maximum mean discrepancy between two sets of points."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import optional_float
from energia.evaluate._rows import two_samples

MEDIAN_ROWS = 1000  # that the median distance is taken over


def mmd(samples: Any, data: Any, *, bandwidth: Any = None) -> float:
    r"""The squared maximum mean discrepancy between two laws, estimated from draws of each.

    With the kernel $k(x, y) = e^{-\lVert x - y \rVert^2 / 2 h^2}$

    $\mathrm{MMD}^2 = \mathbb{E}\, k(x, x') + \mathbb{E}\, k(y, y') - 2\, \mathbb{E}\, k(x, y)$

    is zero where the laws agree, and positive elsewhere. The estimate leaves each point's pair with
    itself out, and is unbiased: where the laws agree it is as often negative as positive.

    Args:
        samples: independent draws $x$, shape (m, \*shape), m at least 2.
        data: draws $y$ of the other law, shape (n, \*shape), n at least 2.
        bandwidth: $h$, positive; None: the median distance between rows of `data` (of 1,000 of
            them at equal distances, where there are more), so that models are told from the same
            data by the same kernel.

    Returns:
        The estimate of the square; between equal laws of the order of $1 / m + 1 / n$.

    Raises:
        ValueError: for shapes that do not fit, too few rows, values that are not finite, and a
            bandwidth that is not positive.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf and Smola (2012), A kernel two-sample test.

    Example:
        >>> import energia as en, jax
        >>> one, two, other = jax.random.normal(jax.random.key(0), (3, 1000, 2))
        >>> abs(en.evaluate.mmd(one, two)) < 0.01, round(en.evaluate.mmd(one + 1, other), 1)
        (True, 0.2)
    """
    x, y = two_samples(samples, data, "mmd")
    width = bandwidth_of(bandwidth, y, "mmd")
    return float(_estimate(x, y, width))


def bandwidth_of(given: Any, rows: jax.Array, name: str) -> jax.Array:
    """A bandwidth that was given, else the median distance of rows, flat ones."""
    width = optional_float(given)
    if width is None:
        picked = np.linspace(0, len(rows) - 1, min(len(rows), MEDIAN_ROWS)).astype(int)
        width = _median(rows[picked])
        if not float(width) > 0:
            raise ValueError(f"most rows are alike: {name}() needs bandwidth=")
    if width.shape != () or not 0 < float(width) < np.inf:
        raise ValueError(f"bandwidth= must be a positive number, got {given}")
    return width


def squares(row: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.sum((row - rows) ** 2, axis=-1)


@jax.jit
def _median(rows: jax.Array) -> jax.Array:
    distances = jax.lax.map(lambda row: jnp.sqrt(squares(row, rows)), rows)
    return jnp.median(distances[jnp.triu_indices(len(rows), 1)])


@jax.jit
def _estimate(x: jax.Array, y: jax.Array, width: jax.Array) -> jax.Array:
    def mean(rows: jax.Array, others: jax.Array) -> jax.Array:
        # a row at a time: the matrix of all pairs may not fit in memory
        def sums(row: jax.Array) -> jax.Array:
            return jnp.mean(jnp.exp(-squares(row, others) / (2 * width**2)))

        return jnp.mean(jax.lax.map(sums, rows))

    def within(rows: jax.Array) -> jax.Array:
        count = len(rows)
        return (count * mean(rows, rows) - 1) / (count - 1)

    return within(x) + within(y) - 2 * mean(x, y)
