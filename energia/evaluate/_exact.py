"""log Z with no chance in it: known normalisers, sums over states, quadrature."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energia._types import as_array, float_dtype
from energia.energies._elimination import LARGEST, evaluate, plan
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.evaluate._estimate import LogPartition
from energia.supports import Continuous

POINTS = 2**12  # whose energies are held at once
EDGE = 3.0  # of the grid: entries up to 3·10⁶ in unconstrained space
FINEST = {1: 16, 2: 12}  # powers of two: intervals along each axis
TOLERANCE = 2e-5
FAR = 0.1  # of the integral, that the last unit of the grid may hold


class Impossible(ValueError):
    """No way to log Z without chance is known."""


def exact(energy: Energy) -> LogPartition:
    """The normaliser by whichever way is known: see `log_partition`.

    Raises:
        Impossible: when there is none.
        ValueError: when the answer is not finite.
    """
    known = _known(energy)
    if known is not None:
        return _certain(float(known), "exact")
    supports = energy.supports
    continuous = [n for n, s in supports.items() if isinstance(s, Continuous)]
    try:
        plan(energy, energy.variables, {})
    except ValueError as error:
        spaces = [s.unconstrained_shape for s in supports.values() if isinstance(s, Continuous)]
        size = sum(map(math.prod, spaces))
        if not continuous:
            raise Impossible(_impossible(energy, f"more than {LARGEST:,} states")) from error
        if size > max(FINEST):
            raise Impossible(
                _impossible(energy, f"{size} continuous entries, more than {max(FINEST)}")
            ) from error
        return _quadrature(Unconstrained(_without(energy, continuous)), size)
    return _certain(float(_summed(energy)), "exact")


def _without(energy: Energy, continuous: list[str]) -> Energy:
    """The energy of the continuous variables alone."""
    finite = [name for name in energy.variables if name not in continuous]
    try:
        return energy.marginalize(*finite) if finite else energy
    except ValueError as error:
        raise Impossible(_impossible(energy, "too many states beside them")) from error


def _impossible(energy: Energy, why: str) -> str:
    return (
        f"log_partition(method='exact') knows no way for {energy._formula()}: no closed form, and "
        f"{why}. Use 'ais', or 'bracket' for both sides"
    )


def _certain(value: float, method: str) -> LogPartition:
    if not math.isfinite(value):
        raise ValueError(f"log Z is {value}: exp(-E) cannot be integrated, or the energy is NaN")
    return LogPartition(value, 0.0, value, value, None, method)


@eqx.filter_jit
def _known(energy: Energy) -> jax.Array | None:
    whole = energy._exact({})
    return None if whole is None else whole.log_partition


@eqx.filter_jit
def _summed(energy: Energy) -> jax.Array:
    return -evaluate(plan(energy, energy.variables, {}), {})


# --- quadrature


def _quadrature(target: Unconstrained, size: int) -> LogPartition:
    """The trapezoidal rule after a double-exponential map, halved until it moves no more.

    References:
        Takahasi and Mori (1974), Double exponential formulas for numerical integration.
    """
    before, value, error, cut = None, math.nan, math.inf, -math.inf
    for power in range(5, FINEST[size] + 1):
        value, cut, broken = map(float, _trapezoid(target, as_array(np.int32(2**power + 1))))
        if broken:
            raise ValueError(
                f"the energy of {target._formula()} is NaN at {broken:.0f} of the "
                f"{(2**power + 1) ** size} points of the grid"
            )
        if before is not None:
            error, last = abs(value - before), error
            if error < TOLERANCE and last < 100 * TOLERANCE:
                break
        before = value
    far = math.exp(min(cut - value, 0.0))
    error += far
    if not math.isfinite(value):
        raise ValueError(f"log Z is {value}: the energy is infinite on the whole grid")
    problems = ()
    if far > FAR:
        problems = (
            "exp(-E) may have no integral: the sum over a grid is largest at its ends, and grows "
            "with it; bound the variables by .constrain, or add an energy that holds them",
        )
        return LogPartition(value, math.inf, value, math.inf, None, "quadrature", problems=problems)
    if error > 1e-3:
        problems = (
            f"quadrature has an error of about {error:.2g}: the density does not vanish far out, "
            "or has features finer than its grid",
        )
    rounding = max(error, 1e-6 * max(abs(value), 1.0))
    return LogPartition(
        value, rounding, value - rounding, value + rounding, None, "quadrature", problems=problems
    )


@eqx.filter_jit
def _trapezoid(target: Unconstrained, count: jax.Array) -> tuple[jax.Array, ...]:
    """The log of the integral by `count` points along each axis, of its outermost points; NaNs."""
    shapes = {n: jnp.zeros(s.shape, s.dtype) for n, s in target.supports.items() if s}
    flat, unravel = ravel_pytree(shapes)
    size, step = flat.size, 2 * EDGE / (count - 1)

    def log_density(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        places = jnp.stack([index // count**axis % count for axis in range(size)])
        t = -EDGE + step * places
        inner = 0.5 * jnp.pi * jnp.sinh(t)
        slope = jnp.log(0.5 * jnp.pi * jnp.cosh(t)) + jnp.logaddexp(inner, -inner) - math.log(2)
        value = -target.at(unravel(jnp.sinh(inner).astype(flat.dtype))) + jnp.sum(slope)
        outermost = jnp.any((places == 0) | (places == count - 1))
        inside = index < count**size
        return jnp.where(inside, value, -jnp.inf), outermost & inside

    def chunk(start: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        total, edge, broken = sums
        values, outermost = jax.vmap(log_density)(start * POINTS + jnp.arange(POINTS))
        broken = broken + jnp.sum(jnp.isnan(values))
        edges = jax.nn.logsumexp(jnp.where(outermost, values, -jnp.inf))
        return (
            jnp.logaddexp(total, jax.nn.logsumexp(values)),
            jnp.logaddexp(edge, edges),
            broken,
        )

    nothing = jnp.asarray(-jnp.inf, float_dtype())
    chunks = (count**size + POINTS - 1) // POINTS
    sums = jax.lax.fori_loop(0, chunks, chunk, (nothing, nothing, jnp.int32(0)))
    volume = size * jnp.log(step)
    return sums[0] + volume, sums[1] + volume - jnp.log(step), sums[2]
