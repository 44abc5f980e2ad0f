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
    "DiscreteSpace",
    "GradientBased",
    "Kernel",
    "Langevin",
    "Sampler",
    "VariableLength",
    "names",
    "register",
]
