"""Energies and their algebra. Every name here stands in `energia` itself."""

from energia.energies._algebra import mixture
from energia.energies._energy import Energy
from energia.energies._function import energy
from energia.energies._total import total
from energia.energies._trainable import constant
from energia.energies.analytic import DoubleWell, Funnel, Ring, Rosenbrock, Uniform
from energia.energies.gaussian import Gaussian, GaussianMixture
from energia.energies.neural import MLPEnergy

__all__ = [
    "DoubleWell",
    "Energy",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "MLPEnergy",
    "Ring",
    "Rosenbrock",
    "Uniform",
    "constant",
    "energy",
    "mixture",
    "total",
]
