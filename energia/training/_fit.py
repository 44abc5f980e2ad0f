"""The verb `fit`."""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from energia._types import as_float, check_count, check_key, describe, strong_tree
from energia.energies._energy import Energy
from energia.energies._trainable import split
from energia.objectives._objective import Objective, registry
from energia.training import _loop, _optimizer
from energia.training._evaluation import Evaluation
from energia.training._fingerprint import host
from energia.training._precision import check_precision
from energia.training._result import Fit, Model
from energia.training._run import Run, TrainingWarning, identity_of
from energia.training._source import Source

DEFAULT_OPTIMIZER = optax.adam(1e-3)


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
    precision: str = "float32",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    validation: Any = None,
    callback: Callable[[Fit], Mapping[str, Any] | None] | None = None,
    evaluate_every: int = 500,
    patience: int | None = None,
    mesh: Mesh | None = None,
    progress: bool | None = None,
) -> Fit[Model]:
    r"""Learn the parameters of an energy from data.

    Trained are the float arrays of the model, except those in `en.constant()` fields: weights,
    temperatures, conditioned values and frozen energies stay. An array that stands in several
    places of the model stays one array.

    Args:
        model: the energy to start from; it is not changed.
        data: an array with a leading axis over rows (the model's first variable), a dict of them by
            variable name, or an iterable of such batches, all of one shape. Memory-mapped arrays
            (`np.load(file, mmap_mode="r")`) are read batch by batch, and may be larger than memory:
            the batches are those of the same array in memory, and what the objective begins with
            (moments for fresh chains, a fitted noise) is taken from at most 256 MB of rows at equal
            distances. Batches are read ahead in a thread while the device computes, and checked as
            they are read; where that raises, the steps before are done, and a checkpoint is
            written.
        objective: a registered name (`en.objectives.names()`) or a configured objective.
        key: a typed JAX key.
        num_steps: optimiser steps, at least 1.
        batch_size: rows a step, drawn without replacement within an epoch; None: 128, or all rows
            where there are fewer. For batches from an iterable it is their length.
        optimizer: an Optax optimiser, or a dict of two, `{'energy': ..., 'learned': ...}`. Made
            anew with the same numbers it compiles nothing; its numbers are code to JAX, so another
            learning rate compiles. `optax.MultiSteps(optax.adam(1e-3), every_k_schedule=4)`
            averages gradients over 4 steps, for batches that are too large for the device.
        ema_decay: of the moving averages, in [0, 1); step t uses at most (1 + t) / (10 + t).
        augment: `augment(datum, key) -> datum`, dicts of variables of one row, applied to every
            row of a batch inside the compiled step. The data may then have any names, shapes and
            dtypes: what `augment` gives must fit the model.
        precision: in which the matrix products and convolutions of the energy are computed in
            training: 'float32', or 'bfloat16', which is faster on accelerators. What enters and
            leaves them is then rounded to 8 bits; sums, activations, a network's last layer,
            gradients, parameters and the energy itself stay in float32, and so do the closed forms
            of Boltzmann machines, loops (`jax.lax.scan`) inside an energy, and what is learned
            beside it.
        checkpoint: a folder. The state is written there atomically every `checkpoint_every` steps
            and at the end; the same line run again, or with more `num_steps`, goes on from it, bit
            for bit (batches from an iterable must come in the same order).
        checkpoint_every: steps between checkpoints.
        validation: held-out data, of the forms of `data` in memory. Its mean loss under `energy`,
            with the same random numbers each time, is `history["validation_loss"]`. (For
            contrastive objectives it is the difference of its energy to that of samples: it rises
            where the energy knows the data by heart.)
        callback: `callback(fit)`, called on the host with a `Fit` of what has been learned so far.
            A dict of numbers that it returns joins the history; `StopIteration` that it raises
            ends the training. It may write files: `lambda fit: fit.to_csv("history.csv")`.
        evaluate_every: steps between evaluations, by `validation` and by `callback`.
        patience: stop after so many evaluations without a lower `validation_loss`, which `callback`
            may give in place of `validation`. What comes back, whether training stopped or not, is
            what had the lowest.
        mesh: devices to share the work of a step out to, `jax.make_mesh((8,), ("rows",))`: CPU
            devices, GPUs, or those of all processes that `jax.distributed` joins, of which each
            calls `fit` alike, with the same data, and gets the `Fit`. Each device has
            `batch_size` by their number rows of a batch, with their noise, and as many of the
            chains that move in a step; parameters, the optimiser's state, data in memory and
            replay buffers are whole on all of them. The random numbers are those of one device,
            and gradients are summed in another order: the training is the same up to rounding, and
            where that decides (a Metropolis step, an energy that is about to explode) to what
            follows from it. A checkpoint written on one mesh is gone on from on another, or on
            none; of several processes the first writes it, in a folder that all of them see, and
            all of them call `callback`. None: one device.
        progress: show a progress line on standard error; None: where that is a terminal.

    Returns:
        A `Fit`. Training stops with a `TrainingWarning` that says from which step on and what
        usually helps, and the last good parameters come back, where

        - the loss, a gradient or a parameter is not finite;
        - energies explode: loss, or energies of data or samples, above a thousand nats an entry of
          a datum, and a thousand times what the untrained model gave, for 8 steps: back comes the
          last state, of those after every 256 steps, whose energies had not begun to grow so;
        - samples collapse: their spread is below a twentieth of the data's for 512 steps;
        - the energy of data exceeds that of samples for 1024 steps, by more and more.

    Raises:
        TypeError, ValueError: for what cannot run, before anything compiles, such as a batch that
            the devices of a mesh cannot share out evenly; for a checkpoint that another run wrote.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> data = 3.0 + 0.5 * jax.random.normal(jax.random.key(0), (1000, 1))
        >>> model = en.Gaussian(jnp.zeros(1), precision=jnp.eye(1))
        >>> fit = en.fit(model, data, "dsm", key=jax.random.key(1), num_steps=10)
        >>> fit.history["loss"].shape
        (10,)
    """
    if not isinstance(model, Energy):
        raise TypeError(
            f"fit() trains an energy, its first argument, got {describe(model)}: "
            "en.fit(energy, data, objective, key=key)"
        )
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
    if bad := sum(int(np.sum(~np.isfinite(host(leaf).astype(float)))) for leaf in parameters):
        raise ValueError(
            f"{bad} of the numbers to train in {model._formula()} are not finite before the first "
            "step: give the model other ones"
        )
    source = Source(model, objective, data, batch_size, augment, key, mesh)
    objective.check(model, source.datum)
    half = check_precision(precision, model, source.whole)
    setup = _loop.Setup(
        skeleton,
        strong_tree(objective),
        as_float(ema_decay),
        source.batch_size,
        optimizer,
        augment,
        source.stream is not None,
        half,
        source.mesh,
    )
    rows = None if validation is None else source.held_out(validation)
    evaluation = Evaluation(rows, callback, evaluate_every, patience)
    run = Run(setup, source, key, evaluation)
    if checkpoint is not None:
        identity = identity_of(model, setup, source, key, evaluation)
        run.resume(checkpoint, checkpoint_every, identity, num_steps)
    run.begin(parameters)
    run.until(num_steps, progress)
    if run.warned:
        warnings.warn(TrainingWarning(run.stopped), stacklevel=2)
    return run.result()
