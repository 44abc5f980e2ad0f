"""Whether a classifier is as sure as it is right."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from energia._types import Values, check_count
from energia.energies._energy import Energy
from energia.evaluate import _classes
from energia.evaluate._rows import over_rows, rows_of


@dataclasses.dataclass(frozen=True, repr=False)
class Calibration:
    """How sure a classifier is, against how often it is right. `float(result)` is its `value`.

    Attributes:
        value: the expected calibration error, in [0, 1].
        accuracy: the share of rows whose most probable class is theirs.
        confidence: the mean probability of the most probable class.
        edges: of the bins of confidence, shape (num_bins + 1,).
        bin_count: rows in each bin, shape (num_bins,).
        bin_confidence: mean confidence in each bin, NaN where it is empty.
        bin_accuracy: accuracy in each bin, NaN where it is empty.

    Example:
        >>> import energia as en, numpy as np
        >>> even = np.full((4, 2), 0.5)
        >>> en.evaluate.calibration_error(even, [0, 0, 0, 1], num_bins=10)
        Calibration(error 0.25, accuracy 0.75, confidence 0.5; 4 rows in 10 bins)
    """

    value: float
    accuracy: float
    confidence: float
    edges: np.ndarray
    bin_count: np.ndarray
    bin_confidence: np.ndarray
    bin_accuracy: np.ndarray

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"Calibration(error {self.value:.4g}, accuracy {self.accuracy:.4g}, confidence "
            f"{self.confidence:.4g}; {int(self.bin_count.sum())} rows in {len(self.bin_count)} "
            "bins)"
        )


def calibration_error(
    predicted: Any, data: Any, *, num_bins: int = 15, label: str = "y"
) -> Calibration:
    r"""The expected calibration error of a classifier, and what a reliability picture shows.

    A row's confidence is the largest of its probabilities. Rows are put into bins of equal width
    by it, $(\tfrac{b - 1}{B}, \tfrac{b}{B}]$, and

    $\mathrm{ECE} = \sum_b \tfrac{n_b}{n}\,\lvert \text{accuracy}_b - \text{confidence}_b \rvert$.

    Of few rows, or many bins, the estimate is too high: chance alone moves accuracies away.

    Args:
        predicted: an energy of data and label, such as `en.Classifier`, whose $p(y \mid x)$ is
            judged; or the probabilities themselves, shape (rows, num_classes).
        data: beside an energy a dict of arrays by variable name, the label among them; beside
            probabilities the labels alone, integers from 0, shape (rows,).
        num_bins: $B$.
        label: the variable that is the class, beside an energy.

    Returns:
        A `Calibration`; `en.plot.reliability` draws it.

    Raises:
        TypeError, ValueError: for probabilities that are none, and data that do not fit.

    References:
        Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian
        binning. Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks.

    Example:
        >>> import energia as en, numpy as np
        >>> sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
        >>> en.evaluate.calibration_error(sure, np.array([0, 0, 1, 1]))
        Calibration(error 0.275, accuracy 0.75, confidence 0.825; 4 rows in 15 bins)
    """
    num_bins = check_count(num_bins, "num_bins", 1)
    if isinstance(predicted, Energy):
        if not isinstance(data, Mapping):
            raise TypeError(
                f"calibration_error() of an energy takes a dict of data by variable name, with the "
                f"labels {label!r} among them, got {type(data).__name__}"
            )
        rows = rows_of(predicted, data, unknown=True)
        _classes.check_label(predicted, rows, label, given=True)
        probabilities, labels = over_rows(_probabilities, (predicted, label), rows)
    else:
        probabilities, labels = np.asarray(predicted, float), np.asarray(data)
    return _calibration(*_checked(probabilities, labels), num_bins)


def _probabilities(model: tuple[Energy, str], row: Values) -> tuple[jax.Array, jax.Array]:
    energy, label = model
    others = {name: value for name, value in row.items() if name != label}
    probabilities = jax.nn.softmax(_classes.logits(energy, others, label))
    return probabilities, _classes.position(energy, row[label], label)


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(
            f"probabilities must have shape (rows, num_classes), got {probabilities.shape}"
        )
    if labels.shape != probabilities.shape[:1] or labels.dtype.kind not in "biu":
        raise ValueError(
            f"labels must be {len(probabilities)} integers, one for each row of probabilities, got "
            f"shape {labels.shape} and dtype {labels.dtype}"
        )
    if not (probabilities >= 0).all() or np.abs(probabilities.sum(1) - 1).max() > 1e-3:
        raise ValueError(
            "probabilities must not be negative or NaN, and those of a row must sum to 1: logits "
            "become so by jax.nn.softmax"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"labels must be classes from 0 to {probabilities.shape[1] - 1}, got {labels.min()} to "
            f"{labels.max()}"
        )
    return probabilities.astype(float), labels.astype(int)


def _calibration(probabilities: np.ndarray, labels: np.ndarray, num_bins: int) -> Calibration:
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(float)
    edges = np.linspace(0, 1, num_bins + 1)
    # rounding may lift a probability above 1
    bins = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    filled = np.where(count, count, np.nan)
    mean_confidence = np.bincount(bins, confidence, num_bins) / filled
    mean_right = np.bincount(bins, right, num_bins) / filled
    gaps = np.abs(mean_right - mean_confidence)
    return Calibration(
        value=float(np.nansum(count / len(labels) * gaps)),
        accuracy=float(right.mean()),
        confidence=float(confidence.mean()),
        edges=edges,
        bin_count=count,
        bin_confidence=mean_confidence,
        bin_accuracy=mean_right,
    )
