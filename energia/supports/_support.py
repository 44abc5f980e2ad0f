"""The protocol of supports."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_shape, float_dtype

Shape = tuple[int, ...]
AnyArray = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Support(abc.ABC):
    """The values that one variable takes: a kind and a shape.

    Continuous supports carry a bijection from unconstrained reals, `constrain`, with the logarithm
    of its Jacobian determinant, and its inverse `unconstrain`. Discrete supports list their values.

    Example:
        >>> import energia as en, numpy as np
        >>> support = en.Positive((2,))
        >>> support.shape, support.discrete, support.contains(np.array([1.0, -1.0])).tolist()
        ((2,), False, [True, False])
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

    # --- bounds that are functions of other variables

    @property
    def depends(self) -> tuple[str, ...]:
        """The variables that the support is a function of."""
        return ()

    @property
    def functional(self) -> bool:
        """Whether a bound is a function, of other variables or of what stands in their place."""
        return False

    @property
    def replaced(self) -> bool:
        """Whether the value of a functional bound is known to the energy alone."""
        return False

    def at(self, values: Mapping[str, Any]) -> "Support":
        """The support where the variables that it depends on have these values."""
        return self

    def renamed(self, names: Mapping[str, tuple[str, ...]]) -> "Support":
        """The support where what it depends on is replaced: each by other variables, or by none."""
        return self

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


@dataclasses.dataclass(frozen=True, init=False)
class Shaped:
    """The field and the converter of a support that is the same in every entry."""

    shape: Shape = ()

    def __init__(self, shape: int | Sequence[int] = ()):
        object.__setattr__(self, "shape", as_shape(shape))


def exp(exponent: jax.Array, terms: int = 1) -> jax.Array:
    """The exponential, kept so that neither it nor a sum of `terms` of it leaves normal numbers."""
    info = jnp.finfo(exponent.dtype)
    low, high = (0.999 * math.log(float(bound)) for bound in (info.tiny, info.max))
    return jnp.exp(jnp.clip(exponent, low, high - math.log(terms)))


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound as a function of other variables.

    Each parameter has the name of the variable that it is, until an energy puts other variables,
    or none, in its place; the value then comes from the energy, and the names say on what it
    depends.
    """

    function: Callable[..., Any]
    parameters: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]

    @property
    def depends(self) -> tuple[str, ...]:
        """The variables that the bound is a function of."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source))

    @property
    def replaced(self) -> bool:
        """Whether a parameter is not simply one variable any more."""
        return any(len(source) != 1 for source in self.sources)

    def renamed(self, names: Mapping[str, tuple[str, ...]]) -> "Bound":
        """The bound where variables are replaced."""
        sources = tuple(
            tuple(new for name in source for new in names.get(name, (name,)))
            for source in self.sources
        )
        return Bound(self.function, self.parameters, sources)

    def __call__(self, values: Mapping[str, Any]) -> jax.Array:
        return jnp.asarray(self.function(**{name: values[name] for name in self.parameters}))

    def __str__(self) -> str:
        return f"f({', '.join(self.depends)})"
