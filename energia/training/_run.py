"""A run of training on the host: slices, checkpoints, history."""

import os
import time
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia.energies._energy import Energy
from energia.sampling._progress import Progress
from energia.training import _checkpoint, _loop
from energia.training._fingerprint import fingerprint
from energia.training._source import Source

SLICE_SECONDS = 0.5
FIRST_STEPS = 16


class TrainingWarning(UserWarning):
    """Training stopped early; the message says at which step and what usually helps."""


class Run:
    """Training in slices of about half a second, so that it can be watched and interrupted."""

    train: _loop.Train

    def __init__(self, setup: _loop.Setup, source: Source, key: jax.Array):
        self.setup, self.source, self.key = setup, source, key
        self.step = 0
        self.pieces: list[dict[str, np.ndarray]] = []
        self.stopped: str | None = None
        self.finite = True
        self.saved: _checkpoint.Saved | None = None
        self.folder: _checkpoint.Folder | None = None
        self.every = 0
        self.identity: dict[str, Any] = {}

    def resume(
        self, folder: _checkpoint.Folder, every: int, identity: dict[str, Any], num_steps: int
    ) -> None:
        """Go on from the checkpoint in a folder, where there is one."""
        self.folder, self.every, self.identity = folder, every, identity
        self.saved = _checkpoint.load(folder, identity)
        if self.saved is None:
            return
        self.step, self.pieces = self.saved.step, [self.saved.history]
        if self.step > num_steps:
            raise ValueError(
                f"the checkpoint in {os.fspath(folder)!r} is at step {self.step}, beyond "
                f"num_steps={num_steps}: ask for more steps, or give another checkpoint= folder"
            )
        self.source.skip(self.step)

    def begin(self, parameters: list[jax.Array]) -> None:
        """The state of training before the first step, or where the checkpoint left it.

        All is traced before anything compiles: mistakes in an objective come at once.
        """
        first = self.setup, parameters, self.source.first, self.key
        shapes = eqx.filter_eval_shape(_loop.begin, *first)
        zero = np.int32(0)
        fixed = self.setup, self.source.shapes, self.key, zero, zero
        eqx.filter_eval_shape(_loop.advance, fixed, shapes)
        if self.saved is None:
            self.train = _loop.begin(*first)
        else:
            self.train = self.saved.restore(shapes, self.key)
            self.saved = None

    def until(self, num_steps: int, progress: bool | None) -> None:
        """Train up to a step, unless the data ends or a step is not finite."""
        size = FIRST_STEPS
        label = type(self.setup.objective).__name__
        with Progress(label, num_steps - self.step, progress) as bar:
            while self.step < num_steps and self.stopped is None:
                wanted = min(size, num_steps - self.step)
                if self.folder is not None:
                    wanted = min(wanted, self.every - self.step % self.every)
                began = time.perf_counter()
                done = self._slice(wanted)
                seconds = max(time.perf_counter() - began, 1e-6)
                size = max(int(done * SLICE_SECONDS / seconds), 1)
                bar(done, f"loss {self.pieces[-1]['loss'][-1]:.4g}" if done else "")
                ended = self.step == num_steps or self.stopped is not None
                if self.folder is not None and (ended or self.step % self.every == 0):
                    self._save()

    def _slice(self, wanted: int) -> int:
        rows, count = self.source.take(wanted)
        if count == 0:
            self.stopped = f"the data ended after {self.step} batches"
            return 0
        start, stop = np.int32(self.step), np.int32(self.step + count)
        self.train, metrics, reached, finite = _loop.advance(
            (self.setup, rows, self.key, start, stop), self.train
        )
        self.finite = bool(finite)
        done = int(reached) - self.step - (not self.finite)
        piece = {name: np.asarray(values) for name, values in metrics.items()}
        self.pieces.append({name: values[:done].copy() for name, values in piece.items()})
        self.step += done
        if not self.finite:
            told = ", ".join(f"{name} {values[done]:.4g}" for name, values in piece.items())
            self.stopped = (
                f"step {self.step} was not finite ({told}); the parameters are those after "
                f"{self.step} good steps. What usually helps: a lower learning rate, "
                "optax.clip_by_global_norm before the optimiser, energy_regularization or a "
                "smaller sampler step where samples are drawn, data scaled to about unit variance"
            )
        return done

    def _save(self) -> None:
        # a step that was not finite may have spoilt the objective's state: the last checkpoint,
        # gone on from, comes to the same step again
        if self.folder is not None and self.finite:
            _checkpoint.save(self.folder, self.train, self.history(), self.step, self.identity)

    def history(self) -> dict[str, np.ndarray]:
        """What the steps told, by name."""
        pieces = [piece for piece in self.pieces if piece] or [{}]
        self.pieces = [{n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}]
        return self.pieces[0]


def identity_of(
    model: Energy, setup: _loop.Setup, source: Source, key: jax.Array
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from.

    A stream is known by the shape of its batches alone: it may come in another order.
    """
    return {
        "model": fingerprint((model, setup.skeleton.slots)),
        "objective": fingerprint(setup.objective),
        "optimizer": fingerprint(setup.optimizer),
        "augment": fingerprint(setup.augment),
        "data": fingerprint(source.first if source.stream is None else repr(source.shapes)),
        "key": [str(jax.random.key_impl(key)), *jax.random.key_data(key).tolist()],
        "batch_size": setup.batch_size,
        "ema_decay": float(setup.ema_decay),
    }
