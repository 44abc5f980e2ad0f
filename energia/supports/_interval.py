"""Intervals: bounds that are numbers, arrays, or functions of other variables."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_shape, check_broadcast, parameters_of
from energia.supports._support import AnyArray, Bound, Continuous, Shape, Support, exp

Numbers = tuple[Any, ...]  # nested, with one number for each entry
End = float | Numbers | Bound | jax.Array


@dataclasses.dataclass(frozen=True, init=False)
class Interval(Continuous):
    r"""The open interval $(a, b)$; an entry may also be bounded on one side, or on none.

    Between two bounds $x = a + (b - a)\,\mathrm{sigmoid}(z)$, above one $x = a + e^z$, below one
    $x = b - e^z$. A value that floating-point arithmetic would round onto a bound is kept inside.
    Numbers are finest near 0: a density that is singular at an end other than 0, such as
    Beta(5, 0.2) at 1, has mass beyond the last float32 below it, and wants that end at 0 or x64.

    Args:
        low: lower bound: a number, an array with one for each entry, `-inf` where there is none, or
            a function of other variables, which are its parameters' names. A function's bounds must
            be finite; where another variable is renamed or conditioned on, the function follows.
        high: upper bound, above `low`; likewise.
        shape: shape of one value; by default that of the bounds that are numbers.

    Raises:
        ValueError: when the bounds are not in order, or there is none at all.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> float(en.Interval(-1, 3).constrain(jnp.array(0.0))[0])
        1.0
        >>> en.Interval([0, -1, -jnp.inf], [jnp.inf, 1, 0]).shape
        (3,)
        >>> @en.energy(alpha=en.Interval(0, 1), beta=en.Interval(0, lambda alpha: 1 - alpha))
        ... def stationary(alpha, beta):
        ...     return alpha + beta
        >>> stationary.supports["beta"].depends
        ('alpha',)
    """

    low: End
    high: End
    shape: Shape = ()  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, low: Any, high: Any, shape: int | Sequence[int] | None = None):
        ends = [_end(low, "low"), _end(high, "high")]
        arrays = [end for end in ends if not isinstance(end, Bound)]
        if shape is None:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
        shape = as_shape(shape)
        for name, end in zip(("low", "high"), ends, strict=True):
            if not isinstance(end, Bound):
                check_broadcast(end.shape, shape, f"Interval: {name}=")
        object.__setattr__(self, "low", _frozen(ends[0], shape))
        object.__setattr__(self, "high", _frozen(ends[1], shape))
        object.__setattr__(self, "shape", shape)
        if len(arrays) == 2 and not np.all(arrays[0] < arrays[1]):
            raise ValueError(
                f"Interval needs low < high, got ({np.asarray(low).tolist()}, "
                f"{np.asarray(high).tolist()})"
            )
        lower, upper = self._bounded()
        if not (lower.any() or upper.any()):
            raise ValueError("Interval got no finite bound: use en.Real where there is none")

    @property
    def depends(self) -> tuple[str, ...]:
        ends = (end for end in (self.low, self.high) if isinstance(end, Bound))
        return tuple(dict.fromkeys(name for end in ends for name in end.depends))

    @property
    def functional(self) -> bool:
        return isinstance(self.low, Bound) or isinstance(self.high, Bound)

    @property
    def replaced(self) -> bool:
        return any(isinstance(end, Bound) and end.replaced for end in (self.low, self.high))

    def at(self, values: Mapping[str, Any]) -> Support:
        if not self.functional:
            return self
        return self._with(
            *(end(values) if isinstance(end, Bound) else end for end in (self.low, self.high))
        )

    def renamed(self, names: Mapping[str, tuple[str, ...]]) -> Support:
        return self._with(
            *(
                end.renamed(names) if isinstance(end, Bound) else end
                for end in (self.low, self.high)
            )
        )

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        z, dtype = unconstrained, unconstrained.dtype
        lower, upper = self._bounded()
        low, high = (
            _where(m, end, 0) for m, end in zip((lower, upper), self.ends(dtype), strict=True)
        )
        pieces = []  # where it holds, the value, and the log slope
        if (lower & upper).any():
            # measured from the nearer bound, which keeps the digits where a bound is zero
            width, nearer = _where(lower & upper, high - low, 1), z < 0
            distance = width * jax.nn.sigmoid(jnp.where(nearer, z, -z))
            value = jnp.where(nearer, low + distance, high - distance)
            slope = (
                (np.log(width) if _is_numpy(width) else jnp.log(width))
                - jax.nn.softplus(-z)
                - jax.nn.softplus(z)
            )
            pieces.append((lower & upper, value, slope))
        if (lower & ~upper).any():
            pieces.append((lower & ~upper, low + exp(z), z))
        if (~lower & upper).any():
            pieces.append((~lower & upper, high - exp(z), z))
        if (~lower & ~upper).any():
            pieces.append((~lower & ~upper, z, jnp.zeros_like(z)))
        value, slope = pieces[0][1:]
        for where, other, log_slope in pieces[1:]:
            value = jnp.where(where, other, value)
            slope = jnp.where(where, log_slope, slope)
        inside = (
            _where(lower, _next(low, np.inf), -np.inf),
            _where(upper, _next(high, -np.inf), np.inf),
        )
        value = jnp.clip(value, *inside).astype(dtype)
        return value, jnp.sum(jnp.broadcast_to(slope, self.shape)).astype(dtype)

    def unconstrain(self, value: jax.Array) -> jax.Array:
        lower, upper = self._bounded()
        low, high = self.ends(value.dtype)
        above = jnp.log(jnp.where(lower, value - _where(lower, low, 0), 1))
        below = jnp.log(jnp.where(upper, _where(upper, high, 0) - value, 1))
        bounded = jnp.where(lower & upper, above - below, above + below)
        return jnp.where(lower | upper, bounded, value).astype(value.dtype)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        low, high = self.ends(value.dtype)
        return (value > low) & (value < high)

    def ends(self, dtype: Any) -> tuple[Any, Any]:
        """The bounds as arrays that broadcast to the shape."""
        if self.functional:
            raise ValueError(
                f"the bounds {self} depend on other variables: .at({{...}}) takes their values"
            )
        low, high = (
            np.asarray(end, dtype) if isinstance(end, float | tuple) else jnp.asarray(end, dtype)
            for end in (self.low, self.high)
        )
        return low, high

    def _bounded(self) -> tuple[np.ndarray, np.ndarray]:
        """Entry by entry, whether there is a lower and an upper bound; a function's is one."""
        masks = []
        for end in (self.low, self.high):
            numbers = np.asarray(end if isinstance(end, float | tuple) else 0.0)
            masks.append(np.broadcast_to(np.isfinite(numbers), self.shape))
        return masks[0], masks[1]

    def _with(self, low: Any, high: Any) -> "Interval":
        """A copy with other bounds, unchecked: they may be tracers."""
        copy = object.__new__(Interval)
        for name, value in (("low", low), ("high", high), ("shape", self.shape)):
            object.__setattr__(copy, name, value)
        return copy

    def __str__(self) -> str:
        return f"({_shown(self.low)}, {_shown(self.high)}) {self.shape}"


def _end(end: Any, name: Literal["low", "high"]) -> Any:
    if isinstance(end, Bound):
        return end
    if callable(end):
        parameters = parameters_of(end, f"Interval({name}=...)")
        return Bound(end, parameters, tuple((parameter,) for parameter in parameters))
    try:
        numbers = np.asarray(end, float)
    except (TypeError, ValueError):
        raise TypeError(
            f"Interval: {name}= must be numbers or a function of other variables, got {end!r}"
        ) from None
    wrong = np.inf if name == "low" else -np.inf
    if np.isnan(numbers).any() or (numbers == wrong).any():
        raise ValueError(f"Interval: {name}= must not be {np.nan} or {wrong}, got {end}")
    return numbers


def _frozen(end: Any, shape: Shape) -> float | Numbers | Bound:
    """A bound in a hashable form: one number, or nested tuples with one for each entry."""
    if isinstance(end, Bound):
        return end
    if end.ndim == 0:
        return float(end)

    def nested(numbers: Any) -> Any:
        return tuple(map(nested, numbers)) if isinstance(numbers, list) else numbers

    return nested(np.broadcast_to(end, shape).tolist())


def _where(mask: Any, yes: Any, no: float | int) -> Any:
    """`where`, of numbers through NumPy, which compiles nothing."""
    if mask.all():
        return yes
    return (
        np.where(mask, yes, np.asarray(no, yes.dtype))
        if _is_numpy(yes)
        else jnp.where(mask, yes, no)
    )


def _next(end: Any, towards: float) -> Any:
    """The number next to a bound; XLA takes subnormal ones for zero."""
    tiny = np.asarray(math.copysign(float(jnp.finfo(end.dtype).tiny), towards), end.dtype)
    if _is_numpy(end):
        return np.where(end == 0, tiny, np.nextafter(end, np.asarray(towards, end.dtype)))
    end = jax.lax.stop_gradient(end)  # nextafter has no derivative
    return jnp.where(end == 0, tiny, jnp.nextafter(end, np.asarray(towards, end.dtype)))


def _is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _shown(end: Any) -> str:
    if isinstance(end, tuple):
        few = [f"{number:g}" for number in np.ravel(end)[:4]]
        return f"[{', '.join(few[:3])}{', …' * (len(few) > 3)}]"
    return f"{end:g}" if isinstance(end, float) else str(end)
