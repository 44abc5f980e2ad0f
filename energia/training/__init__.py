"""The verb `fit` and what it returns."""

from energia.training._fit import Fit, TrainingWarning, fit

__all__ = ["Fit", "TrainingWarning", "fit"]
