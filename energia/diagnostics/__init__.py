"""Diagnostics of draws, computed by ArviZ."""

from energia.diagnostics._arviz import loo, mean_ess, summary_table, to_arviz
from energia.diagnostics._diagnose import (
    ConvergenceWarning,
    Diagnosis,
    Kind,
    diagnose,
    preload,
    quick_check,
)

__all__ = [
    "ConvergenceWarning",
    "Diagnosis",
    "Kind",
    "diagnose",
    "loo",
    "mean_ess",
    "preload",
    "quick_check",
    "summary_table",
    "to_arviz",
]
