"""The Fréchet distance between two samples, in any space of features."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from energia._types import as_float
from energia.evaluate._rows import over_rows, two_samples


def frechet_distance(
    samples: Any, data: Any, *, features: Callable[[jax.Array], Any] | None = None
) -> float:
    r"""The squared Fréchet distance between the normal laws of two samples' moments.

    $\lVert \mu_1 - \mu_2 \rVert^2 + \operatorname{tr}\,(\Sigma_1 + \Sigma_2 - 2\,(\Sigma_1
    \Sigma_2)^{1/2})$,

    which is the square of the 2-Wasserstein distance of $N(\mu_1, \Sigma_1)$ and
    $N(\mu_2, \Sigma_2)$. With centred features $A_i$, one a row and scaled so that
    $\Sigma_i = A_i^\top A_i$, and $A_i = Q_i R_i$, the last trace is the sum of the singular values
    of $R_1 R_2^\top$: no square root is taken of a matrix, and no covariance is formed, whose small
    eigenvalues would be lost. Computed in float64 on the host.

    With the Inception network's features it is the FID. Other features give other numbers: they
    compare models by the same network and as many rows, beside the distance of training to test
    data. From few rows it is too large: between samples of one normal law with covariance $c I$ in
    $d$ dimensions by about $c\,(d + \tfrac{d (d + 1)}{4})\,(\tfrac1m + \tfrac1n)$, which for
    $d = 64$ and 10,000 rows each is $0.22\,c$.

    Args:
        samples: rows of one sample, shape (m, \*shape), m at least 2.
        data: rows of the other, shape (n, \*shape), n at least 2.
        features: a function of one row whose values are an array, as `feature_network` makes it;
            None: the entries of the rows themselves.

    Returns:
        A number of at least 0, in the features' units squared.

    Raises:
        ValueError: for shapes that do not fit, too few rows, and values that are not finite.

    References:
        Dowson and Landau (1982), The Fréchet distance between multivariate normal distributions.
        Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter (2017), GANs trained by a two
        time-scale update rule converge to a local Nash equilibrium.

    Example:
        >>> import energia as en, jax
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
        >>> round(en.evaluate.frechet_distance(x, x + 2), 3)  # 2² in each of 3 entries
        12.0
    """
    if features is not None:
        samples = mapped(features, samples, "samples")
        data = mapped(features, data, "data")
    x, y = (np.asarray(rows, float) for rows in two_samples(samples, data, "frechet_distance"))
    one, two = _factor(x), _factor(y)
    shift = x.mean(0) - y.mean(0)
    shared = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    return float(max(shift @ shift + (one**2).sum() + (two**2).sum() - 2 * shared, 0.0))


def mapped(features: Any, rows: Any, what: str) -> np.ndarray:
    """The features of each row, shape (rows, size)."""
    if not callable(features):
        raise TypeError(f"features= must be a function of one row, got {features!r}")
    array = as_float(rows, what)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{what} must have rows, got shape {array.shape}")
    values = over_rows(_apply, features, array)
    return values.reshape(len(values), -1)


def _apply(features: Callable[[jax.Array], jax.Array], row: jax.Array) -> jax.Array:
    return features(row)


def _factor(rows: np.ndarray) -> np.ndarray:
    """A triangular R with R'R the covariance."""
    return np.asarray(np.linalg.qr((rows - rows.mean(0)) / np.sqrt(len(rows) - 1), mode="r"))
