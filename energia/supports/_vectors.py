"""Supports of vectors and matrices whose entries bound one another."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_shape, check_count
from energia.supports._support import AnyArray, Continuous, Shape, exp


@dataclasses.dataclass(frozen=True, init=False)
class _Sized(Continuous):
    """Independent copies, in an array of shape `batch`, of a vector or matrix of one size."""

    size: int
    batch: Shape = ()

    smallest: ClassVar[int] = 1

    def __init__(self, size: int, *, batch: int | Sequence[int] = ()):
        object.__setattr__(self, "size", check_count(size, "size", self.smallest))
        object.__setattr__(self, "batch", as_shape(batch))

    @property
    @abc.abstractmethod
    def _shapes(self) -> tuple[Shape, Shape]:
        """Shapes of one copy: of its value, and in unconstrained space."""

    @abc.abstractmethod
    def _constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`constrain` of one copy."""

    @abc.abstractmethod
    def _unconstrain(self, value: jax.Array) -> jax.Array:
        """`unconstrain` of one copy."""

    @property
    def shape(self) -> Shape:
        return self.batch + self._shapes[0]

    @property
    def unconstrained_shape(self) -> Shape:
        return self.batch + self._shapes[1]

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        function = self._constrain
        for _ in self.batch:
            function = jax.vmap(function)
        value, log_det = function(unconstrained)
        return value, jnp.sum(log_det)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        function = self._unconstrain
        for _ in self.batch:
            function = jax.vmap(function)
        return function(value)


@dataclasses.dataclass(frozen=True, init=False)
class Simplex(_Sized):
    r"""Vectors of $K$ positive numbers that sum to one.

    The map is the inverse isometric log-ratio transform (Egozcue et al. 2003),
    $x = \mathrm{softmax}(V z)$ with $V$ an orthonormal basis of the vectors that sum to zero, and
    $\log|J| = \tfrac12 \log K + \sum_k \log x_k$ with respect to $x_1, \dots, x_{K-1}$.

    Args:
        size: $K$, at least 2.
        batch: shape of an array of such vectors, (rows,) for the rows of a stochastic matrix.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.Simplex(4).constrain(jnp.zeros(3))[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
        >>> en.Simplex(2, batch=3).shape
        (3, 2)
    """

    smallest: ClassVar[int] = 2

    @property
    def _shapes(self) -> tuple[Shape, Shape]:
        return (self.size,), (self.size - 1,)

    def _constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        basis = self._basis(unconstrained.dtype)
        logits = jnp.matmul(basis, unconstrained, precision="highest")
        log_value = jax.nn.log_softmax(logits)
        tiny = jnp.finfo(unconstrained.dtype).tiny
        return jnp.maximum(jnp.exp(log_value), tiny), (
            0.5 * math.log(self.size) + jnp.sum(log_value)
        )

    def _unconstrain(self, value: jax.Array) -> jax.Array:
        return jnp.matmul(jnp.log(value), self._basis(value.dtype), precision="highest")

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        error = abs(value.sum(axis=-1, keepdims=True) - 1)
        return (value > 0) & (error < math.sqrt(jnp.finfo(value.dtype).eps))

    def _basis(self, dtype) -> np.ndarray:
        """Orthonormal columns that sum to zero (a Helmert matrix), shape (K, K - 1)."""
        helmert = np.zeros((self.size, self.size - 1))
        for k in range(1, self.size):
            helmert[:k, k - 1] = 1 / math.sqrt(k * (k + 1))
            helmert[k, k - 1] = -k / math.sqrt(k * (k + 1))
        return helmert.astype(dtype)


@dataclasses.dataclass(frozen=True, init=False)
class Ordered(_Sized):
    r"""Vectors with $x_1 < x_2 < \dots < x_K$: $x_1 = z_1$, $x_k = x_{k-1} + e^{z_k}$.

    Args:
        size: $K$, at least 1.
        low: a lower bound of all, a finite number: then $x_1$ is low $+\,e^{z_1}$; by default none.
        batch: shape of an array of such vectors.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.Ordered(3).constrain(jnp.zeros(3))[0].tolist()
        [0.0, 1.0, 2.0]
        >>> en.Ordered(3, low=1.0).constrain(jnp.zeros(3))[0].tolist()
        [2.0, 3.0, 4.0]
    """

    low: float = -math.inf

    def __init__(self, size: int, *, low: float | int = -math.inf, batch: int | Sequence[int] = ()):
        super().__init__(size, batch=batch)
        object.__setattr__(self, "low", float(low))
        if not self.low < math.inf:
            raise ValueError(f"Ordered(low=...) must be a finite number, got {low}")

    @property
    def _shapes(self) -> tuple[Shape, Shape]:
        return (self.size,), (self.size,)

    def _constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        info = jnp.finfo(unconstrained.dtype)

        def climb(last: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            # a step too small for the floating-point numbers here still climbs to the next one
            value = last + jnp.maximum(step, info.tiny + info.eps * jnp.abs(last))
            return value, value

        bounded = math.isfinite(self.low)
        steps = exp(unconstrained if bounded else unconstrained[1:], self.size)
        first = jnp.asarray(self.low, unconstrained.dtype) if bounded else unconstrained[0]
        rest = jax.lax.scan(climb, first, steps)[1]
        log_det = jnp.sum(unconstrained if bounded else unconstrained[1:])
        return (rest if bounded else jnp.concatenate([first[None], rest])), log_det

    def _unconstrain(self, value: jax.Array) -> jax.Array:
        if math.isfinite(self.low):
            return jnp.log(jnp.diff(value, prepend=jnp.asarray(self.low, value.dtype)))
        return jnp.concatenate([value[:1], jnp.log(jnp.diff(value))])

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        concatenate = jnp.concatenate if isinstance(value, jax.Array) else np.concatenate
        rises = [value[..., :1] > self.low, value[..., 1:] > value[..., :-1]]
        return concatenate(rises, axis=-1) & (value < np.inf)


@dataclasses.dataclass(frozen=True, init=False)
class CholeskyCorrelation(_Sized):
    r"""Cholesky factors $L$ of $K \times K$ correlation matrices $L L^\top$.

    $L$ is lower triangular with a positive diagonal and rows of norm one. Each entry below the
    diagonal is what is left of its row times a partial correlation $\tanh z$ (Lewandowski,
    Kurowicka and Joe 2009), and $\log|J|$ is with respect to the entries below the diagonal.

    Args:
        size: $K$, at least 2.
        batch: shape of an array of such matrices.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.CholeskyCorrelation(2).constrain(jnp.zeros(1))[0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    smallest: ClassVar[int] = 2

    @property
    def _shapes(self) -> tuple[Shape, Shape]:
        return (self.size, self.size), (self.size * (self.size - 1) // 2,)

    def _constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, columns = np.tril_indices(self.size, -1)
        grid = jnp.zeros((self.size, self.size), unconstrained.dtype)
        z = grid.at[rows, columns].set(unconstrained)
        below = np.tri(self.size, k=-1, dtype=bool)
        # log(1 - tanh² z), which keeps its digits where tanh z rounds to one
        log_left = jnp.where(
            below, 2 * (math.log(2) - jnp.abs(z) - jnp.log1p(jnp.exp(-2 * jnp.abs(z)))), 0.0
        )
        spent = jnp.cumsum(log_left, axis=-1)
        before = spent - log_left  # log of the squared norm that is left for the entry
        diagonal = jnp.exp(0.5 * spent[:, -1])
        tiny = jnp.finfo(unconstrained.dtype).tiny
        lower = jnp.where(below, jnp.tanh(z) * jnp.exp(0.5 * before), 0.0)
        value = lower + jnp.diag(jnp.maximum(diagonal, tiny))
        return value, jnp.sum(jnp.where(below, log_left + 0.5 * before, 0.0))

    def _unconstrain(self, value: jax.Array) -> jax.Array:
        rows, columns = np.tril_indices(self.size, -1)
        squares = value**2
        # from the diagonal backwards, where the squares are small and are summed without loss
        left = jnp.cumsum(squares[:, ::-1], axis=-1)[:, ::-1]  # this entry and all after it
        after = jnp.concatenate([left[:, 1:], jnp.zeros((self.size, 1), value.dtype)], axis=-1)
        # tanh z = x / sqrt(left), so that z = asinh(x / sqrt(after))
        x, rest = value[rows, columns], after[rows, columns]
        return jnp.arcsinh(x / jnp.sqrt(jnp.maximum(rest, jnp.finfo(value.dtype).tiny)))

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        tolerance = math.sqrt(jnp.finfo(value.dtype).eps)
        norm = abs((value**2).sum(axis=-1, keepdims=True) - 1) < tolerance
        triangle = np.tri(self.size, dtype=bool)
        return norm & ((value == 0) | triangle) & ((value > 0) | ~np.eye(self.size, dtype=bool))
