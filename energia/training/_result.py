"""What `fit` returns."""

import csv
import dataclasses
import os
from typing import Any, Generic, TypeVar

import numpy as np

from energia.energies._energy import Energy
from energia.samplers._sampler import Sampler

Model = TypeVar("Model", bound=Energy)


@dataclasses.dataclass(frozen=True, repr=False)
class Fit(Generic[Model]):
    """What `fit` returns, and what it shows to `callback`.

    Attributes:
        energy: the trained energy, of the structure of the model.
        ema_energy: the same with exponential moving averages of the parameters: often better for
            generation.
        learned: what was trained beside the energy, or None.
        ema_learned: its moving average, or None.
        history: arrays by name, one number a step: `loss`, `gradient_norm`, and what the objective
            tells. What is evaluated after some steps only (`validation_loss`, what `callback`
            gives) is not a number at the others.
        sampler: the sampler that the objective trained, or that matches it, else None.
        num_steps: training steps done.
        stopped: why training ended early, or None.

    Example:
        >>> import energia as en, jax, numpy as np
        >>> rows = np.random.default_rng(0).normal(2.0, 1.0, (1000, 1))
        >>> fit = en.fit(en.Gaussian([0.0]), rows, "sm", key=jax.random.key(0), num_steps=500)
        >>> fit.num_steps, fit.history["loss"].shape, fit.stopped
        (500, (500,), None)
    """

    energy: Model
    ema_energy: Model
    learned: Any
    ema_learned: Any
    history: dict[str, np.ndarray]
    sampler: Sampler | None
    num_steps: int
    stopped: str | None = None

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the history as a table: a row a step, a column a name; nothing where nothing is."""
        names = list(self.history)
        columns = [self.history[name].tolist() for name in names]
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["step", *names])
            for step, row in enumerate(zip(*columns, strict=True), start=1):
                table.writerow([step, *("" if value != value else value for value in row)])

    def plot(self) -> Any:
        """Draw the course of the training: `en.plot.training`.

        Returns:
            A `matplotlib.figure.Figure`: `.savefig(path)` writes it.

        Raises:
            ValueError: for a fit of no steps.
            ImportError: without Matplotlib.
        """
        from energia.plot import training  # above this layer, and with Matplotlib

        return training(self)

    def __repr__(self) -> str:
        last = self.history["loss"][-1] if self.num_steps else float("nan")
        return f"Fit({self.energy._formula()}; {self.num_steps} steps, last loss {last:.4g})"
