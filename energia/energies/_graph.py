"""Graphs of pairwise models: lattices, and lists of edges."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, as_shape
from energia.energies._trainable import constant


class Graph(eqx.Module):
    """Which entries of an array are neighbours: those of a lattice, or those joined by edges."""

    shape: tuple[int, ...] = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    colours: tuple[int, ...] = eqx.field(static=True)
    """A number for each entry of the flattened array, another one for neighbours."""
    edges: jax.Array | None = constant()

    def __init__(self, shape: int | Sequence[int], periodic: bool, edges: Any):
        self.shape, self.periodic = as_shape(shape), bool(periodic)
        self.edges = None
        if edges is None:
            self.colours = _lattice_colours(self.shape, self.periodic)
            return
        pairs = _checked(edges, math.prod(self.shape))
        self.edges = as_array(pairs)
        self.colours = _greedy_colours(pairs, math.prod(self.shape))

    def neighbours(self, x: jax.Array, coupling: jax.Array) -> jax.Array:
        """At each entry the sum of its neighbours times their couplings; further axes may follow.

        The coupling is one number, or where there are edges one for each.
        """
        if self.edges is None:
            sums = (self._along(x, axis) for axis, side in enumerate(self.shape) if side > 1)
            return coupling * sum(sums, start=jnp.zeros_like(x))
        size = math.prod(self.shape)
        flat = x.reshape(size, -1)
        first, second = self.edges.T
        weight = jnp.broadcast_to(coupling, first.shape)[:, None]
        total = jnp.zeros_like(flat).at[first].add(weight * flat[second])
        return total.at[second].add(weight * flat[first]).reshape(x.shape)

    def _along(self, x: jax.Array, axis: int) -> jax.Array:
        if self.periodic:
            return jnp.roll(x, 1, axis) + jnp.roll(x, -1, axis)
        edge = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        before = jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)
        after = jax.lax.slice_in_dim(x, 1, None, axis=axis)
        shifted = (edge, before), (after, edge)
        return sum((jnp.concatenate(pair, axis) for pair in shifted), start=jnp.zeros_like(x))


def _lattice_colours(shape: tuple[int, ...], periodic: bool) -> tuple[int, ...]:
    """A chequerboard; where a periodic side is odd, with a third colour."""
    count, total = 2, np.zeros(shape, int)
    for axis, side in enumerate(shape):
        numbers = np.arange(side) % 2
        if periodic and side % 2 and side > 1:
            numbers[-1], count = 2, 3
        total += numbers.reshape(-1, *[1] * (len(shape) - axis - 1))
    return tuple((total % count).ravel().tolist())


def _checked(edges: Any, size: int) -> np.ndarray:
    pairs = np.asarray(edges)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            "edges= must be pairs of positions in the flattened variable, integers of shape (m, 2);"
            f" got shape {pairs.shape} and dtype {pairs.dtype}"
        )
    if pairs.size and (pairs.min() < 0 or pairs.max() >= size):
        wrong = pairs[(pairs < 0) | (pairs >= size)][0]
        raise ValueError(f"edges= must hold positions from 0 to {size - 1}, got {wrong}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        loop = int(pairs[pairs[:, 0] == pairs[:, 1]][0, 0])
        raise ValueError(f"edges= joins {loop} to itself: use field= for what acts on one entry")
    return pairs.astype(np.int32)


def _greedy_colours(pairs: np.ndarray, size: int) -> tuple[int, ...]:
    """The smallest colour that no earlier neighbour has, entry by entry."""
    around: list[list[int]] = [[] for _ in range(size)]
    for first, second in pairs.tolist():
        around[max(first, second)].append(min(first, second))
    colours: list[int] = []
    for earlier in around:
        taken = {colours[other] for other in earlier}
        colours.append(next(c for c in range(size) if c not in taken))
    return tuple(colours)
