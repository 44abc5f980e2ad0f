"""The reals, and the positive reals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from energia.supports._support import AnyArray, Continuous, Shaped, exp


@dataclasses.dataclass(frozen=True, init=False)
class Real(Shaped, Continuous):
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
class Positive(Shaped, Continuous):
    r"""Positive reals, mapped by $x = e^z$ with $\log|J| = \sum_i z_i$.

    Args:
        shape: shape of one value.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Positive().unconstrain(jnp.array(1.0)))
        0.0
    """

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        return exp(unconstrained), jnp.sum(unconstrained)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return jnp.log(value)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        return (value > 0) & (value < np.inf)
