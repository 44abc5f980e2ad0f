"""energia: composable energy-based models in JAX.

An energy is a scalar function of named variables; everything else is an operation on energies.
"""

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
