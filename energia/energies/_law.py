"""What is known of a distribution: its parameters in NumPyro's words, and its support."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from energia.supports import (
    Binary,
    Categorical,
    CholeskyCorrelation,
    Interval,
    Natural,
    Positive,
    Real,
    Simplex,
    Support,
)

Shape = tuple[int, ...]
Numbers = Mapping[str, np.ndarray]  # the parameters that are numbers which can be seen
MakeSupport = Callable[[Shape, Numbers], Support | None]


@dataclasses.dataclass(frozen=True)
class Law:
    """A distribution.

    Args:
        name: energia's name.
        summary: what it is, for the docstring.
        density: its density or mass function at $x$, in TeX.
        parameters: in order; `a|b` where one of two is given.
        support: from the shape of a value, and the parameters that are numbers.
        example: arguments of an example.
        numpyro: NumPyro's name, where it is another.
        checked: NumPyro's class that knows the constraints of the parameters, where `numpyro` is a
            function.
        sizes: leading arguments that are integers, not variables.
        optional: parameters by keyword alone, of which at least one is given.
        event: the number of axes of one draw.
        indexes: whether NumPyro takes the value as an index, and so as an integer.
    """

    name: str
    summary: str
    density: str
    parameters: tuple[str, ...]
    support: MakeSupport
    example: str
    numpyro: str = ""
    checked: str = ""
    sizes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    event: int = 0
    indexes: bool = False

    def class_name(self, parameters: tuple[str, ...], *, constraints: bool = False) -> str:
        """NumPyro's name of the class, or of the function, for the parameters given."""
        name = self.numpyro or self.name
        if constraints and self.checked:
            return self.checked
        form = next((p for p in parameters if p in ("probs", "logits")), None)
        return name + form.capitalize() if form else name


# --- supports


def real(shape: Shape, numbers: Numbers) -> Support:
    return Real(shape)


def positive(shape: Shape, numbers: Numbers) -> Support:
    return Positive(shape)


def unit(shape: Shape, numbers: Numbers) -> Support:
    return Interval(0.0, 1.0, shape)


def circle(shape: Shape, numbers: Numbers) -> Support:
    return Interval(-math.pi, math.pi, shape)


def binary(shape: Shape, numbers: Numbers) -> Support:
    return Binary(shape)


def natural(shape: Shape, numbers: Numbers) -> Support:
    return Natural(shape)


def up_to_total(shape: Shape, numbers: Numbers) -> Support:
    """Up to one number of trials; with several numbers the support is open above."""
    total = numbers.get("total_count")
    if total is None or np.unique(total).size != 1 or total.min() < 1:
        return Natural(shape)
    return Categorical(int(total.min()) + 1, shape)


def states(shape: Shape, numbers: Numbers) -> Support | None:
    """As many states as there are probabilities; unknown where these are a variable."""
    given = numbers.get("probs", numbers.get("logits"))
    return None if given is None else Categorical(given.shape[-1], shape)


def levels(shape: Shape, numbers: Numbers) -> Support | None:
    cutpoints = numbers.get("cutpoints")
    return None if cutpoints is None else Categorical(cutpoints.shape[-1] + 1, shape)


def simplex(shape: Shape, numbers: Numbers) -> Support:
    return Simplex(shape[-1], batch=shape[:-1])


def correlation(shape: Shape, numbers: Numbers) -> Support:
    return CholeskyCorrelation(shape[-1], batch=shape[:-2])


def _low(low: Any) -> Any:
    return low


def _high(high: Any) -> Any:
    return high


def _scale(scale: Any) -> Any:
    return scale


def between(shape: Shape, numbers: Numbers) -> Support:
    return Interval(numbers.get("low", _low), numbers.get("high", _high), shape)


def above_scale(shape: Shape, numbers: Numbers) -> Support:
    return Interval(numbers.get("scale", _scale), np.inf, shape)
