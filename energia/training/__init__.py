"""The verb `fit` and what it returns."""

from energia.training._fit import Fit, TrainingWarning, fit
from energia.training._pretrain import pretrain

__all__ = ["Fit", "TrainingWarning", "fit", "pretrain"]
