"""Data for `fit`: checked rows in memory, or a stream of batches."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from energia._types import float_dtype
from energia.energies._energy import Energy
from energia.objectives._objective import Objective

Rows = dict[str, np.ndarray]


def check_variables(energy: Energy, objective: Objective, names: Iterable[str]) -> None:
    """Raise unless data with these names is what the objective needs of the energy.

    Raises:
        ValueError: when a variable is missing, or a name is unknown.
    """
    names = tuple(names)
    supplied = objective.supplies(energy)
    variables = energy.variables
    if unknown := [name for name in names if name not in variables]:
        raise ValueError(
            f"the data has {unknown}; the variables of {energy._formula()} are {variables}"
        )
    if unknown := [name for name in objective.given if name not in variables]:
        raise ValueError(f"given={unknown} names no variable of {energy._formula()}: {variables}")
    if doubled := [name for name in names if name in supplied]:
        raise ValueError(f"the data has {doubled}, which {type(objective).__name__} makes itself")
    if missing := [name for name in variables if name not in (*names, *supplied)]:
        raise ValueError(
            f"the data lacks {missing} of {energy._formula()}: add it, fix it with "
            f".condition({missing[0]}=...), or sum it out with .marginalize({missing[0]!r})"
        )
    if not objective.modelled(energy):
        raise ValueError("every variable is given: there is nothing left to model")


def rows_of(energy: Energy, data: Any, what: str = "the data") -> Rows:
    """Data as a dict of arrays with one leading axis over rows, in the dtypes of the supports.

    Raises:
        TypeError, ValueError: for another number of rows, another shape, or values that are not
            finite.
    """
    if not isinstance(data, Mapping):
        data = {energy.variables[0]: data}
    supports = energy.supports
    rows: Rows = {}
    for name, value in data.items():
        array = np.asarray(value)
        if array.dtype == object or array.dtype.kind not in "fiub" and not _is_bfloat(array):
            raise TypeError(f"{what} for {name!r} must hold real numbers, got {array.dtype}")
        support = supports.get(name)
        if array.ndim == 0:
            raise ValueError(f"{what} for {name!r} needs a leading axis over rows, got a scalar")
        if support is not None and array.shape[1:] != support.shape:
            raise ValueError(
                f"{what} for {name!r} must have shape (rows, {', '.join(map(str, support.shape))})"
                f" for {support}, got {array.shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(array)))
            count = int(np.sum(~np.isfinite(array)))
            raise ValueError(
                f"{what} for {name!r} has {count} values that are not finite, the first "
                f"{array[where]} at index {where}: drop or impute them"
            )
        if support is not None and support.discrete:
            inside = np.asarray(support.contains(jnp.asarray(array)))
            if not inside.all():
                where = tuple(int(i[0]) for i in np.nonzero(~inside))
                raise ValueError(
                    f"{what} for {name!r} holds {array[where]} at index {where}, "
                    f"outside its support {support}"
                )
        rows[name] = array.astype(_dtype(array, support))
    if not rows:
        raise ValueError(f"{what} is empty: give an array, or a dict of arrays by variable name")
    counts = {name: len(array) for name, array in rows.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{what} must have as many rows for each variable, got {counts}")
    if min(counts.values()) == 0:
        raise ValueError(f"{what} has no rows")
    return rows


def _is_bfloat(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _dtype(array: np.ndarray, support: Any) -> np.dtype:
    if support is not None:
        return support.dtype
    return float_dtype() if array.dtype.kind == "f" else np.dtype(np.int32)


class Stream:
    """Batches from an iterable, checked as they come; begun again where it can be."""

    def __init__(self, energy: Energy, batches: Iterable[Any]):
        self.energy, self.batches = energy, batches
        self.count = 0
        self._iterator = iter(batches)
        self._shape: dict[str, tuple[int, ...]] | None = None

    def skip(self, count: int) -> None:
        """Leave out batches that a resumed run has already seen."""
        for _ in range(count):
            next(self)

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.batches)
            batch = next(self._iterator)  # a generator is spent: this ends the stream
        rows = rows_of(self.energy, batch, f"batch {self.count} of the data")
        shape = {name: array.shape for name, array in rows.items()}
        self._shape = self._shape or shape
        if shape != self._shape:
            raise ValueError(
                f"batch {self.count} of the data has shapes {shape}, the first had {self._shape}: "
                "every batch needs the same shapes"
            )
        self.count += 1
        return rows

    def take(self, count: int) -> list[Rows]:
        """Up to `count` batches."""
        taken = []
        for batch in self:
            taken.append(batch)
            if len(taken) == count:
                break
        return taken
