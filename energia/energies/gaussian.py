"""Gaussian energies."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from energia._types import Values, as_float, is_concrete, log
from energia.energies._checks import one_value, positive
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Normal
from energia.supports import Real, Support

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(Energy):
    r"""The normal distribution, normalised: $\int e^{-E} = 1$.

    $E(x) = \tfrac12 (x-\mu)^\top P (x-\mu) - \tfrac12 \log\det P + \tfrac n2 \log 2\pi$ with the
    precision $P = \Sigma^{-1}$. Give one of a scale (standard deviation), a covariance and a
    precision. What is trained is unconstrained: the mean, and the logarithm of the scale or the
    Cholesky factor of the precision.

    Args:
        mean: $\mu$, any shape; a vector where a covariance or precision is given.
        scale: standard deviations, positive, of a shape that broadcasts to the mean's.
        covariance: $\Sigma$, shape (n, n), symmetric positive definite.
        precision: $P$, shape (n, n), symmetric positive definite.

    Raises:
        ValueError: when more than one of the three is given, shapes do not fit, or the numbers are
            not positive (definite).

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> normal = en.Gaussian(jnp.zeros(2), covariance=[[1.0, 0.5], [0.5, 1.0]])
        >>> [round(float(p), 3) for p in normal.precision.ravel()]
        [1.333, -0.667, -0.667, 1.333]
    """

    mean: jax.Array
    log_scale: jax.Array | None
    precision_cholesky: jax.Array | None

    def __init__(
        self, mean: Any, *, scale: Any = None, covariance: Any = None, precision: Any = None
    ):
        self.mean = as_float(mean)
        given = [n for n, v in [("scale", scale), ("covariance", covariance)] if v is not None]
        given += ["precision"] * (precision is not None)
        if len(given) > 1:
            raise ValueError(f"Gaussian takes one of scale=, covariance=, precision=, got {given}")
        self.log_scale = self.precision_cholesky = None
        if covariance is not None or precision is not None:
            self.precision_cholesky = _precision_cholesky(self.mean, covariance, precision)
        else:
            scale = 1.0 if scale is None else scale
            self.log_scale = log(positive(scale, "scale", self.mean.shape))

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, self.mean.shape)
        if self.precision_cholesky is None:
            whitened = (x - self.mean) * jnp.exp(-jnp.asarray(self.log_scale))
            log_det = -jnp.sum(jnp.broadcast_to(jnp.asarray(self.log_scale), self.mean.shape))
        else:
            lower = jnp.tril(self.precision_cholesky)
            whitened = jnp.matmul(x - self.mean, lower, precision="highest")
            log_det = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lower))))
        return 0.5 * jnp.sum(whitened**2) - log_det + 0.5 * self.mean.size * _LOG_2PI

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self.mean.shape)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Normal | None:
        if self.precision_cholesky is not None:  # its entries are not independent
            return None
        precision = jnp.broadcast_to(jnp.exp(-2 * jnp.asarray(self.log_scale)), self.mean.shape)
        return Normal(self(jnp.zeros_like(self.mean)), precision * self.mean, precision)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values or self.precision_cholesky is None:
            return super()._exact(values)
        lower = jnp.tril(self.precision_cholesky)

        def draw(key: jax.Array) -> Values:
            noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
            offset = jax.scipy.linalg.solve_triangular(lower, noise, trans=1, lower=True)
            return {"x": self.mean + offset}

        return Exact(draw, as_float(0.0), constant=True)

    @property
    def precision(self) -> jax.Array:
        """The precision matrix of the flattened variable, shape (n, n)."""
        if self.precision_cholesky is None:
            scale = jnp.broadcast_to(jnp.asarray(self.log_scale), self.mean.shape)
            return jnp.diag(jnp.exp(-2 * scale.ravel()))
        lower = jnp.tril(self.precision_cholesky)
        return jnp.matmul(lower, lower.T, precision="highest")

    @property
    def covariance(self) -> jax.Array:
        """The covariance matrix of the flattened variable, shape (n, n)."""
        return jnp.linalg.inv(self.precision)

    @property
    def scale(self) -> jax.Array:
        """Marginal standard deviations, in the shape of the mean."""
        if self.precision_cholesky is None:
            return jnp.broadcast_to(jnp.exp(jnp.asarray(self.log_scale)), self.mean.shape)
        return jnp.sqrt(jnp.diagonal(self.covariance)).reshape(self.mean.shape)


class GaussianMixture(Energy):
    r"""A normalised mixture of normals, $E(x) = -\log \sum_k w_k N(x; \mu_k, \sigma_k^2)$.

    Args:
        means: $\mu_k$, shape (k, *shape of x).
        scales: standard deviations, positive: one number, one a component (shape (k,)), or the
            shape of the means.
        weights: $w_k$, positive, shape (k,); divided by their sum; equal by default. Trained as
            their logarithms.

    Raises:
        ValueError: when shapes do not fit or numbers are not positive.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> modes = en.GaussianMixture(jnp.array([[-2.0, 0.0], [2.0, 0.0]]), scales=0.5)
        >>> modes.supports["x"].shape, modes.weights.tolist()
        ((2,), [0.5, 0.5])
    """

    means: jax.Array
    log_scales: jax.Array
    log_weights: jax.Array

    def __init__(self, means: Any, *, scales: Any, weights: Any = None):
        self.means = as_float(means)
        if self.means.ndim == 0:
            raise ValueError("GaussianMixture needs means of shape (k, *shape of x), got a scalar")
        count = self.means.shape[0]
        scales = as_float(scales, "scales")
        if scales.ndim == 1:
            if scales.shape != (count,):
                raise ValueError(
                    f"{count} means need scales of shape ({count},), got {scales.shape}"
                )
            scales = scales.reshape(count, *[1] * (self.means.ndim - 1))
        self.log_scales = log(positive(scales, "scales", self.means.shape))
        weights = as_float(np.full(count, 1 / count) if weights is None else weights, "weights")
        if weights.shape != (count,):
            raise ValueError(f"{count} means need weights of shape ({count},), got {weights.shape}")
        self.log_weights = jax.nn.log_softmax(log(positive(weights, "weights", (count,))))

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, self.means.shape[1:])
        log_scales = jnp.broadcast_to(self.log_scales, self.means.shape)
        axes = tuple(range(1, self.means.ndim))
        whitened = (x - self.means) * jnp.exp(-log_scales)
        log_normal = -0.5 * jnp.sum(whitened**2, axes) - jnp.sum(log_scales, axes)
        log_normal = log_normal - 0.5 * math.prod(self.means.shape[1:]) * _LOG_2PI
        return -jax.nn.logsumexp(jax.nn.log_softmax(self.log_weights) + log_normal)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self.means.shape[1:])}

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values:
            return None

        def draw(key: jax.Array) -> Values:
            key_part, key_noise = jax.random.split(key)
            which = jax.random.categorical(key_part, self.log_weights)
            mean = self.means[which]
            scale = jnp.exp(jnp.broadcast_to(self.log_scales, self.means.shape)[which])
            return {"x": mean + scale * jax.random.normal(key_noise, mean.shape, mean.dtype)}

        return Exact(draw, as_float(0.0), constant=True)

    @property
    def weights(self) -> jax.Array:
        """The weights, summing to one."""
        return jax.nn.softmax(self.log_weights)


def _check_one_each(value: jax.Array, name: str, count: int) -> None:
    if value.shape != (count,):
        raise ValueError(f"{count} means need {name} of shape ({count},), got {value.shape}")


def _precision_cholesky(mean: jax.Array, covariance: Any, precision: Any) -> jax.Array:
    name = "precision" if covariance is None else "covariance"
    matrix = as_float(precision if covariance is None else covariance)
    if mean.ndim != 1 or matrix.shape != (mean.size, mean.size):
        raise ValueError(
            f"{name}= needs a mean that is a vector and a square matrix of its size, got shapes "
            f"{mean.shape} and {matrix.shape}"
        )
    if not is_concrete(matrix):
        return jnp.linalg.cholesky(jnp.linalg.inv(matrix) if name == "covariance" else matrix)
    dense = np.asarray(matrix, np.float64)
    if not np.all(np.isfinite(dense)):
        raise ValueError(f"{name}= must be finite, got {matrix.tolist()}")
    if not np.allclose(dense, dense.T, rtol=1e-5, atol=1e-6 * np.abs(dense).max()):
        raise ValueError(f"{name}= must be symmetric, got {matrix.tolist()}")
    try:
        np.linalg.cholesky(dense)
        lower = np.linalg.cholesky(np.linalg.inv(dense) if name == "covariance" else dense)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(dense).min()
        raise ValueError(
            f"{name}= must be positive definite, its smallest eigenvalue is {smallest:.3g}"
        ) from None
    return as_float(lower)
