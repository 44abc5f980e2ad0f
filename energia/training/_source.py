"""Where the batches of `fit` come from: rows in memory, or a stream."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import check_count
from energia.energies._energy import Energy
from energia.objectives._objective import Objective, support_shapes
from energia.training import _loop
from energia.training._data import Rows, check_datum, check_variables, rows_of

STREAM_STEPS = 16


class Stream:
    """Batches from an iterable, checked as they come; begun again where it can be."""

    def __init__(self, batches: Iterable[Any], check: Callable[[Any, str], Rows]):
        self.batches, self.check = batches, check
        self.count = 0
        self._iterator = iter(batches)
        self._kind: dict[str, str] | None = None

    def _next(self) -> Any:
        self.count += 1
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.batches)
            return next(self._iterator)  # a generator is spent: this ends the stream

    def skip(self, count: int) -> None:
        """Leave out batches that a resumed run has already seen."""
        with contextlib.suppress(StopIteration):
            for _ in range(count):
                self._next()

    def take(self, count: int) -> list[Rows]:
        """Up to `count` batches."""
        taken: list[Rows] = []
        with contextlib.suppress(StopIteration):
            while len(taken) < count:
                batch = self._next()
                taken.append(self._checked(batch))
        return taken

    def _checked(self, batch: Any) -> Rows:
        what = f"batch {self.count - 1} of the data"
        rows = self.check(batch, what)
        kind = {name: f"{array.dtype}{list(array.shape)}" for name, array in rows.items()}
        self._kind = self._kind or kind
        if kind != self._kind:
            raise ValueError(
                f"{what} holds {kind}, the first held {self._kind}: every batch needs the same "
                "names, shapes and dtypes"
            )
        return rows


class Source:
    """Data as `fit` was given it, checked."""

    def __init__(
        self,
        model: Energy,
        objective: Objective,
        data: Any,
        batch_size: int | None,
        augment: Callable[..., Any] | None,
    ):
        in_memory = isinstance(data, Mapping) or hasattr(data, "__array__")
        if not in_memory and not isinstance(data, Iterable):
            raise TypeError(
                "data must be an array, a dict of arrays by variable name, or an iterable of "
                f"batches, got {type(data).__name__}"
            )
        numbers = isinstance(data, list | tuple) and len(data) > 0 and _is_number(data[0])
        check = functools.partial(rows_of, model, given=objective.given, raw=augment is not None)
        self.stream: Stream | None = None
        self.waiting: list[Rows] = []
        if in_memory or numbers:
            first = check(data, "the data")
        else:
            self.stream = Stream(data, check)
            self.waiting = self.stream.take(1)
            if not self.waiting:
                raise ValueError("the data is an iterable without any batch")
            first = self.waiting[0]
        datum: Any = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in first.items()}
        if augment is None:
            check_variables(model, objective, first)
        else:
            datum = eqx.filter_eval_shape(augment, datum, jax.random.key(0))
            check_datum(model, objective, datum)
        self.datum: dict[str, jax.ShapeDtypeStruct] = datum
        if not objective.supplies(model):  # then a datum and what is latent are all that it takes
            whole = datum | support_shapes(model, objective.latent(model, datum))
            eqx.filter_eval_shape(lambda energy, values: energy._scalar_at(values), model, whole)
        count = len(next(iter(first.values())))
        if batch_size is None or self.stream is not None:
            batch_size = count if self.stream is not None else min(128, count)
        self.batch_size = check_count(batch_size, "batch_size", 1)
        if self.batch_size > count:
            raise ValueError(f"batch_size= is {self.batch_size}, the data has {count} rows")
        # the whole data, or the first batch of a stream, on the device
        self.first = {name: jnp.asarray(array) for name, array in first.items()}

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What `take` gives, as shapes."""
        lead = () if self.stream is None else (STREAM_STEPS,)
        return {
            name: jax.ShapeDtypeStruct((*lead, *array.shape), array.dtype)
            for name, array in self.first.items()
        }

    def skip(self, steps: int) -> None:
        """Leave out the batches of steps that were done before."""
        if self.stream is not None and steps:
            self.waiting = []
            self.stream.skip(steps - 1)

    def take(self, steps: int) -> tuple[Any, int]:
        """Data for up to `steps` steps, and for how many there is some."""
        if self.stream is None:
            return self.first, min(steps, _loop.CHUNK_STEPS)
        wanted = min(steps, STREAM_STEPS)
        batches = self.waiting + self.stream.take(wanted - len(self.waiting))
        self.waiting = []
        if not batches:
            return None, 0
        padded = batches + [batches[-1]] * (STREAM_STEPS - len(batches))
        stacked = {n: jnp.asarray(np.stack([b[n] for b in padded])) for n in batches[0]}
        return stacked, len(batches)


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, Mapping)
