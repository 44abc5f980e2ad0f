"""How good a model is: log Z, and likelihoods of data."""

from energia.evaluate._estimate import EvaluationWarning, LogPartition
from energia.evaluate._log_likelihood import LogLikelihood, log_likelihood
from energia.evaluate._log_partition import log_partition

__all__ = [
    "EvaluationWarning",
    "LogLikelihood",
    "LogPartition",
    "log_likelihood",
    "log_partition",
]
