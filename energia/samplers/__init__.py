"""Samplers by name: `en.samplers.names()` lists them, `register` adds one."""

from energia.samplers._sampler import (
    AllChains,
    AlongPath,
    Biased,
    DiscreteSpace,
    GradientBased,
    Kernel,
    Minimiser,
    ParticleSampler,
    Sampler,
    VariableLength,
    registry,
)
from energia.samplers.annealing import Annealed, SimulatedAnnealing
from energia.samplers.auto import Auto
from energia.samplers.block_gibbs import BlockGibbs
from energia.samplers.combine import Cycle, RandomKernel, Repeat
from energia.samplers.discrete import DiscreteLangevin, GibbsWithGradients
from energia.samplers.ensemble import MEADS, ChEESHMC
from energia.samplers.gibbs import Gibbs
from energia.samplers.hamiltonian import HMC, NUTS, UnadjustedHMC
from energia.samplers.langevin import MALA, Barker, Langevin
from energia.samplers.microcanonical import MCLMC, AdjustedMCLMC
from energia.samplers.reverse_diffusion import ReverseDiffusion
from energia.samplers.slice import EllipticalSlice, Slice
from energia.samplers.smc import SMC
from energia.samplers.tempering import ParallelTempering
from energia.samplers.wrapper import BlackJAX

register = registry.register
Thin = Repeat  # n steps for one, of which the last is kept
names = registry.names

__all__ = [
    "HMC",
    "MALA",
    "MCLMC",
    "MEADS",
    "NUTS",
    "SMC",
    "AdjustedMCLMC",
    "AllChains",
    "AlongPath",
    "Annealed",
    "Auto",
    "Barker",
    "Biased",
    "BlackJAX",
    "BlockGibbs",
    "ChEESHMC",
    "Cycle",
    "DiscreteLangevin",
    "DiscreteSpace",
    "EllipticalSlice",
    "Gibbs",
    "GibbsWithGradients",
    "GradientBased",
    "Kernel",
    "Langevin",
    "Minimiser",
    "ParallelTempering",
    "ParticleSampler",
    "RandomKernel",
    "Repeat",
    "ReverseDiffusion",
    "Sampler",
    "SimulatedAnnealing",
    "Slice",
    "Thin",
    "UnadjustedHMC",
    "VariableLength",
    "names",
    "register",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
