"""What the steps of training told."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


class History:
    """Arrays by name, one number a step; where nothing was told, not a number.

    Room is made as it is needed, twice as much each time.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._room = 1024

    def write(self, start: int, values: Mapping[str, Any]) -> None:
        """Put down what the steps from `start` on told."""
        for name, new in values.items():
            new = np.asarray(new)
            stop = start + len(new)
            if stop > self._room:
                self._room = 2 * stop
            if name not in self._arrays:
                self._arrays[name] = _empty(self._room, new.dtype)
            if len(self._arrays[name]) < self._room:
                self._arrays = {n: _widened(old, self._room) for n, old in self._arrays.items()}
            self._arrays[name][start:stop] = new

    def until(self, step: int) -> dict[str, np.ndarray]:
        """The numbers of the steps before `step`: views, not copies."""
        return {name: values[:step] for name, values in self._arrays.items()}


def _empty(room: int, dtype: np.dtype) -> np.ndarray:
    return np.full(room, np.nan if jnp.issubdtype(dtype, jnp.floating) else 0, dtype)


def _widened(old: np.ndarray, room: int) -> np.ndarray:
    new = _empty(room, old.dtype)
    new[: len(old)] = old
    return new
