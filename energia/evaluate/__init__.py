"""How good a model is: log Z, likelihoods of data, and how far its draws are from data."""

from energia.evaluate._estimate import EvaluationWarning, LogPartition
from energia.evaluate._log_likelihood import LogLikelihood, log_likelihood
from energia.evaluate._log_partition import log_partition
from energia.evaluate._mmd import mmd

__all__ = [
    "EvaluationWarning",
    "LogLikelihood",
    "LogPartition",
    "log_likelihood",
    "log_partition",
    "mmd",
]
