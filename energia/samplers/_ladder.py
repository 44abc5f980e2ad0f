"""The ladder of a tempered sampler: its levels, a kernel for each, and how warm-up tunes them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, as_float
from energia.energies._energy import Energy
from energia.energies._fitted import Fitted, Summary
from energia.paths import geometric
from energia.samplers._adaptation import MAX_WINDOWS
from energia.samplers._sampler import Kernel, Starts

FIRST_ROUND = 16  # steps
FIRST_FIT = 0.2  # of warm-up, before which the reference stays as wide as it began
START_SCALE = 2.0  # standard deviation, beside that of the starting points
START_POWER = 4.0  # of evenly spaced numbers: levels begin close to the reference
LEAST_REJECTION = 1e-4  # keeps the barrier increasing, so that it can be inverted


class Ladder(eqx.Module):
    """What warm-up finds.

    Args:
        levels: values of the path's variable from the reference to the target, shape (n,).
        kernels: the kernel of each level that is moved: what tuning fills has a leading axis.
        fitted: the reference, where it is fitted.
        prior: the terms of the energy that are the reference, where it is a prior.
    """

    levels: jax.Array
    kernels: Kernel
    fitted: Fitted | None
    prior: tuple[int, ...] | None = eqx.field(static=True)


class Tuning(eqx.Module):
    """State of warm-up: the kernels' own, and averages over the round so far."""

    kernels: Any
    rejections: Any
    summary: Summary | None
    count: Any
    trips: Any
    ends: Any
    fits: Any


def rounds(num_warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """The last step of each round, and of those after which the reference is fitted; padded.

    Rounds double in length; the last one ends 50 steps, or a third, before warm-up does.
    """
    stop = num_warmup - min(50, num_warmup // 3)
    ends, begin, length = [], 0, FIRST_ROUND
    while begin + 2 * length <= stop:
        begin, length = begin + length, 2 * length
        ends.append(begin - 1)
    ends.append(stop - 1)
    fits = [end for end in ends if end >= FIRST_FIT * stop]
    padded = [[*steps, *[-1] * (MAX_WINDOWS - len(steps))] for steps in (ends, fits)]
    return np.asarray(padded[0], np.int32), np.asarray(padded[1], np.int32)


def unit_reference(kernel: Kernel, energy: Energy) -> Fitted:
    """What is fitted: no correlations where they would take away what the kernel draws from.

    Gibbs needs entries that are independent given the others, at every level of a path.
    """
    unit = Fitted.unit(energy)
    try:
        kernel.check(geometric(unit, energy, levels=2)(0.5), energy.variables)
    except TypeError:
        return unit.uncorrelated()
    return unit


def wide_reference(unit: Fitted, positions: Starts) -> Fitted:
    """A reference round starting points, wider than they are: to find what there is."""
    values = {name: jnp.asarray(value) for name, value in positions.items()}
    summary = unit.summary(values)
    count = len(next(iter(values.values())))
    dense = unit.factor.ndim == 2
    variance = jnp.diagonal(summary.covariance) if dense else summary.covariance
    scale = jnp.sqrt(START_SCALE**2 + variance * count / max(count - 1, 1))
    factor = jnp.diag(scale) if dense else scale
    return Fitted(unit.declared, summary.mean, factor, unit.log_odds)


def first_levels(count: int) -> np.ndarray:
    """Levels to begin with."""
    return np.linspace(0, 1, count) ** START_POWER


def respaced(levels: jax.Array, rejections: jax.Array) -> jax.Array:
    r"""Levels between which swaps are rejected equally often, as far as these rejections tell.

    The barrier $\Lambda(\beta)$ is the sum of the rejections up to a level, interpolated in
    between; the new levels divide it into equal steps.

    Args:
        levels: shape (n,), increasing or decreasing; the ends stay.
        rejections: mean rejection of the swaps between neighbours, shape (n - 1,).
    """
    steps = jnp.clip(rejections, LEAST_REJECTION, 1)
    barrier = jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])
    equal = jnp.linspace(0, 1, len(levels), dtype=steps.dtype) * barrier[-1]
    new = jnp.interp(equal, barrier, levels)
    return new.at[0].set(levels[0]).at[-1].set(levels[-1])


def start_tuning(kernels: Any, num_levels: int, summary: Summary | None, num_warmup: int) -> Tuning:
    """Before the first step."""
    ends, fits = rounds(num_warmup)
    return Tuning(
        kernels,
        as_float(np.zeros(num_levels - 1)),
        None if summary is None else jax.tree.map(jnp.zeros_like, summary),
        as_float(np.zeros(())),
        as_float(np.zeros(())),
        as_array(ends),
        as_array(fits),
    )


def end_step(
    tuning: Tuning,
    ladder: Ladder,
    rejections: jax.Array,
    trips: jax.Array,
    summary: Summary | None,
    step: jax.Array,
) -> tuple[Ladder, Tuning]:
    """After a step: at the end of a round levels are spaced, and the reference is fitted, anew.

    Args:
        tuning: its averages are without this step.
        ladder: as it was in this step.
        rejections: of this step, averaged over chains, shape (n - 1,).
        trips: round trips so far, of all chains.
        summary: of the target's positions in this step, over chains.
        step: its number.
    """
    count = tuning.count + 1
    mean = tuning.rejections + (rejections - tuning.rejections) / count
    draws = tuning.summary
    if draws is not None and summary is not None:
        draws = draws.merge(summary, 1 / count)

    def anew() -> Any:
        fitted, arrived = ladder.fitted, trips - tuning.trips  # what came from the reference
        if fitted is not None and draws is not None:
            # odds stay even: fitted ones keep modes that differ in many entries out of its reach
            new = dataclasses.replace(fitted.fit(draws, count, arrived), log_odds=fitted.log_odds)
            fits = jnp.any(step == tuning.fits)
            fitted = jax.tree.map(lambda new, old: jnp.where(fits, new, old), new, fitted)
        return respaced(ladder.levels, mean), fitted, jnp.zeros_like(count), trips

    levels, fitted, count, trips = jax.lax.cond(
        jnp.any(step == tuning.ends),
        anew,
        lambda: (ladder.levels, ladder.fitted, count, tuning.trips),
    )
    ladder = Ladder(levels, ladder.kernels, fitted, ladder.prior)
    return ladder, Tuning(tuning.kernels, mean, draws, count, trips, tuning.ends, tuning.fits)


# --- a kernel with rows


def stacked(kernel: Kernel, given: Kernel, count: int) -> Kernel:
    """A tuned kernel with so many rows of what is not given."""
    rows, rebuild = rows_of(kernel, given)
    return rebuild([as_array(np.broadcast_to(row, (count, *row.shape))) for row in rows])


def rows_of(kernel: Kernel, given: Kernel) -> tuple[list[Any], Callable[[Sequence[Any]], Kernel]]:
    """The arrays of a kernel that stand for what was not given, and how to put others there.

    What is given is the same at all levels, and not mapped over: a loop whose length is one number
    for all is a shorter program.
    """
    fixed = {path for path, _ in jax.tree_util.tree_leaves_with_path(given)}
    leaves, structure = jax.tree_util.tree_flatten_with_path(kernel)
    tuned = [path not in fixed and eqx.is_array(leaf) for path, leaf in leaves]

    def rebuild(rows: Sequence[Any]) -> Kernel:
        remaining = iter(rows)
        values = [
            next(remaining) if row else leaf for row, (_, leaf) in zip(tuned, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, values)

    return [leaf for row, (_, leaf) in zip(tuned, leaves, strict=True) if row], rebuild


def over_rows(tree: Any, count: int) -> Any:
    """A tree whose arrays have one row a level, all the same."""

    def broadcast(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        return as_array(np.broadcast_to(np.asarray(leaf), (count, *leaf.shape)))

    return jax.tree.map(broadcast, tree)
