"""What is looked at beside the training: held-out data, a callback, early stopping."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from energia._types import Values, check_count
from energia.training._result import Fit

LOSS = "validation_loss"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Every so many steps: the loss on held-out rows, a callback, and a look at what has become.

    Early stopping has no memory of its own: it reads the history.
    """

    rows: Values | None
    callback: Callable[[Fit], Any] | None
    every: int
    patience: int | None

    def __post_init__(self) -> None:
        check_count(self.every, "evaluate_every", 1)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback= must be a function of a Fit, got {self.callback!r}")
        if self.patience is not None:
            check_count(self.patience, "patience", 1)
            if self.rows is None and self.callback is None:
                raise ValueError(
                    f"patience= waits for a lower {LOSS}: give held-out data as validation=, or a "
                    f"callback= whose dict has {LOSS!r}"
                )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to evaluate."""
        return self.rows is not None or self.callback is not None

    def told(self, fit: Callable[[], Fit], taken: Collection[str]) -> dict[str, float]:
        """What the callback gives to the history, under names that are not taken.

        Raises:
            StopIteration: where the callback wants the training to end.
        """
        told = None if self.callback is None else self.callback(fit())
        if told is None:
            return {}
        if not isinstance(told, Mapping) or not all(np.ndim(v) == 0 for v in told.values()):
            raise TypeError(
                f"callback= must return None or a dict of numbers by name, got {told!r}"
            )
        numbers = {str(name): float(value) for name, value in told.items()}
        if clash := [name for name in numbers if name in taken]:
            raise ValueError(f"callback= gives {clash}, which the history has already")
        if self.patience is not None and self.rows is None and LOSS not in numbers:
            raise ValueError(
                f"patience= waits for a lower {LOSS}, and callback= gives {sorted(numbers)}: "
                f"return {LOSS!r} too, or give validation="
            )
        return numbers

    def lowest(self, history: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """After how many steps the loss was lowest (0: never told), and how often since it was not.

        A tie goes to the first.
        """
        losses = history.get(LOSS, np.zeros(0))
        steps = np.flatnonzero(~np.isnan(losses))
        if len(steps) == 0:
            return 0, 0
        best = int(np.argmin(losses[steps]))
        return int(steps[best]) + 1, len(steps) - 1 - best

    def ended(self, history: Mapping[str, np.ndarray]) -> str | None:
        """Why training ends here: no lower loss for as long as patience lasts."""
        if self.patience is None:
            return None
        best, since = self.lowest(history)
        if since < self.patience:
            return None
        return (
            f"no lower {LOSS} in {since} evaluations: the parameters are those after {best} steps"
        )
