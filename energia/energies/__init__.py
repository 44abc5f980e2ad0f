"""Energies and their algebra. Every name here stands in `energia` itself."""

from energia.energies._algebra import mixture
from energia.energies._energy import Energy
from energia.energies._function import energy
from energia.energies._total import total
from energia.energies._trainable import constant
from energia.energies.analytic import DoubleWell, Funnel, Ring, Rosenbrock, Uniform
from energia.energies.boltzmann import RBM
from energia.energies.gaussian import Gaussian, GaussianMixture
from energia.energies.ising import Ising, Potts
from energia.energies.neural import MLPEnergy

__all__ = [
    "RBM",
    "DoubleWell",
    "Energy",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "Ising",
    "MLPEnergy",
    "Potts",
    "Ring",
    "Rosenbrock",
    "Uniform",
    "constant",
    "energy",
    "mixture",
    "total",
]
