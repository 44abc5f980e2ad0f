"""How good a model is: log Z, likelihoods, distances of draws from data, scores of classifiers."""

from energia.evaluate._adversarial import adversarial_accuracy
from energia.evaluate._calibration import Calibration, calibration_error
from energia.evaluate._estimate import EvaluationWarning, LogPartition
from energia.evaluate._features import feature_network
from energia.evaluate._frechet import frechet_distance
from energia.evaluate._log_likelihood import LogLikelihood, log_likelihood
from energia.evaluate._log_partition import log_partition
from energia.evaluate._mmd import mmd
from energia.evaluate._probe import linear_probe
from energia.evaluate._ranking import auprc, auroc
from energia.evaluate._scores import ood_scores
from energia.evaluate._sliced import sliced_wasserstein
from energia.evaluate._stein import ksd

__all__ = [
    "Calibration",
    "EvaluationWarning",
    "LogLikelihood",
    "LogPartition",
    "adversarial_accuracy",
    "auprc",
    "auroc",
    "calibration_error",
    "feature_network",
    "frechet_distance",
    "ksd",
    "linear_probe",
    "log_likelihood",
    "log_partition",
    "mmd",
    "ood_scores",
    "sliced_wasserstein",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
