"""The verb `fit` and what it returns."""

from energia.training._fit import fit
from energia.training._pretrain import pretrain
from energia.training._result import Fit
from energia.training._run import TrainingWarning

__all__ = ["Fit", "TrainingWarning", "fit", "pretrain"]
