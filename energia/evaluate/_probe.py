"""What a linear classifier can read from features."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from energia.evaluate._estimate import warn
from energia.evaluate._features import labelled
from energia.evaluate._frechet import mapped

STEPS = 1000
TOLERANCE = 1e-6  # of the gradient's largest entry


def linear_probe(
    train: Mapping[str, Any],
    held_out: Mapping[str, Any],
    *,
    features: Callable[[jax.Array], Any] | None = None,
    penalty: float = 1e-4,
) -> float:
    r"""The accuracy on held-out rows of a logistic regression on features.

    Of features $z$, scaled to mean 0 and standard deviation 1 over the training rows, the weights
    $W$ and biases $b$ minimise

    $\tfrac1n \sum_i -\log \operatorname{softmax}(W z_i + b)_{y_i} + \tfrac\lambda2 \lVert W
    \rVert^2$,

    a convex problem, solved by L-BFGS in float64: there is no chance in it.

    Args:
        train: rows x, shape (rows, \*shape), and labels y, integers from 0, shape (rows,).
        held_out: likewise.
        features: a function of one row whose values are an array, such as the hidden layer of an
            energy; None: the entries of x.
        penalty: $\lambda$, positive.

    Returns:
        The share of held-out rows whose most probable class is theirs.

    Raises:
        TypeError, ValueError: for data that do not fit.

    References:
        Alain and Bengio (2017), Understanding intermediate layers using linear classifier probes.

    Example:
        >>> import energia as en, jax
        >>> train, test = (en.data.moons(500, key=jax.random.key(i)) for i in range(2))
        >>> 0.8 < en.evaluate.linear_probe(train, test) < 0.95
        True
    """
    (x, y), (other, wanted) = labelled(train, "train"), labelled(held_out, "held_out")
    if x.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"train and held_out must have rows of one shape, got {x.shape[1:]} and "
            f"{other.shape[1:]}"
        )
    if not 0 < penalty < np.inf:
        raise ValueError(f"penalty= must be a positive number, got {penalty}")
    x = mapped(features, x, "x") if features else x.reshape(len(x), -1)
    other = mapped(features, other, "x") if features else other.reshape(len(other), -1)
    x, other = x.astype(float), other.astype(float)
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    weights, slope = _regression((x - centre) / scale, y, float(penalty))
    if slope > 100 * TOLERANCE:
        advice = "a larger penalty= makes it easier"
        warn((f"the logistic regression stopped where its gradient is {slope:.2g}: {advice}",))
    scores = _extended((other - centre) / scale) @ weights
    return float(np.mean(scores.argmax(1) == wanted))


def _extended(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.ones((len(rows), 1))], 1)


def _regression(rows: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """The weights, with the biases as their last row, and the largest slope that is left."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    rows, classes = _extended(rows), int(y.max()) + 1
    targets = np.eye(classes)[y]
    shrunk = penalty * (np.arange(rows.shape[1]) < rows.shape[1] - 1)[:, None]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, classes)
        log_p = log_softmax(rows @ weights, axis=1)
        gradient = rows.T @ (np.exp(log_p) - targets) / len(rows) + shrunk * weights
        value = -np.mean(log_p[targets > 0]) + 0.5 * np.sum(shrunk * weights**2)
        return float(value), gradient.ravel()

    options = {"maxiter": STEPS, "gtol": TOLERANCE, "ftol": 0.0}
    start = np.zeros(rows.shape[1] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(-1, classes), float(np.abs(loss(found.x)[1]).max())
