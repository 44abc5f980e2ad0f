"""Objectives by name: `en.objectives.names()` lists them, `register` adds one."""

from energia.objectives._buffer import ReplayBuffer
from energia.objectives._objective import NotADensity, Objective, registry
from energia.objectives.contrastive import CD
from energia.objectives.denoising import DSM
from energia.objectives.jem import JEM
from energia.objectives.likelihood import MLE
from energia.objectives.noise_contrastive import CNCE, NCE
from energia.objectives.persistent import PCD
from energia.objectives.recovery import DRL
from energia.objectives.score_matching import SM, SSM

register = registry.register
names = registry.names

__all__ = [
    "CD",
    "CNCE",
    "DRL",
    "DSM",
    "JEM",
    "MLE",
    "NCE",
    "PCD",
    "SM",
    "SSM",
    "NotADensity",
    "Objective",
    "ReplayBuffer",
    "names",
    "register",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
