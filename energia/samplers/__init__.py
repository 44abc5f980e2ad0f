"""Samplers by name: `en.samplers.names()` lists them, `register` adds one."""

from energia.samplers._sampler import (
    AllChains,
    Biased,
    DiscreteSpace,
    GradientBased,
    Kernel,
    Sampler,
    VariableLength,
    registry,
)
from energia.samplers.block_gibbs import BlockGibbs
from energia.samplers.combine import Cycle, RandomKernel, Repeat
from energia.samplers.discrete import DiscreteLangevin, GibbsWithGradients
from energia.samplers.gibbs import Gibbs
from energia.samplers.hamiltonian import HMC, NUTS
from energia.samplers.langevin import MALA, Langevin

register = registry.register
names = registry.names

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "AllChains",
    "Biased",
    "BlockGibbs",
    "Cycle",
    "DiscreteLangevin",
    "DiscreteSpace",
    "Gibbs",
    "GibbsWithGradients",
    "GradientBased",
    "Kernel",
    "Langevin",
    "RandomKernel",
    "Repeat",
    "Sampler",
    "VariableLength",
    "names",
    "register",
]
