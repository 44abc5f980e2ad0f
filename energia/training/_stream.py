"""Batches that come one after another: from an iterable, or from files larger than memory."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from energia.training._data import Rows
from energia.training._loop import epoch_order

SAMPLE_BYTES = 2**28


class Stream:
    """Batches, checked as they come.

    An error of theirs is kept until the batches before it are used up, so that no step is lost.
    """

    def __init__(self, batches: Iterator[Any], check: Callable[[Any, str], Rows], step: int = 0):
        self._batches, self._check, self._step = batches, check, step
        self._waiting: list[Rows] = []
        self._kind: dict[str, str] | None = None
        self._error: Exception | None = None

    def skip(self, count: int) -> None:
        """Leave out the batches before this one, which a resumed run has already seen."""
        del self._waiting[: max(count - (self._step - len(self._waiting)), 0)]
        for _ in itertools.islice(self._batches, max(count - self._step, 0)):
            self._step += 1

    def fetch(self, count: int) -> None:
        """Read until so many batches are waiting, or none comes any more."""
        while len(self._waiting) < count and self._error is None:
            try:
                batch = next(self._batches)
                self._waiting.append(self._checked(batch, f"batch {self._step} of the data"))
                self._step += 1
            except StopIteration:
                return
            except Exception as error:
                self._error = error

    def first(self) -> Rows:
        """The first batch, which stays to be taken.

        Raises:
            ValueError: when there is none.
        """
        self.fetch(1)
        if self._error is not None:
            raise self._error
        if not self._waiting:
            raise ValueError("the data is an iterable without any batch")
        return self._waiting[0]

    def take(self, count: int) -> list[Rows]:
        """Up to so many batches; none where the stream has ended.

        Raises:
            Exception: what reading the next batch raised.
        """
        self.fetch(count)
        if not self._waiting and self._error is not None:
            raise self._error
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _checked(self, batch: Any, what: str) -> Rows:
        rows = self._check(batch, what)
        kind = {name: f"{array.dtype}{list(array.shape)}" for name, array in rows.items()}
        self._kind = self._kind or kind
        if kind != self._kind:
            raise ValueError(
                f"{what} holds {kind}, the first held {self._kind}: every batch needs the same "
                "names, shapes and dtypes"
            )
        return rows


def repeated(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches from an iterable, begun again where it can be: a generator is spent."""
    some = True
    while some:
        some = False
        for batch in batches:
            some = True
            yield batch


def mapped(rows: Rows, batch_size: int, key: jax.Array, step: int) -> Iterator[Rows]:
    """Batches of memory-mapped rows: those that the compiled loop draws from rows in memory."""
    count = len(next(iter(rows.values())))
    steps = count // batch_size
    epoch, position = divmod(step, steps)
    while True:
        order = np.asarray(epoch_order(key, np.int32(epoch), count))
        for start in range(position * batch_size, steps * batch_size, batch_size):
            picked = order[start : start + batch_size]
            yield {name: array[picked] for name, array in rows.items()}
        epoch, position = epoch + 1, 0


def sample(rows: Rows) -> Rows:
    """Rows at equal distances, all of them if they are few: what training begins with."""
    count = len(next(iter(rows.values())))
    size = sum(array.nbytes for array in rows.values())
    kept = count if size <= SAMPLE_BYTES else max(count * SAMPLE_BYTES // size, 1)
    picked = np.linspace(0, count - 1, kept).astype(int)
    return {name: array[picked] for name, array in rows.items()}
