"""energia: composable energy-based models in JAX.

An energy is a scalar function of named variables; everything else is an operation on energies.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("energia")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

from energia import samplers
from energia.diagnostics import ConvergenceWarning
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
)
from energia.sampling import Draws, sample
from energia.supports import (
    Binary,
    Categorical,
    Interval,
    Ordered,
    Positive,
    Real,
    Simplex,
    Spin,
)
