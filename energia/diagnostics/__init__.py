"""Diagnostics of draws, computed by ArviZ."""

from energia.diagnostics._arviz import to_arviz
from energia.diagnostics._diagnose import (
    ConvergenceWarning,
    Diagnosis,
    diagnose,
    preload,
    quick_check,
)

__all__ = ["ConvergenceWarning", "Diagnosis", "diagnose", "preload", "quick_check", "to_arviz"]
