"""Where the batches of `fit` come from: rows in memory, or a stream."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._mesh import check_mesh, placed
from energia._types import Values, check_count, float_dtype
from energia.energies._energy import Energy
from energia.objectives._objective import Objective, support_shapes
from energia.training import _loop
from energia.training._data import Rows, check_datum, check_variables, rows_of
from energia.training._stream import Stream, mapped, repeated, sample

STREAM_STEPS = 16


class Source:
    """Data as `fit` was given it, checked."""

    def __init__(
        self,
        model: Energy,
        objective: Objective,
        data: Any,
        batch_size: int | None,
        augment: Callable[..., Any] | None,
        key: jax.Array,
        mesh: Any = None,
    ):
        in_memory = isinstance(data, Mapping) or hasattr(data, "__array__")
        if not in_memory and not isinstance(data, Iterable):
            raise TypeError(
                "data must be an array, a dict of arrays by variable name, or an iterable of "
                f"batches, got {type(data).__name__}"
            )
        numbers = isinstance(data, list | tuple) and len(data) > 0 and _is_number(data[0])
        self._check = functools.partial(
            rows_of, model, given=objective.given, raw=augment is not None
        )
        self.stream: Stream | None = None
        self._key = key
        self._files: dict[str, Any] = {}
        if not (in_memory or numbers):
            self.stream = Stream(repeated(data), self._check)
            first = _first(self.stream, data)
        elif files := _files(model, data):
            first, self._files = self._check(sample(files), "the data"), files
        else:
            first = self._check(data, "the data")
        datum: Any = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in first.items()}
        if augment is None:
            check_variables(model, objective, first)
        else:
            datum = eqx.filter_eval_shape(augment, datum, jax.random.key(0))
            check_datum(model, objective, datum)
        self.datum: dict[str, jax.ShapeDtypeStruct] = datum
        # what the objective supplies aside, all that the energy takes
        self.whole = datum | support_shapes(model, objective.latent(model, datum))
        if not objective.supplies(model):
            eqx.filter_eval_shape(
                lambda energy, values: energy._scalar_at(values), model, self.whole
            )
        count = len(next(iter((self._files or first).values())))
        if batch_size is None or self.stream is not None:
            batch_size = count if self.stream is not None else min(128, count)
        self.batch_size = check_count(batch_size, "batch_size", 1)
        if self.batch_size > count:
            raise ValueError(f"batch_size= is {self.batch_size}, the data has {count} rows")
        said = "batch_size=" if self.stream is None else "a batch length of "
        self.mesh = check_mesh(mesh, self.batch_size, f"{said}{self.batch_size}")
        # on the device: the whole data, rows of what is in files, or the first batch of a stream
        self.first = self._placed(first)
        self.skip(0)

    def held_out(self, data: Any) -> Values:
        """Held-out rows like those of the data, on the device.

        Raises:
            TypeError, ValueError: when they are of another kind.
        """
        rows = self._check(data, "validation=")
        kinds = [{n: (a.dtype, a.shape[1:]) for n, a in d.items()} for d in (rows, self.first)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"validation= holds {_text(rows)}, the data {_text(self.first)}")
        return self._placed(rows)

    def _placed(self, rows: Rows) -> Values:
        return placed({name: jnp.asarray(array) for name, array in rows.items()}, self.mesh)

    @property
    def known(self) -> Values | None:
        """What tells this data from others: of a stream nothing, it may come in another order."""
        return self.first if self.stream is None or self._files else None

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What `take` gives, as shapes."""
        if self.stream is None:
            lead: tuple[int, ...] = ()
            rows = {name: array.shape for name, array in self.first.items()}
        else:
            rows = {n: (self.batch_size, *array.shape[1:]) for n, array in self.first.items()}
            lead = (STREAM_STEPS,)
        return {
            name: jax.ShapeDtypeStruct((*lead, *shape), self.first[name].dtype)
            for name, shape in rows.items()
        }

    def skip(self, steps: int) -> None:
        """Leave out the batches of steps that were done before."""
        if self._files:
            batches = mapped(self._files, self.batch_size, self._key, steps)
            self.stream = Stream(batches, self._check, steps)
        elif self.stream is not None:
            self.stream.skip(steps)

    @contextlib.contextmanager
    def reading(self, steps: int) -> Iterator[None]:
        """Read ahead for so many steps in a thread, while the device computes."""
        if self.stream is None or steps == 0:
            yield
            return
        stream, wide = self.stream, float_dtype() == np.float64  # a thread has a context of its own

        def fetch() -> None:
            with jax.enable_x64(wide):
                stream.fetch(min(steps, STREAM_STEPS))

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            yield
        finally:  # whoever is told of an error may read on
            thread.join()

    def take(self, steps: int) -> tuple[Any, int]:
        """Data for up to `steps` steps, and for how many there is some.

        Raises:
            Exception: what reading the next batch raised.
        """
        if self.stream is None:
            return self.first, min(steps, _loop.CHUNK_STEPS)
        batches = self.stream.take(min(steps, STREAM_STEPS))
        if not batches:
            return None, 0
        padded = batches + [batches[-1]] * (STREAM_STEPS - len(batches))
        stacked = {n: np.stack([b[n] for b in padded]) for n in batches[0]}
        return self._placed(stacked), len(batches)


def _files(model: Energy, data: Any) -> dict[str, Any]:
    """The arrays by name, if one of them is memory-mapped; else nothing."""
    arrays = data if isinstance(data, Mapping) else {model.variables[0]: data}
    in_files = any(isinstance(array, np.memmap) for array in arrays.values())
    lengths = {np.shape(array)[:1] for array in arrays.values()}
    if not in_files or len(lengths) != 1 or lengths & {(), (0,)}:
        return {}  # or wrong, as the check of arrays in memory will say
    return {name: np.asarray(array) for name, array in arrays.items()}


def _text(rows: Mapping[str, Any]) -> str:
    return ", ".join(f"{n!r}: {a.dtype}{list(a.shape[1:])} a row" for n, a in rows.items())


def _first(stream: Stream, data: Any) -> Rows:
    """The first batch of a stream, which stays to be taken."""
    try:
        return stream.first()
    except (TypeError, ValueError) as error:
        if isinstance(data, list | tuple):
            kind = type(data).__name__
            error.add_note(f"a {kind} is read as batches; for rows, give np.asarray(data)")
        raise


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, Mapping)
