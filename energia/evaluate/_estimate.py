"""What an estimate of log Z tells, and when it cannot be trusted."""

import dataclasses
import warnings

import numpy as np

from energia.diagnostics import _arviz

MIN_ESS = 20.0
MAX_TAIL = 0.7  # Pareto shape
UNEVEN = 0.7  # of the weights are effective: above, no tail matters that has been seen
WIDE = 3.0  # standard errors from a value to its bounds


class EvaluationWarning(UserWarning):
    """An estimate that should not be trusted, as far as can be seen; the message has the numbers.

    Attributes:
        problems: what is wrong, each with its numbers and advice.

    Example:
        >>> import energia as en
        >>> raise en.evaluate.EvaluationWarning("3 weights of 128 are effective")
        Traceback (most recent call last):
            ...
        energia.evaluate._estimate.EvaluationWarning: the estimate should not be trusted:
          3 weights of 128 are effective
    """

    def __init__(self, problems: str | tuple[str, ...] | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n  ".join(["the estimate should not be trusted:", *self.problems])


@dataclasses.dataclass(frozen=True, repr=False)
class LogPartition:
    r"""An estimate of $\log Z = \log \int e^{-E}$.

    `float(result)` is its value.

    Attributes:
        value: the estimate, in nats.
        stderr: its standard error; 0 where it is exact up to rounding.
        lower: below $\log Z$ but for chance: three standard errors below an estimate whose expected
            value is at most $\log Z$. `-inf` where the method has no such side.
        upper: above $\log Z$ but for chance, likewise; `inf` where the method has no such side.
        ess: the effective number of independent weights, an absolute number out of `num_chains`
            (of the smaller side, where there are two); None where there are no weights.
        method: how it was found.
        num_chains: how many weights there are; 0 where there are none.
        num_steps: levels from the reference to the target; 0 where there are none.
        log_weights: the logarithms of the weights of $Z$ (of $1/Z$ for 'raise'), shape
            (num_chains,); None where there are none, or two sides.
        sides: of a 'bracket' what 'ais' and 'raise' gave, of which the first is what the literature
            reports; else none.
        acceptance_rate: the mean over all moves; None where the kernel tells none.
        levels: the values of the path's variable, reference to target; None where there are none.
        problems: why it should not be trusted, each with its numbers and advice.
        notes: what to know that is no fault.

    Example:
        >>> import energia as en
        >>> result = en.evaluate.log_partition(en.DoubleWell(3.0))
        >>> round(float(result), 3), result.method, result.ok
        (0.114, 'quadrature', True)
    """

    value: float
    stderr: float
    lower: float
    upper: float
    ess: float | None
    method: str
    num_chains: int = 0
    num_steps: int = 0
    log_weights: np.ndarray | None = None
    sides: "tuple[LogPartition, ...]" = ()
    acceptance_rate: float | None = None
    levels: np.ndarray | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.problems

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        text = f"log Z = {self.value:.7g}"
        if self.stderr:
            text += f" ± {self.stderr:.2g}"
        if np.isfinite(self.lower) and np.isfinite(self.upper) and self.lower < self.upper:
            text += f" in [{self.lower:.7g}, {self.upper:.7g}]"
        weights = "" if self.ess is None else f", ESS {self.ess:.0f} of {self.num_chains}"
        verdict = "" if self.ok else ", not to be trusted"
        notes = ", see .notes" if self.notes else ""
        return f"LogPartition({text} by {self.method}{weights}{verdict}{notes})"


def warn(problems: tuple[str, ...]) -> None:
    """Warn the caller of a public function of this folder."""
    if problems:
        warnings.warn(EvaluationWarning(problems), stacklevel=3)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """The mean of weights, on the log scale.

    Args:
        log_mean: the logarithm of their mean.
        stderr: its standard error.
        ess: the effective number of independent weights.
        problems: why the mean cannot be trusted.
    """

    log_mean: float
    stderr: float
    ess: float
    problems: tuple[str, ...]


def weighted(log_weights: np.ndarray, ancestors: np.ndarray | None = None) -> Weighted:
    r"""The mean of weights, with its error from how they are shared among independent ancestors.

    With $W_i$ the share of all that descends from start $i$ of N, the variance of the mean, by its
    square, is about $(\sum_i W_i^2 - 1/N)\,N/(N-1)$: that of independent weights where nothing was
    resampled, and a consistent estimate where it was.

    References:
        Chan and Lai (2013), A general theory of particle filters in hidden Markov models and some
        applications. Lee and Whiteley (2018), Variance estimation in the particle filter.
    """
    count = len(log_weights)
    if np.isnan(log_weights).any():
        raise ValueError(
            f"{int(np.isnan(log_weights).sum())} of {count} weights are not a number: the energy "
            "is NaN, or infinite on both sides of a level, somewhere on the path"
        )
    largest = np.max(log_weights)
    if not np.isfinite(largest):
        raise ValueError(
            f"the largest log weight is {largest}: no chain ended where the energy is finite; "
            "choose a reference= whose draws lie where it is"
        )
    weights = np.exp(log_weights.astype(np.float64) - largest)
    shares = np.bincount(
        np.arange(count) if ancestors is None else ancestors, weights / weights.sum(), count
    )
    variance = max(float(shares @ shares) - 1 / count, 0.0) * count / max(count - 1, 1)
    ess = 1 / float(shares @ shares)
    problems = []
    if ess < MIN_ESS:
        problems.append(
            f"the effective number of weights is {ess:.1f} of {count}, below {MIN_ESS:.0f}: more "
            "num_steps, more num_chains, or a reference nearer to the target"
        )
    elif ancestors is None and ess < UNEVEN * count and (tail := _heavy(log_weights)) is not None:
        problems.append(tail)
    log_mean = float(largest + np.log(weights.mean()))
    return Weighted(log_mean, float(np.sqrt(variance)), ess, tuple(problems))


def _heavy(log_weights: np.ndarray) -> str | None:
    """What is wrong with the tail of weights, by the shape of a Pareto fitted to it."""
    finite = log_weights[np.isfinite(log_weights)]
    if len(finite) < 50 or np.ptp(finite) < 0.1:
        return None
    shape = _arviz.pareto_k(finite.astype(np.float64))
    if not shape > MAX_TAIL:
        return None
    return (
        f"the weights have a heavy tail, Pareto k {shape:.2f} above {MAX_TAIL}: the standard error "
        "may be too small; more num_steps, or a reference with wider tails"
    )
