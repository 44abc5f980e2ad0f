"""energia: composable energy-based models in JAX.

An energy is a scalar function of named variables; everything else is an operation on energies:
compose them with `+`, `*` and `.condition`, draw from them with `en.sample`, learn them with
`en.fit`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("energia")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

from energia import objectives, plot, samplers, testing
from energia.diagnostics import ConvergenceWarning, Diagnosis
from energia.energies import (
    DoubleWell,
    Energy,
    Funnel,
    Gaussian,
    GaussianMixture,
    MLPEnergy,
    Ring,
    Rosenbrock,
    Uniform,
    constant,
    energy,
    mixture,
    total,
)
from energia.sampling import Draws, sample
from energia.supports import (
    Binary,
    Categorical,
    CholeskyCorrelation,
    Interval,
    Natural,
    Ordered,
    Positive,
    Real,
    Simplex,
    Spin,
    Support,
)
from energia.training import Fit, TrainingWarning, fit

__all__ = [
    "Binary",
    "Categorical",
    "CholeskyCorrelation",
    "ConvergenceWarning",
    "Diagnosis",
    "DoubleWell",
    "Draws",
    "Energy",
    "Fit",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "Interval",
    "MLPEnergy",
    "Natural",
    "Ordered",
    "Positive",
    "Real",
    "Ring",
    "Rosenbrock",
    "Simplex",
    "Spin",
    "Support",
    "TrainingWarning",
    "Uniform",
    "constant",
    "energy",
    "fit",
    "mixture",
    "objectives",
    "plot",
    "sample",
    "samplers",
    "testing",
    "total",
]
