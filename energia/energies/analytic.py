"""Analytic test energies of the sampling literature."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import Values, as_float, as_shape, check_count, float_dtype, log
from energia.energies._checks import broadcastable, one_value, positive
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.supports import Interval, Real, Support


class DoubleWell(Energy):
    r"""$E(x) = \sum_i b\,(x_i^2 - 1)^2$: wells at $\pm 1$ in every coordinate.

    Args:
        barrier: $b$, the height of the barrier at 0; a number, or an array of the variable's shape.
        shape: shape of x.

    Example:
        >>> import energia as en
        >>> float(en.DoubleWell(3.0)(0.0))
        3.0
    """

    barrier: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, barrier: Any = 1.0, *, shape: int | Sequence[int] = ()):
        self.shape = as_shape(shape)
        self.barrier = broadcastable(barrier, "barrier", self.shape)

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, self.shape)
        return jnp.sum(self.barrier * (x**2 - 1) ** 2)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self.shape)}


class Ring(Energy):
    r"""$E(x) = (\lVert x \rVert - r)^2 / 2 s^2$: mass along a circle in the plane.

    Args:
        radius: $r$, positive.
        scale: $s$, the width of the ring, positive. Trained as its logarithm.

    Raises:
        ValueError: when radius or scale is not positive.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Ring(2.0, scale=0.5)(jnp.array([0.0, 2.5])))
        0.5
    """

    radius: jax.Array
    log_scale: jax.Array

    def __init__(self, radius: Any = 1.0, *, scale: Any = 0.1):
        self.radius = positive(radius, "radius")
        self.log_scale = log(positive(scale, "scale"))

    def __call__(self, x: ArrayLike) -> jax.Array:
        squared = jnp.sum(one_value(self, x, (2,)) ** 2)
        # the norm has no gradient at the origin: there the ring's is zero by symmetry
        safe = jnp.where(squared > 0, squared, 1.0)
        norm = jnp.where(squared > 0, jnp.sqrt(safe), 0.0)
        return 0.5 * ((norm - self.radius) * jnp.exp(-self.log_scale)) ** 2

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real((2,))}


class Funnel(Energy):
    r"""Neal's funnel, normalised: $x_1 \sim N(0, s^2)$, $x_i \sim N(0, e^{x_1})$ for $i > 1$.

    Args:
        size: dimension, at least 2.
        scale: $s$, a positive number, 3 in the paper. Not trained.

    References:
        Neal (2003), Slice sampling, Annals of Statistics 31.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Funnel(2)(jnp.zeros(2)))
        2.936...
    """

    size: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(self, size: int = 10, *, scale: float | int = 3.0):
        self.size = check_count(size, "size", 2)
        self.scale = float(scale)
        positive(self.scale, "scale")

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, (self.size,))
        rest = self.size - 1
        neck = 0.5 * (x[0] / self.scale) ** 2 + math.log(self.scale)
        body = 0.5 * jnp.exp(-x[0]) * jnp.sum(x[1:] ** 2) + 0.5 * rest * x[0]
        return neck + body + 0.5 * self.size * math.log(2 * math.pi)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real((self.size,))}

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values:
            return None

        def draw(key: jax.Array) -> Values:
            noise = jax.random.normal(key, (self.size,))
            neck = self.scale * noise[0]
            return {"x": jnp.concatenate([neck[None], jnp.exp(0.5 * neck) * noise[1:]])}

        return Exact(draw, as_float(0.0), constant=True)


class Rosenbrock(Energy):
    r"""$E(x) = \sum_i b\,(x_{i+1} - x_i^2)^2 + (a - x_i)^2$: a curved, narrow valley.

    Args:
        size: dimension, at least 2.
        a: one number or one for each term. In two dimensions the minimum, zero, is at $(a, a^2)$,
            in more it is at $(1, \dots, 1)$ for $a = 1$.
        b: steepness of the valley's walls, positive; one number or one for each term.

    References:
        Rosenbrock (1960), An automatic method for finding the greatest or least value of a
        function, Computer Journal 3.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Rosenbrock()(jnp.ones(2)))
        0.0
    """

    a: jax.Array
    b: jax.Array
    size: int = eqx.field(static=True)

    def __init__(self, size: int = 2, *, a: Any = 1.0, b: Any = 100.0):
        self.size = check_count(size, "size", 2)
        self.a = broadcastable(a, "a", (self.size - 1,))
        self.b = positive(b, "b", (self.size - 1,))

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, (self.size,))
        return jnp.sum(self.b * (x[1:] - x[:-1] ** 2) ** 2 + (self.a - x[:-1]) ** 2)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real((self.size,))}


class Uniform(Energy):
    r"""The uniform distribution on a box, normalised: $E(x) = n \log(b - a)$ inside.

    A support is no indicator: outside the box the energy has the same value, and samplers stay
    inside because the variable's support is the interval.

    Args:
        low: $a$, a finite number.
        high: $b$, a finite number above `low`.
        shape: shape of x.

    Example:
        >>> import energia as en
        >>> float(en.Uniform(0.0, 1.0)(0.5))
        0.0
    """

    box: Interval = eqx.field(static=True)

    def __init__(self, low: float | int, high: float | int, *, shape: int | Sequence[int] = ()):
        self.box = Interval(low, high, shape)

    def __call__(self, x: ArrayLike) -> jax.Array:
        one_value(self, x, self.box.shape)
        size = math.prod(self.box.shape)
        low, high = self.box.ends(float_dtype())
        return as_float(size * math.log(high - low))

    def _supports(self) -> Mapping[str, Support]:
        return {"x": self.box}

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values:
            return None

        def draw(key: jax.Array) -> Values:
            low, high = self.box.ends(float_dtype())
            return {"x": jax.random.uniform(key, self.box.shape, float_dtype(), low, high)}

        return Exact(draw, as_float(0.0), constant=True)
