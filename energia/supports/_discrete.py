"""Variables of finitely many values, and counts."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_shape, check_count, float_dtype
from energia.supports._support import AnyArray, Shape, Shaped, Support


class Discrete(Support):
    """A support of finitely many values an entry."""

    discrete: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def states(self) -> tuple[int, ...]:
        """The values that one entry takes."""

    def draw(self, key: jax.Array) -> jax.Array:
        return self.values(jax.random.randint(key, self.shape, 0, len(self.states)))

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        low, step = self.states[0], self.states[1] - self.states[0]
        # in floats: narrow integers cannot hold every state
        index = (value.astype(float_dtype()) - low) / step
        return (index % 1 == 0) & (index >= 0) & (index < len(self.states))

    @property
    def num_states(self) -> int:
        """How many values there are: those of an entry to the power of the number of entries."""
        return len(self.states) ** math.prod(self.shape)

    def state(self, index: jax.Array) -> jax.Array:
        """Value number `index` of all `num_states`, the last entry running fastest."""
        base, size = len(self.states), math.prod(self.shape)
        powers = jnp.asarray([base ** (size - 1 - k) for k in range(size)], jnp.int32)
        return self.values((index // powers % base).reshape(self.shape))

    def values(self, positions: jax.Array) -> jax.Array:
        """The values at positions in the list of `states`, entry by entry."""
        low, step = self.states[0], self.states[1] - self.states[0]
        return (low + step * positions).astype(self.dtype)

    def positions(self, value: jax.Array) -> jax.Array:
        """The inverse of `values`: integers in the shape of the value."""
        low, step = self.states[0], self.states[1] - self.states[0]
        return jnp.round((value - low) / step).astype(jnp.int32)


@dataclasses.dataclass(frozen=True, init=False)
class Binary(Shaped, Discrete):
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
class Spin(Shaped, Discrete):
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


@dataclasses.dataclass(frozen=True, init=False)
class Natural(Shaped, Support):
    """Entries in {0, 1, 2, ...}, held as 32-bit integers: counts.

    There is no end to enumerate or to sample up to, so a variable of this kind is data, or is given
    a finite support: `.constrain(k=en.Categorical(100))` for counts below 100.

    Args:
        shape: shape of one value.

    Example:
        >>> import energia as en, numpy as np
        >>> en.Natural(3).contains(np.array([0, 7, -1])).tolist()
        [True, True, False]
    """

    discrete: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def draw(self, key: jax.Array) -> jax.Array:
        return jax.random.poisson(key, 1.0, self.shape).astype(self.dtype)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        return (value >= 0) & (value % 1 == 0)
