"""Supports: the values that a variable takes, with a map to unconstrained space.

A support is the domain of the base measure, not an indicator: it never changes the value of an
energy. It says whether gradients make sense, how to draw a start, and how to map the variable to
an unconstrained space where gradient-based samplers move freely. Supports are frozen, hashable and
hold no arrays.
"""

from energia.supports._discrete import Binary, Categorical, Discrete, Natural, Spin
from energia.supports._interval import Interval
from energia.supports._real import Positive, Real
from energia.supports._support import Continuous, Support
from energia.supports._vectors import CholeskyCorrelation, Ordered, Simplex

__all__ = [
    "Binary",
    "Categorical",
    "CholeskyCorrelation",
    "Continuous",
    "Discrete",
    "Interval",
    "Natural",
    "Ordered",
    "Positive",
    "Real",
    "Simplex",
    "Spin",
    "Support",
]
