"""The verb `fit`."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import optax

from energia._types import as_float, check_count, check_key, strong_tree
from energia.energies._energy import Energy
from energia.energies._trainable import split
from energia.objectives._objective import Objective, registry
from energia.samplers._sampler import Sampler
from energia.training import _loop, _optimizer
from energia.training._run import Run, TrainingWarning, identity_of
from energia.training._source import Source

DEFAULT_OPTIMIZER = optax.adam(1e-3)

Model = TypeVar("Model", bound=Energy)


@dataclasses.dataclass(frozen=True, repr=False)
class Fit(Generic[Model]):
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

    energy: Model
    ema_energy: Model
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
    model: Model,
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
) -> Fit[Model]:
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
        optimizer: an Optax optimiser, or a dict of two, `{'energy': ..., 'learned': ...}`. Made
            anew with the same numbers it compiles nothing; its numbers are code to JAX, so another
            learning rate compiles.
        ema_decay: of the moving averages, in [0, 1); step t uses at most (1 + t) / (10 + t).
        augment: `augment(datum, key) -> datum`, dicts of variables of one row, applied to every
            row of a batch inside the compiled step. The data may then have any names, shapes and
            dtypes: what `augment` gives must fit the model.
        checkpoint: a folder. The state is written there atomically every `checkpoint_every` steps
            and at the end; the same line run again, or with more `num_steps`, goes on from it, bit
            for bit (batches from an iterable must come in the same order).
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
    if augment is not None and not callable(augment):
        raise TypeError(f"augment= must be a function of a datum and a key, got {augment!r}")
    optimizer = _optimizer.resolve(optimizer)
    parameters, skeleton = split(model)
    if not parameters:
        raise ValueError(
            f"{model._formula()} has nothing to train: no float array outside constant fields"
        )
    source = Source(model, objective, data, batch_size, augment)
    objective.check(model, source.datum)
    setup = _loop.Setup(
        skeleton,
        strong_tree(objective),
        as_float(ema_decay),
        source.batch_size,
        optimizer,
        augment,
        source.stream is not None,
    )
    run = Run(setup, source, key)
    if checkpoint is not None:
        identity = identity_of(model, setup, source, key)
        run.resume(checkpoint, checkpoint_every, identity, num_steps)
    run.begin(parameters)
    run.until(num_steps, progress)
    if run.stopped is not None:
        warnings.warn(TrainingWarning(run.stopped), stacklevel=2)
    energy, learned = _loop.merge(setup, run.train.rest, run.train.parameters)
    ema_energy, ema_learned = _loop.merge(setup, run.train.rest, run.train.averages)
    return Fit(
        energy=energy,
        ema_energy=ema_energy,
        learned=learned,
        ema_learned=ema_learned,
        history=run.history(),
        sampler=objective.sampler_for(energy, learned),
        num_steps=run.step,
        stopped=run.stopped,
    )
