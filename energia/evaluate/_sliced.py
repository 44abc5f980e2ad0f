"""The sliced Wasserstein distance between two samples."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, check_count, check_key
from energia.evaluate._rows import two_samples

SIDE_BY_SIDE = 16  # directions


def sliced_wasserstein(
    samples: Any, data: Any, *, num_projections: int = 500, key: jax.Array
) -> float:
    r"""The sliced 2-Wasserstein distance between two samples.

    $\mathrm{SW}_2^2 = \mathbb{E}_\theta\, W_2^2(\theta^\top x, \theta^\top y)$ over directions
    $\theta$ that are uniform on the sphere, of which so many are drawn. In one dimension

    $W_2^2 = \int_0^1 (F^{-1}(u) - G^{-1}(u))^2\, du$

    with the quantiles of the two samples, exactly, also where they differ in size. It is a distance
    of laws, from two samples of one law above zero, by the less the more rows there are. The laws
    $N(0, I)$ and $N(\mu, s^2 I)$ in $d$ dimensions are at
    $\sqrt{\lVert \mu \rVert^2 / d + (s - 1)^2}$.

    Args:
        samples: rows of one sample, shape (m, \*shape), m at least 2.
        data: rows of the other, shape (n, \*shape), n at least 2.
        num_projections: how many directions: chance moves the square by its own size over the root
            of that, at most.
        key: a typed JAX key for the directions; the same ones where it is the same.

    Returns:
        The distance, in units of the data.

    Raises:
        ValueError: for shapes that do not fit, too few rows, and values that are not finite.

    References:
        Rabin, Peyré, Delon and Bernot (2012), Wasserstein barycenter and its application to texture
        mixing. Bonneel, Rabin, Peyré and Pfister (2015), Sliced and Radon Wasserstein barycenters
        of measures.

    Example:
        >>> import energia as en, jax
        >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
        >>> distance = en.evaluate.sliced_wasserstein(x, x + 3, key=jax.random.key(1))
        >>> abs(distance - 3) < 0.3  # the root of 9 · 2 / 2
        True
    """
    x, y = two_samples(samples, data, "sliced_wasserstein")
    num_projections = check_count(num_projections, "num_projections", 1)
    shared = [as_array(array) for array in _quantiles(len(x), len(y))]
    squares = _squares(x, y, *shared, num_projections, check_key(key))
    return float(np.sqrt(np.mean(np.asarray(squares, float))))


def _quantiles(m: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where both quantile functions are constant: the length of each piece, and the ranks there."""
    # in units of 1 / (m n), so that ends are compared exactly; a piece for each end but 0
    ends = np.union1d(np.arange(1, m + 1) * n, np.arange(1, n + 1) * m)
    lengths = np.diff(ends, prepend=0) / (m * n)
    return lengths, (ends - 1) // n, (ends - 1) // m


@functools.partial(jax.jit, static_argnums=5)
def _squares(
    x: jax.Array,
    y: jax.Array,
    lengths: jax.Array,
    rank_x: jax.Array,
    rank_y: jax.Array,
    num_projections: int,
    key: jax.Array,
) -> jax.Array:
    def one(key: jax.Array) -> jax.Array:
        direction = jax.random.normal(key, x.shape[1:], x.dtype)
        direction = direction / jnp.linalg.norm(direction)
        gaps = jnp.sort(x @ direction)[rank_x] - jnp.sort(y @ direction)[rank_y]
        return jnp.sum(lengths * gaps**2)

    keys = jax.random.split(key, num_projections)
    return jax.lax.map(one, keys, batch_size=min(SIDE_BY_SIDE, num_projections))
