"""Diagnostics of draws, computed by ArviZ."""

from energia.diagnostics._arviz import loo, mean_ess, rhat, summary_table, to_arviz
from energia.diagnostics._diagnose import (
    MAX_RHAT,
    ConvergenceWarning,
    Diagnosis,
    Kind,
    diagnose,
    preload,
    quick_check,
)

__all__ = [
    "MAX_RHAT",
    "ConvergenceWarning",
    "Diagnosis",
    "Kind",
    "diagnose",
    "loo",
    "mean_ess",
    "preload",
    "quick_check",
    "rhat",
    "summary_table",
    "to_arviz",
]
