"""Supports: the values that a variable takes, with a map to unconstrained space.

A support is the domain of the base measure, not an indicator: it never changes the value of an
energy. It says whether gradients make sense, how to draw a start, and how to map the variable to
an unconstrained space where gradient-based samplers move freely. Supports are frozen, hashable and
hold no arrays.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_shape, check_count, float_dtype

Shape = tuple[int, ...]
AnyArray = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Support(abc.ABC):
    """The values that one variable takes: a kind and a shape.

    Continuous supports carry a bijection from unconstrained reals, `constrain`, with the logarithm
    of its Jacobian determinant, and its inverse `unconstrain`. Discrete supports list their values.
    """

    discrete: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def shape(self) -> Shape:
        """Shape of one value."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of a value."""
        return float_dtype()

    @abc.abstractmethod
    def draw(self, key: jax.Array) -> jax.Array:
        """A starting value.

        It is uniform on a discrete support; on a continuous one it is the image of independent
        Uniform(-2, 2) numbers in unconstrained space, as in Stan.
        """

    @abc.abstractmethod
    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        """Entry by entry, whether the value lies in the support.

        NumPy arrays stay NumPy arrays: a check of concrete numbers compiles nothing.
        """

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()} {self.shape}"


class Continuous(Support):
    """A support with a bijection from unconstrained reals."""

    @property
    def unconstrained_shape(self) -> Shape:
        """Shape of the value in unconstrained space."""
        return self.shape

    @abc.abstractmethod
    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map reals into the support: the value, and log |det J| of the map (a scalar)."""

    @abc.abstractmethod
    def unconstrain(self, value: jax.Array) -> jax.Array:
        """The inverse of `constrain`."""

    def draw(self, key: jax.Array) -> jax.Array:
        start = jax.random.uniform(key, self.unconstrained_shape, self.dtype, -2.0, 2.0)
        return self.constrain(start)[0]


class Discrete(Support):
    """A support of finitely many values an entry."""

    discrete: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def states(self) -> tuple[int, ...]:
        """The values that one entry takes."""

    def draw(self, key: jax.Array) -> jax.Array:
        low, step = self.states[0], self.states[1] - self.states[0]
        index = jax.random.randint(key, self.shape, 0, len(self.states))
        return (low + step * index).astype(self.dtype)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        low, step = self.states[0], self.states[1] - self.states[0]
        # in floats: narrow integers cannot hold every state
        index = (value.astype(float_dtype()) - low) / step
        return (index % 1 == 0) & (index >= 0) & (index < len(self.states))


def _exp(exponent: jax.Array, terms: int = 1) -> jax.Array:
    """The exponential, kept so that neither it nor a sum of `terms` of it leaves normal numbers."""
    info = jnp.finfo(exponent.dtype)
    low, high = (0.999 * math.log(float(bound)) for bound in (info.tiny, info.max))
    return jnp.exp(jnp.clip(exponent, low, high - math.log(terms)))


@dataclasses.dataclass(frozen=True, init=False)
class _Shaped:
    shape: Shape = ()

    def __init__(self, shape: int | Sequence[int] = ()):
        object.__setattr__(self, "shape", as_shape(shape))


@dataclasses.dataclass(frozen=True, init=False)
class Real(_Shaped, Continuous):
    """All real numbers.

    Args:
        shape: shape of one value; `()` is a scalar.

    Example:
        >>> import energia as en
        >>> en.Real((3,)).shape
        (3,)
    """

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        return unconstrained, jnp.zeros((), unconstrained.dtype)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return value

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        return abs(value) < np.inf


@dataclasses.dataclass(frozen=True, init=False)
class Positive(_Shaped, Continuous):
    r"""Positive reals, mapped by $x = e^z$ with $\log|J| = \sum_i z_i$.

    Args:
        shape: shape of one value.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Positive().unconstrain(jnp.array(1.0)))
        0.0
    """

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _exp(unconstrained), jnp.sum(unconstrained)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return jnp.log(value)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        return (value > 0) & (value < np.inf)


@dataclasses.dataclass(frozen=True, init=False)
class Interval(Continuous):
    r"""The open interval $(a, b)$, mapped by $x = a + (b - a)\,\mathrm{sigmoid}(z)$.

    A value that the floating-point sigmoid would round onto a bound is kept inside. Numbers are
    finest near 0: a density that is singular at an end other than 0, such as Beta(5, 0.2) at 1, has
    mass beyond the last float32 below it, and wants that end at 0 or x64.

    Args:
        low: lower bound, a finite number.
        high: upper bound, a finite number above `low`.
        shape: shape of one value.

    Raises:
        ValueError: when the bounds are not finite or not in order.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Interval(-1, 3).constrain(jnp.array(0.0))[0])
        1.0
    """

    low: float
    high: float
    shape: Shape = ()  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, low: float | int, high: float | int, shape: int | Sequence[int] = ()):
        object.__setattr__(self, "low", float(low))
        object.__setattr__(self, "high", float(high))
        object.__setattr__(self, "shape", as_shape(shape))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"Interval needs finite bounds with low < high, got ({self.low}, {self.high}); "
                "use Positive or Real where there is no bound"
            )

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        # measured from the nearer bound, which keeps the digits where a bound is zero
        lower = unconstrained < 0
        distance = jax.nn.sigmoid(jnp.where(lower, unconstrained, -unconstrained))
        distance = (self.high - self.low) * distance
        value = jnp.where(lower, self.low + distance, self.high - distance)
        value = jnp.clip(value, *self._edges(unconstrained.dtype))
        log_slope = -jax.nn.softplus(-unconstrained) - jax.nn.softplus(unconstrained)
        return value, jnp.sum(log_slope + math.log(self.high - self.low))

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return jnp.log(value - self.low) - jnp.log(self.high - value)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        return (value > self.low) & (value < self.high)

    def _edges(self, dtype: np.dtype) -> tuple[float, float]:
        """The numbers next to the bounds, inside; XLA takes subnormal ones for zero."""
        low, high = np.asarray(self.low, dtype), np.asarray(self.high, dtype)
        tiny = float(jnp.finfo(dtype).tiny)
        above = float(np.nextafter(low, high)) if self.low else tiny
        below = float(np.nextafter(high, low)) if self.high else -tiny
        return above, below

    def __str__(self) -> str:
        return f"({self.low:g}, {self.high:g}) {self.shape}"


@dataclasses.dataclass(frozen=True)
class Simplex(Continuous):
    r"""Vectors of $K$ positive numbers that sum to one.

    The map is the inverse isometric log-ratio transform (Egozcue et al. 2003),
    $x = \mathrm{softmax}(V z)$ with $V$ an orthonormal basis of the vectors that sum to zero, and
    $\log|J| = \tfrac12 \log K + \sum_k \log x_k$ with respect to $x_1, \dots, x_{K-1}$.

    Args:
        size: $K$, at least 2.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.Simplex(4).constrain(jnp.zeros(3))[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    size: int

    def __post_init__(self):
        object.__setattr__(self, "size", check_count(self.size, "size", 2))

    @property
    def shape(self) -> Shape:
        return (self.size,)

    @property
    def unconstrained_shape(self) -> Shape:
        return (self.size - 1,)

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        basis = self._basis(unconstrained.dtype)
        logits = jnp.matmul(basis, unconstrained, precision="highest")
        log_value = jax.nn.log_softmax(logits)
        tiny = jnp.finfo(unconstrained.dtype).tiny
        return jnp.maximum(jnp.exp(log_value), tiny), (
            0.5 * math.log(self.size) + jnp.sum(log_value)
        )

    def unconstrain(self, value: jax.Array) -> jax.Array:
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


@dataclasses.dataclass(frozen=True)
class Ordered(Continuous):
    r"""Vectors with $x_1 < x_2 < \dots < x_K$: $x_1 = z_1$, $x_k = x_{k-1} + e^{z_k}$.

    Args:
        size: $K$, at least 1.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.Ordered(3).constrain(jnp.zeros(3))[0].tolist()
        [0.0, 1.0, 2.0]
    """

    size: int

    def __post_init__(self):
        object.__setattr__(self, "size", check_count(self.size, "size", 1))

    @property
    def shape(self) -> Shape:
        return (self.size,)

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        info = jnp.finfo(unconstrained.dtype)

        def climb(last: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            # a step too small for the floating-point numbers here still climbs to the next one
            value = last + jnp.maximum(step, info.tiny + info.eps * jnp.abs(last))
            return value, value

        first, steps = unconstrained[:1], _exp(unconstrained[1:], self.size)
        rest = jax.lax.scan(climb, first[0], steps)[1]
        return jnp.concatenate([first, rest]), jnp.sum(unconstrained[1:])

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return jnp.concatenate([value[:1], jnp.log(jnp.diff(value))])

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        concatenate = jnp.concatenate if isinstance(value, jax.Array) else np.concatenate
        rises = [value[..., :1] > -np.inf, value[..., 1:] > value[..., :-1]]
        return concatenate(rises, axis=-1) & (value < np.inf)


@dataclasses.dataclass(frozen=True, init=False)
class Binary(_Shaped, Discrete):
    """Entries in {0, 1}, held as floats so that energies may differentiate through them.

    Args:
        shape: shape of one value.

    Example:
        >>> import energia as en
        >>> en.Binary((2, 2)).states
        (0, 1)
    """

    @property
    def states(self) -> tuple[int, ...]:
        return (0, 1)


@dataclasses.dataclass(frozen=True, init=False)
class Spin(_Shaped, Discrete):
    """Entries in {-1, +1}, held as floats.

    Args:
        shape: shape of one value.

    Example:
        >>> import energia as en
        >>> en.Spin((8, 8)).states
        (-1, 1)
    """

    @property
    def states(self) -> tuple[int, ...]:
        return (-1, 1)


@dataclasses.dataclass(frozen=True, init=False)
class Categorical(Discrete):
    """Entries in {0, ..., K - 1}, held as 32-bit integers.

    Args:
        num_categories: K, at least 2.
        shape: shape of one value.

    Example:
        >>> import energia as en
        >>> en.Categorical(3).states
        (0, 1, 2)
    """

    num_categories: int
    shape: Shape = ()  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, num_categories: int, shape: int | Sequence[int] = ()):
        object.__setattr__(self, "num_categories", check_count(num_categories, "num_categories", 2))
        object.__setattr__(self, "shape", as_shape(shape))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    @property
    def states(self) -> tuple[int, ...]:
        return tuple(range(self.num_categories))

    def __str__(self) -> str:
        return f"categorical {self.num_categories} {self.shape}"
