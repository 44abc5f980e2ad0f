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

from energia import objectives, samplers, testing
from energia.diagnostics import ConvergenceWarning, Diagnosis
from energia.energies import (
    RBM,
    DoubleWell,
    Energy,
    Funnel,
    Gaussian,
    GaussianMixture,
    Ising,
    MLPEnergy,
    Potts,
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
    "RBM",
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
    "Ising",
    "MLPEnergy",
    "Natural",
    "Ordered",
    "Positive",
    "Potts",
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
    "sample",
    "samplers",
    "testing",
    "total",
]
