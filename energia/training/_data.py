"""Checks of data for `fit`."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import float_dtype
from energia.energies._checks import check_all, check_inside, check_rows
from energia.energies._energy import Energy
from energia.objectives._objective import Objective
from energia.supports import Support

Rows = dict[str, np.ndarray]


def check_variables(
    energy: Energy, objective: Objective, names: Iterable[str], what: str = "the data"
) -> None:
    """Raise unless data with these names is what the objective needs of the energy.

    What it lacks is latent, and needs a support.

    Raises:
        ValueError: when a variable is missing, or a name is unknown.
    """
    names = tuple(names)
    supplied = objective.supplies(energy)
    variables = energy.variables
    if unknown := [name for name in names if name not in variables]:
        raise ValueError(
            f"{what} has {unknown}; the variables of {energy._formula()} are {variables}"
        )
    if unknown := [name for name in objective.given if name not in variables]:
        raise ValueError(f"given={unknown} names no variable of {energy._formula()}: {variables}")
    if doubled := [name for name in names if name in supplied]:
        raise ValueError(f"{what} has {doubled}, which {type(objective).__name__} makes itself")
    if missing := [name for name in objective.given if name not in names]:
        raise ValueError(f"{what} lacks {missing}, which given= conditions on: add it")
    supports = energy.supports
    if missing := [name for name in objective.latent(energy, names) if supports[name] is None]:
        raise ValueError(
            f"{what} lacks {missing} of {energy._formula()}: add it, fix it with "
            f".condition({missing[0]}=...), or, where it is latent, say which values it takes: "
            f".constrain({missing[0]}=en.Binary(...)) or the like"
        )
    if not objective.modelled(energy, names):
        raise ValueError("every variable is given: there is nothing left to model")


def check_datum(energy: Energy, objective: Objective, datum: Any) -> None:
    """Raise unless what `augment` gives, as shapes, is a datum of the energy."""
    if not isinstance(datum, Mapping):
        raise TypeError(f"augment(datum, key) must return a dict by variable name, got {datum!r}")
    check_variables(energy, objective, datum, "what augment() gives")
    for name, value in datum.items():
        support, dtype = energy.supports[name], jnp.dtype(value.dtype)
        if support is not None and value.shape != support.shape:
            raise ValueError(
                f"augment() gives {name!r} the shape {value.shape}, {support} was expected"
            )
        wanted = support.dtype if support is not None else float_dtype()
        known = support is not None or name not in objective.given
        if known and _is_float(dtype) != _is_float(wanted):
            raise TypeError(f"augment() gives {name!r} the dtype {dtype}, {wanted} was expected")


def rows_of(
    energy: Energy,
    data: Any,
    what: str = "the data",
    *,
    given: tuple[str, ...] = (),
    raw: bool = False,
) -> Rows:
    """Data as a dict of arrays with one leading axis over rows, in the dtypes of the supports.

    Of unknown support, variables are real, and those of `given` what they are. `raw` data, which an
    augmentation will turn into the energy's variables, may have any shape and dtype.

    Raises:
        TypeError, ValueError: for another number of rows, another shape, or values that are not
            finite or outside their support.
    """
    if not isinstance(data, Mapping):
        data = {energy.variables[0]: data}
    supports = {} if raw else energy.supports
    rows: Rows = {}
    for name, value in data.items():
        array, label = np.asarray(value), f"{what} for {name!r}"
        support = supports.get(name)
        if array.dtype.kind not in "iub" and not _is_float(array.dtype):
            raise TypeError(f"{label} must hold real numbers, got {array.dtype}")
        if array.ndim == 0:
            raise ValueError(f"{label} needs a leading axis over rows, got a scalar")
        if support is not None and array.shape[1:] != support.shape:
            shape = ", ".join(["rows", *map(str, support.shape)])
            raise ValueError(f"{label} must have shape ({shape}) for {support}, got {array.shape}")
        as_they_are = raw or (support is None and name in given)
        rows[name] = cast = _cast(array, label, support, as_they_are)
        if _is_float(cast.dtype):
            check_all(np.isfinite(cast), array, label, "not finite: drop or impute them")
        if support is not None and not support.functional:
            # whole numbers are looked for before the cast, which would make them
            numbers = array if support.discrete else cast
            check_inside(numbers, support, label)
    if not rows:
        raise ValueError(f"{what} is empty: give an array, or a dict of arrays by variable name")
    counts = {name: len(array) for name, array in rows.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{what} must have as many rows for each variable, got {counts}")
    if min(counts.values()) == 0:
        raise ValueError(f"{what} has no rows")
    for name in rows:
        support = supports.get(name)
        if support is not None and support.functional and set(support.depends) <= set(rows):
            check_rows(energy, name, rows, f"{what} for {name!r}")
    return rows


def _cast(array: np.ndarray, label: str, support: Support | None, as_they_are: bool) -> np.ndarray:
    if support is not None:
        dtype = support.dtype
    elif as_they_are and not _is_float(array.dtype):
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        limits = jnp.iinfo(dtype) if array.dtype.kind in "iu" else None
        if limits and (array.size and not limits.min <= array.min() <= array.max() <= limits.max):
            raise OverflowError(f"{label} holds integers that do not fit {dtype}: make them floats")
    else:
        dtype = float_dtype()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return array.astype(dtype)


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))
