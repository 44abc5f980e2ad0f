"""How well a score tells two samples apart: areas under curves, by ranks."""

from typing import Any

import numpy as np


def auroc(inside: Any, outside: Any) -> float:
    r"""The area under the ROC curve of scores that are to be higher outside.

    $P(s_\text{out} > s_\text{in}) + \tfrac12 P(s_\text{out} = s_\text{in})$ over all pairs, the
    statistic of Mann and Whitney: 1 where every score outside is above every one inside, 1/2 where
    scores tell nothing. Exchanging the two samples gives one minus it.

    Args:
        inside: scores of the data that the model was made for, the negatives, shape (m,); infinite
            ones are ranked too.
        outside: scores of other data, the positives, shape (n,).

    Returns:
        A number in [0, 1], exact.

    Raises:
        ValueError: for scores that are no vectors, empty, or NaN.

    References:
        Hanley and McNeil (1982), The meaning and use of the area under a receiver operating
        characteristic (ROC) curve.

    Example:
        >>> import energia as en
        >>> en.evaluate.auroc([0.1, 0.4, 0.35], [0.8, 0.4])  # 5 of 6 pairs, and a tie
        0.916...
    """
    low, high = np.sort(_scores(inside, "inside")), _scores(outside, "outside")
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(np.mean(below) / (2 * len(low)))


def auprc(inside: Any, outside: Any) -> float:
    r"""The area under the curve of precision over recall, the data outside being the positives.

    The average precision: over the positives $j$, the mean of the precision of the rule
    "$s \ge s_j$", with no interpolation. What scores that tell nothing reach is the share of the
    positives, $n / (m + n)$: unlike `auroc` it depends on how many there are of each.

    Args:
        inside: scores of the data that the model was made for, the negatives, shape (m,).
        outside: scores of other data, the positives, shape (n,); the higher, the more outside.

    Returns:
        A number in (0, 1], exact.

    Raises:
        ValueError: for scores that are no vectors, empty, or NaN.

    References:
        Davis and Goadrich (2006), The relationship between precision-recall and ROC curves.

    Example:
        >>> import energia as en
        >>> en.evaluate.auprc([0.1, 0.4, 0.35], [0.8, 0.4])  # precisions of 1 and 2/3
        0.833...
    """
    low, high = np.sort(_scores(inside, "inside")), np.sort(_scores(outside, "outside"))
    false = len(low) - np.searchsorted(low, high, "left")
    true = len(high) - np.searchsorted(high, high, "left")
    return float(np.mean(true / (true + false)))


def _scores(value: Any, what: str) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "buif":
        raise ValueError(
            f"{what} must be a vector of scores, at least one, got shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    if np.isnan(array).any():
        raise ValueError(f"{what} has {int(np.isnan(array).sum())} scores that are NaN")
    return array.astype(float)
