"""Rows of data, checked against an energy, and functions of a row over all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import as_array, as_float
from energia.energies._checks import checked
from energia.energies._energy import Energy
from energia.supports import Support

BLOCK = 256  # rows that are evaluated side by side


def rows_of(energy: Energy, data: Any, *, unknown: bool = False) -> dict[str, jax.Array]:
    """Data by variable name, checked against their supports.

    An array stands for the first variable. A support may be unknown only where the caller says so.
    """
    given = data if isinstance(data, Mapping) else {energy.variables[0]: data}
    if foreign := [name for name in given if name not in energy.variables]:
        raise ValueError(
            f"data has {foreign}; the variables of {energy._formula()} are {energy.variables}"
        )
    rows = {name: _checked(name, given[name], energy.supports[name], unknown) for name in given}
    counts = {name: len(array) for name, array in rows.items()}
    if len(set(counts.values())) != 1 or min(counts.values()) == 0:
        raise ValueError(f"data needs as many rows for each variable, at least 1; got {counts}")
    return rows


def _checked(name: str, value: Any, support: Support | None, unknown: bool) -> jax.Array:
    what = f"data for {name!r}"
    array = as_array(value, what)
    if support is None and not unknown:
        raise ValueError(
            f"the support of {name!r} is unknown: say which values it takes, "
            f".constrain({name}=en.Real((...,))) or the like"
        )
    if array.ndim == 0 or (support is not None and array.shape[1:] != support.shape):
        shape = ("...",) if support is None else support.shape
        wanted = ", ".join(["rows", *map(str, shape)])
        of = "" if support is None else f" for {support}"
        raise ValueError(f"{what} must have shape ({wanted}){of}, got {array.shape}")
    return array if support is None else checked(array, support, what)


def two_samples(samples: Any, data: Any, name: str) -> tuple[jax.Array, jax.Array]:
    """Rows of two samples to compare, flattened; both finite, of one shape, at least 2 of each."""
    x, y = as_float(samples, "samples"), as_float(data, "data")
    for array, what in ((x, "samples"), (y, "data")):
        if array.ndim == 0 or len(array) < 2:
            raise ValueError(f"{name}() needs at least 2 rows of {what}, got shape {array.shape}")
        if not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{what} has values that are not finite")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{name}() compares rows of one shape, got samples {x.shape[1:]} and data {y.shape[1:]}"
        )
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def over_rows(function: Callable[..., Any], model: Any, rows: Any) -> Any:
    """`function(model, row)` for each row of a pytree of arrays, as NumPy arrays.

    Blocks of one size, the last of them filled up, so that another number of rows compiles nothing.
    """
    leaves, structure = jax.tree.flatten(rows)
    arrays = [np.asarray(leaf) for leaf in leaves]
    count = len(arrays[0])
    size = min(BLOCK, 2 ** (count - 1).bit_length())
    blocks = []
    for begin in range(0, count, size):
        picked = np.minimum(np.arange(begin, begin + size), count - 1)
        block = jax.tree.unflatten(structure, [array[picked] for array in arrays])
        blocks.append(_block(function, model, block))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)


@eqx.filter_jit
def _block(function: Callable[..., Any], model: Any, rows: Any) -> Any:
    return jax.vmap(lambda row: function(model, row))(rows)
