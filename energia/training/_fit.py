"""The verb `fit`."""

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from energia._types import as_float, check_count, check_key, strong_tree
from energia.energies._energy import Energy
from energia.energies._trainable import split
from energia.objectives._objective import Objective, registry
from energia.samplers._sampler import Sampler
from energia.sampling._progress import Progress
from energia.training import _checkpoint, _data, _loop, _optimizer

DEFAULT_OPTIMIZER = optax.adam(1e-3)
STREAM_STEPS = 16
SLICE_SECONDS = 0.5


class TrainingWarning(UserWarning):
    """Training stopped early; the message says at which step and what usually helps."""


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """What `fit` returns.

    Attributes:
        energy: the trained energy, of the structure of the model.
        ema_energy: the same with exponential moving averages of the parameters: often better for
            generation.
        learned: what was trained beside the energy, or None.
        ema_learned: its moving average, or None.
        history: arrays by name, one number a step: `loss`, `gradient_norm`, and what the objective
            tells.
        sampler: the sampler that the objective trained, or that matches it, else None.
        num_steps: training steps done.
        stopped: why training ended early, or None.
    """

    energy: Energy
    ema_energy: Energy
    learned: Any
    ema_learned: Any
    history: dict[str, np.ndarray]
    sampler: Sampler | None
    num_steps: int
    stopped: str | None = None

    def __repr__(self) -> str:
        last = self.history["loss"][-1] if self.num_steps else float("nan")
        return f"Fit({self.energy._formula()}; {self.num_steps} steps, last loss {last:.4g})"


def fit(
    model: Energy,
    data: Any,
    objective: str | Objective,
    *,
    key: jax.Array,
    num_steps: int = 5000,
    batch_size: int | None = None,
    optimizer: Any = DEFAULT_OPTIMIZER,
    ema_decay: float = 0.999,
    augment: Callable[..., Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    progress: bool | None = None,
) -> Fit:
    r"""Learn the parameters of an energy from data.

    Trained are the float arrays of the model, except those in `en.constant()` fields: weights,
    temperatures, conditioned values and frozen energies stay. An array that stands in several
    places of the model stays one array.

    Args:
        model: the energy to start from; it is not changed.
        data: an array with a leading axis over rows (the model's first variable), a dict of them by
            variable name, or an iterable of such batches, all of one shape.
        objective: a registered name (`en.objectives.names()`) or a configured objective.
        key: a typed JAX key.
        num_steps: optimiser steps, at least 1.
        batch_size: rows a step, drawn without replacement within an epoch; None: 128, or all rows
            where there are fewer. For batches from an iterable it is their length.
        optimizer: an Optax optimiser, or a dict of two, `{'energy': ..., 'learned': ...}`.
        ema_decay: of the moving averages, in [0, 1); step t uses at most (1 + t) / (10 + t).
        augment: `augment(datum, key) -> datum`, dicts of variables of one row, applied to every
            row of a batch inside the compiled step.
        checkpoint: a folder. The state is written there atomically every `checkpoint_every` steps
            and at the end; the same line run again goes on from it, bit for bit.
        checkpoint_every: steps between checkpoints.
        progress: show a progress line on standard error; None: where that is a terminal.

    Returns:
        A `Fit`. Where the loss, a gradient or a parameter is not finite, training stops with a
        `TrainingWarning` and the last good parameters.

    Raises:
        TypeError, ValueError: for what cannot run, before anything compiles; for a checkpoint that
            another run wrote.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> data = 3.0 + 0.5 * jax.random.normal(jax.random.key(0), (1000, 1))
        >>> model = en.Gaussian(jnp.zeros(1), precision=jnp.eye(1))
        >>> fit = en.fit(model, data, "dsm", key=jax.random.key(1), num_steps=10)
        >>> fit.history["loss"].shape
        (10,)
    """
    if not isinstance(model, Energy):
        raise TypeError(f"fit() trains an energy, got {model!r}")
    objective = registry.resolve(objective)
    key = check_key(key)
    num_steps = check_count(num_steps, "num_steps", 1)
    checkpoint_every = check_count(checkpoint_every, "checkpoint_every", 1)
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay= must lie in [0, 1), got {ema_decay}")
    optimizer = _optimizer.resolve(optimizer)
    parameters, skeleton = split(model)
    if not parameters:
        raise ValueError(
            f"{model._formula()} has nothing to train: no float array outside constant fields"
        )
    source = _Source(model, objective, data, batch_size)
    objective.check(model)
    setup = _loop.Setup(
        skeleton,
        strong_tree(objective),
        as_float(ema_decay),
        source.batch_size,
        optimizer,
        augment,
        source.stream is not None,
    )
    first = {name: jnp.asarray(rows) for name, rows in source.first.items()}
    train = _loop.strong_train(_loop.begin(setup, parameters, first, key))
    run = _Run(setup, source, key, train)
    if checkpoint is not None:
        run.resume(checkpoint, checkpoint_every, _identity(model, setup, source, key))
    run.until(num_steps, progress)
    return run.result()


class _Source:
    """Where batches come from: rows in memory, or a stream."""

    def __init__(self, model: Energy, objective: Objective, data: Any, batch_size: int | None):
        in_memory = isinstance(data, Mapping) or hasattr(data, "__array__")
        if not in_memory and not isinstance(data, Iterable):
            raise TypeError(
                "data must be an array, a dict of arrays by variable name, or an iterable of "
                f"batches, got {type(data).__name__}"
            )
        nested = isinstance(data, list | tuple) and data and np.ndim(data[0]) == 0
        nested = nested and not isinstance(data[0], Mapping)
        self.stream: _data.Stream | None = None
        if in_memory or nested:
            self.rows = self.first = _data.rows_of(model, data)
        else:
            self.stream = _data.Stream(model, data)
            waiting = self.stream.take(1)
            if not waiting:
                raise ValueError("the data is an iterable without any batch")
            self.waiting, self.first = waiting, waiting[0]
        _data.check_variables(model, objective, self.first)
        count = len(next(iter(self.first.values())))
        if batch_size is None or self.stream is not None:
            batch_size = count if self.stream is not None else min(128, count)
        self.batch_size = check_count(batch_size, "batch_size", 1)
        if self.batch_size > count:
            raise ValueError(f"batch_size= is {self.batch_size}, the data has {count} rows")
        self.on_device = None if self.stream else jax.tree.map(jnp.asarray, self.rows)

    def skip(self, steps: int) -> None:
        """Leave out the batches of steps that were done before."""
        if self.stream is not None and steps:
            self.waiting = []
            self.stream.skip(steps - 1)

    def take(self, steps: int) -> tuple[Any, int]:
        """Data for up to `steps` steps, and for how many there is some."""
        if self.stream is None:
            return self.on_device, min(steps, _loop.CHUNK_STEPS)
        wanted = min(steps, STREAM_STEPS)
        batches = self.waiting + self.stream.take(wanted - len(self.waiting))
        self.waiting = []
        if not batches:
            return None, 0
        padded = batches + [batches[-1]] * (STREAM_STEPS - len(batches))
        stacked = {n: jnp.asarray(np.stack([b[n] for b in padded])) for n in batches[0]}
        return stacked, len(batches)


class _Run:
    """Training in slices of about half a second, so that it can be watched and interrupted."""

    def __init__(self, setup: _loop.Setup, source: _Source, key: jax.Array, train: _loop.Train):
        self.setup, self.source, self.key, self.train = setup, source, key, train
        self.step = 0
        self.pieces: list[dict[str, np.ndarray]] = []
        self.stopped: str | None = None
        self.folder: str | os.PathLike[str] | None = None
        self.every = 0
        self.identity: dict[str, Any] = {}

    def resume(
        self, folder: str | os.PathLike[str], every: int, identity: dict[str, Any]
    ) -> None:
        self.folder, self.every, self.identity = folder, every, identity
        found = _checkpoint.load(folder, self.train, identity)
        if found is not None:
            self.train, history, self.step = found
            self.pieces = [history]
            self.source.skip(self.step)

    def until(self, num_steps: int, progress: bool | None) -> None:
        size = 16
        label = type(self.setup.objective).__name__
        with Progress(label, max(num_steps - self.step, 0), progress) as bar:
            while self.step < num_steps and self.stopped is None:
                wanted = min(size, num_steps - self.step)
                if self.folder is not None:
                    wanted = min(wanted, self.every - self.step % self.every)
                began = time.perf_counter()
                done = self._slice(wanted)
                seconds = max(time.perf_counter() - began, 1e-6)
                size = max(int(done * SLICE_SECONDS / seconds), 1)
                bar(done, f"loss {self.pieces[-1]['loss'][-1]:.4g}" if done else "")
                if self.folder is not None and self.step % self.every == 0 and done:
                    self._save()
        if self.folder is not None and self.step % self.every:
            self._save()
        if self.stopped is not None:
            warnings.warn(TrainingWarning(self.stopped), stacklevel=4)

    def _slice(self, wanted: int) -> int:
        rows, count = self.source.take(wanted)
        if count == 0:
            self.stopped = f"the data ended after {self.step} batches"
            return 0
        start, stop = np.int32(self.step), np.int32(self.step + count)
        self.train, metrics, reached, finite = _loop.advance(
            (self.setup, rows, self.key, start, stop), self.train
        )
        good = bool(finite)
        done = int(reached) - self.step - (not good)
        piece = {name: np.asarray(values) for name, values in metrics.items()}
        self.pieces.append({name: values[:done].copy() for name, values in piece.items()})
        self.step += done
        if not good:
            told = ", ".join(f"{name} {values[done]:.4g}" for name, values in piece.items())
            self.stopped = (
                f"step {self.step} was not finite ({told}); the parameters are those after "
                f"{self.step} good steps. What usually helps: a lower learning rate, "
                "optax.clip_by_global_norm before the optimiser, energy_regularization or a smaller "
                "sampler step where samples are drawn, data scaled to about unit variance"
            )
        return done

    def _save(self) -> None:
        assert self.folder is not None
        _checkpoint.save(self.folder, self.train, self.history(), self.step, self.identity)

    def history(self) -> dict[str, np.ndarray]:
        pieces = [piece for piece in self.pieces if piece] or [{}]
        self.pieces = [{n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}]
        return self.pieces[0]

    def result(self) -> Fit:
        trained, averages = self.train.parameters, self.train.averages
        energy = self.setup.skeleton.merge(trained["energy"])
        return Fit(
            energy=energy,
            ema_energy=self.setup.skeleton.merge(averages["energy"]),
            learned=trained["learned"],
            ema_learned=averages["learned"],
            history=self.history(),
            sampler=self.setup.objective.sampler_for(energy, trained["learned"]),
            num_steps=self.step,
            stopped=self.stopped,
        )


def _identity(
    model: Energy, setup: _loop.Setup, source: _Source, key: jax.Array
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    data = {} if source.stream is not None else source.rows
    return {
        "model": [_checkpoint.structure_of(model), _checkpoint.checksum(model)],
        "objective": [
            _checkpoint.structure_of(setup.objective),
            _checkpoint.checksum(setup.objective),
        ],
        "optimizer": _optimizer.fingerprint(setup.optimizer),
        "data": [_checkpoint.structure_of(source.first), _checkpoint.checksum(data)],
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "batch_size": setup.batch_size,
        "ema_decay": float(setup.ema_decay),
    }
