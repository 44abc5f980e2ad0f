"""A run of training on the host: slices, and what is done between them."""

import math
import os
import time
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils

from energia._mesh import hosts, leads, ordinary, placed
from energia._types import float_dtype
from energia.energies._energy import Energy
from energia.sampling._progress import Progress
from energia.training import _checkpoint, _loop, _monitor
from energia.training._evaluation import LOSS, Evaluation
from energia.training._fingerprint import fingerprint
from energia.training._history import History
from energia.training._interrupts import Interrupts
from energia.training._result import Fit
from energia.training._source import Source

SLICE_SECONDS = 0.5
FIRST_STEPS = 16
CHECK_STEPS = 256


class TrainingWarning(UserWarning):
    """Training stopped early; the message says at which step and what usually helps.

    Example:
        >>> import energia as en, warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", en.TrainingWarning)  # a script is to end there
    """


class Run:
    """Training in slices of about half a second, so that it can be watched and interrupted.

    Slices end wherever the clock says; what the result depends on is done at cuts, which stand at
    steps that are known beforehand: checks, evaluations, checkpoints.
    """

    train: _loop.Train
    good: tuple[int, _loop.Learned]

    def __init__(self, setup: _loop.Setup, source: Source, key: jax.Array, evaluation: Evaluation):
        self.setup, self.source, self.key, self.evaluation = setup, source, key, evaluation
        modelled = [n for n in source.datum if n not in setup.objective.given]
        self.entries = sum(math.prod(source.datum[name].shape) for name in modelled)
        self.step = 0
        self.history = History()
        self.best: _loop.Learned | None = None
        self.stopped: str | None = None
        self.failed = False  # the state is not one to go on from
        self.warned = False
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
        if hosts(self.setup.mesh) > 1:
            found = multihost_utils.process_allgather(self.saved.step if self.saved else 0)
            if len(set(found.tolist())) > 1:
                raise ValueError(
                    f"the processes found checkpoints of the steps {found.tolist()} in "
                    f"{os.fspath(folder)!r}: checkpoint= must be one folder that all of them see"
                )
        if self.saved is None:
            return
        self.step = self.saved.step
        self.history.write(0, self.saved.history)
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
        self.names = tuple(eqx.filter_eval_shape(_loop.advance, fixed, shapes)[1])
        if (rows := self.evaluation.rows) is not None:
            self.names += (LOSS,)
            eqx.filter_eval_shape(_loop.validate, self.setup, rows, self.key, shapes)
        if self.saved is None:
            # a program that uses no row knows of no mesh
            self.train = placed(_loop.begin(*first), self.setup.mesh)
            self.good = self.step, _loop.copy(self.train.learned)
            return
        notes = self.saved.notes
        kept = [None if notes[name] is None else shapes.learned for name in ("best", "good")]
        restored = self.saved.restore((shapes, *kept), self.key)
        self.train, self.best, good = placed(restored, self.setup.mesh)
        now = self.step, _loop.copy(self.train.learned)
        self.good = now if good is None else (notes["good"], good)
        if notes["stopped"]:  # the callback may think otherwise now
            self._evaluate(now[1])
        self.stopped = self.stopped or self.evaluation.ended(self.history.until(self.step))
        self.saved = None

    def until(self, num_steps: int, progress: bool | None) -> None:
        """Train up to a step, unless something ends it before."""
        size = FIRST_STEPS
        several = hosts(self.setup.mesh) > 1  # all take the same slices, whatever their clocks say
        label = type(self.setup.objective).__name__
        progressing = Progress(label, num_steps - self.step, progress)
        with progressing as bar, Interrupts() as interrupts:
            while self.step < num_steps and self.stopped is None:
                cut = self._cut(num_steps)
                began = time.perf_counter()
                done = self._slice(min(size, cut - self.step), num_steps)
                seconds = max(time.perf_counter() - began, 1e-6)
                size = CHECK_STEPS if several else max(int(done * SLICE_SECONDS / seconds), 1)
                reached = self.step
                if reached == cut or self.stopped is not None:
                    self._between(num_steps)
                bar(done, self._note(reached - done, reached) if done else "")
                if interrupts.asked:
                    self._save()
                    raise KeyboardInterrupt(self._interrupted())

    def _interrupted(self) -> str:
        text = f"the training was interrupted after {self.step} steps"
        if self.folder is None:
            return f"{text}; with checkpoint= the same line run again would go on from there"
        return f"{text}: run the same line again to go on from {os.fspath(self.folder)!r}"

    def _cut(self, num_steps: int) -> int:
        """The next step at which training pauses."""
        doubled = max(FIRST_STEPS, 1 << self.step.bit_length())  # checks soon, then rarely
        cuts = [num_steps, min(doubled, _multiple(self.step, CHECK_STEPS))]
        if self.folder is not None:
            cuts.append(_multiple(self.step, self.every))
        if self.evaluation.wanted:
            cuts.append(_multiple(self.step, self.evaluation.every))
        return min(cuts)

    def _slice(self, wanted: int, num_steps: int) -> int:
        try:
            rows, count = self.source.take(wanted)
        except Exception:
            self._save()  # what was trained before the data failed is not lost
            raise
        if count == 0:
            self.stopped, self.warned = f"the data ended after {self.step} batches", True
            return 0
        start, stop = np.int32(self.step), np.int32(self.step + count)
        with self.source.reading(num_steps - self.step - count):
            try:
                self.train, metrics, reached, finite = _loop.advance(
                    (self.setup, rows, self.key, start, stop), self.train
                )
                good = bool(finite)  # waits for the device
            except Exception as error:
                error.add_note(f"this came up in steps {start} to {stop - 1} of the training")
                if self.folder is not None and _checkpoint.stands(self.folder):
                    folder = os.fspath(self.folder)
                    error.add_note(f"the last checkpoint before them stands in {folder!r}")
                raise
        done = int(reached) - self.step - (not good)
        piece = {name: np.asarray(values) for name, values in metrics.items()}
        self.history.write(self.step, {name: values[:done] for name, values in piece.items()})
        self.step += done
        if not good:
            told = ", ".join(f"{name} {values[done]:.4g}" for name, values in piece.items())
            self._fail(
                f"step {self.step} was not finite ({told}); the parameters are those after "
                f"{self._kept()} good steps. What usually helps: a lower learning rate, "
                "optax.clip_by_global_norm before the optimiser, energy_regularization or a "
                "smaller sampler step where samples are drawn, data scaled to about unit variance"
            )
        return done

    def _between(self, num_steps: int) -> None:
        """What is done at a cut."""
        told = self.history.until(self.step)
        history = {name: told[name] for name in self.names if name in told}
        failure = _monitor.find(history, self.entries, self.failed)
        if failure is not None:
            if failure.roll_back:
                self.step = self.good[0]
            self._fail(
                f"from step {failure.began} on {failure.text}. The parameters are those after "
                f"{self._kept()} steps"
            )
        if self.failed:
            return
        learned = _loop.copy(self.train.learned)
        if _monitor.calm(history, self.entries):
            self.good = self.step, learned
        if self.evaluation.wanted and self.step % self.evaluation.every == 0:
            self._evaluate(learned)
        ended = self.step == num_steps or self.stopped is not None
        if self.folder is not None and (ended or self.step % self.every == 0):
            self._save()

    def _evaluate(self, learned: _loop.Learned) -> None:
        """Held-out loss, callback and early stopping, after so many steps."""
        evaluation, told = self.evaluation, {}
        if evaluation.rows is not None:
            loss = _loop.validate(self.setup, evaluation.rows, self.key, self.train)
            told = self._tell({LOSS: float(loss)})
        try:
            told |= self._tell(evaluation.told(lambda: self.fit(learned), self.names))
        except StopIteration as reason:
            self.stopped = str(reason) or f"callback= ended the training after {self.step} steps"
        if not np.isfinite(told.get(LOSS, 0.0)):
            self._fail(
                f"{LOSS} was not finite after {self.step} steps, the training itself was; the "
                f"parameters are those after {self._kept()} steps. Look at the held-out data"
            )
        elif evaluation.patience is not None:
            history = self.history.until(self.step)
            if evaluation.lowest(history)[0] == self.step:
                self.best = learned
            self.stopped = self.stopped or evaluation.ended(history)

    def _tell(self, told: dict[str, float]) -> dict[str, float]:
        """Write what was evaluated after the last step."""
        last = {name: np.asarray([value], float_dtype()) for name, value in told.items()}
        self.history.write(self.step - 1, last)
        return told

    def _fail(self, text: str) -> None:
        self.stopped, self.failed, self.warned = text, True, True

    def _kept(self) -> int:
        """After how many steps the parameters are those that come back."""
        best = self.evaluation.lowest(self.history.until(self.step))[0]
        return self.step if self.best is None else best

    def _save(self) -> None:
        # a failure may have spoilt the objective's state: the last checkpoint, gone on from, comes
        # to the same step again
        if self.folder is not None and not self.failed and leads(self.setup.mesh):
            step, learned = self.good
            good = None if step == self.step else learned
            notes = {
                "best": None if self.best is None else self._kept(),
                "good": None if good is None else step,
                "stopped": self.stopped is not None and not self.warned,
            }
            state = self.train, self.best, good
            history = self.history.until(self.step)
            try:
                _checkpoint.save(self.folder, state, history, self.step, self.identity, notes)
            except OSError as error:
                text = (
                    f"the checkpoint after {self.step} steps could not be written in "
                    f"{os.fspath(self.folder)!r} ({error.strerror or error}); the one before it is "
                    f"as it was, and the training goes on. Make room: the next is tried after "
                    f"{self.every} steps"
                )
                warnings.warn(TrainingWarning(text), stacklevel=2)

    def _note(self, start: int, stop: int) -> str:
        """Some steps in a few words: means of what they told."""
        history = self.history.until(stop)
        told = {"loss": "loss", "gradient_norm": "gradient", "acceptance_rate": "acceptance"}
        recent = {
            name: float(np.mean(values[start:], dtype=float)) for name, values in history.items()
        }
        words = [f"{word} {recent[name]:.4g}" for name, word in told.items() if name in recent]
        if all(name in recent for name in _monitor.ENERGIES):
            words.insert(1, f"gap {recent['positives'] - recent['negatives']:.4g}")
        known = history.get(LOSS, np.zeros(0))
        known = known[~np.isnan(known)]
        return "  ".join([*words, *(f"{LOSS} {loss:.4g}" for loss in known[-1:])])

    def fit(self, learned: _loop.Learned) -> Fit:
        """What has been learned so far."""
        parameters, averages, rest = ordinary(learned, self.setup.mesh)
        energy, beside = _loop.merge(self.setup, rest, parameters)
        ema_energy, ema_beside = _loop.merge(self.setup, rest, averages)
        return Fit(
            energy=energy,
            ema_energy=ema_energy,
            learned=beside,
            ema_learned=ema_beside,
            history={n: values.copy() for n, values in self.history.until(self.step).items()},
            sampler=self.setup.objective.sampler_for(energy, beside),
            num_steps=self.step,
            stopped=self.stopped,
        )

    def result(self) -> Fit:
        """What `fit` returns: the best, the last, or what was there before all went wrong."""
        rolled_back = self.failed and self.step == self.good[0]
        last = self.good[1] if rolled_back else self.train.learned
        return self.fit(last if self.best is None else self.best)


def _multiple(step: int, every: int) -> int:
    """The first multiple beyond a step."""
    return (step // every + 1) * every


def identity_of(
    model: Energy, setup: _loop.Setup, source: Source, key: jax.Array, evaluation: Evaluation
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from.

    A stream is known by the shape of its batches alone: it may come in another order.
    """
    return {
        "model": fingerprint((model, setup.skeleton.slots)),
        "objective": fingerprint(setup.objective),
        "optimizer": fingerprint(setup.optimizer),
        "augment": fingerprint(setup.augment),
        "data": fingerprint((source.known, repr(source.shapes))),
        "key": [str(jax.random.key_impl(key)), *jax.random.key_data(key).tolist()],
        "batch_size": setup.batch_size,
        "precision": "bfloat16" if setup.half else None,
        "ema_decay": float(setup.ema_decay),
        "early stopping": fingerprint(evaluation.patience and (evaluation.rows,)),
    }
