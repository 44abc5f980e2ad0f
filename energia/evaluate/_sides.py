"""The two sides of log Z: chains from the reference to the target, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from energia._mesh import check_mesh
from energia._types import Values
from energia.evaluate._annealer import Annealer, exact_draws, unconstrained_rows
from energia.evaluate._annealing import Run
from energia.evaluate._bridge import target_of
from energia.evaluate._estimate import WIDE, LogPartition, Weighted, weighted
from energia.paths import Path
from energia.sampling import Draws
from energia.sampling._starts import given_starts

MAX_GAP = 4.0  # between the two sides of a bracket, in standard errors


def forward(annealer: Annealer, *, resample: bool) -> LogPartition:
    """Annealed importance sampling, or sequential Monte Carlo where chains are resampled."""
    run = annealer.forward(resample=resample)
    log_weights = run.log_weights + annealer.log_partition_at_start()
    side = weighted(log_weights, run.ancestors if resample else None)
    return LogPartition(
        value=side.log_mean,
        stderr=side.stderr,
        lower=side.log_mean - WIDE * side.stderr,
        upper=np.inf,
        method="smc" if resample else "ais",
        log_weights=log_weights,
        **_common(annealer, run, side),
    )


def backward(annealer: Annealer, path: Path, positions: Values | None) -> LogPartition:
    """Reverse annealed importance sampling, from given positions or from such as it finds."""
    ancestors, notes = None, ()
    if positions is None:
        positions = exact_draws(annealer.bridge, path, annealer.num_chains, annealer.key)
        if positions is None:
            positions, ancestors = annealer.ends()
            notes = (
                "the reverse chains began at ends of 'smc', not at exact draws: the upper side "
                "holds as far as these have found the target's mass",
            )
    run = annealer.backward(positions)
    log_weights = run.log_weights - annealer.log_partition_at_start()
    side = weighted(log_weights, ancestors)
    return LogPartition(
        value=-side.log_mean,
        stderr=side.stderr,
        lower=-np.inf,
        upper=-side.log_mean + WIDE * side.stderr,
        method="raise",
        log_weights=log_weights,
        notes=notes,
        **_common(annealer, run, side),
    )


def bracket(annealer: Annealer, path: Path, positions: Values | None) -> LogPartition:
    """Both sides."""
    return between(forward(annealer, resample=False), backward(annealer, path, positions))


def between(low: LogPartition, high: LogPartition) -> LogPartition:
    """The mean of a lower and an upper side."""
    gap, error = high.value - low.value, float(np.hypot(low.stderr, high.stderr))
    problems = [f"'ais': {problem}" for problem in low.problems]
    problems += [f"'raise': {problem}" for problem in high.problems]
    if abs(gap) > MAX_GAP * error + 1e-3:
        problems.append(
            f"the bracket does not close: 'ais' gives {low.value:.6g} ± {low.stderr:.2g} and "
            f"'raise' {high.value:.6g} ± {high.stderr:.2g}; more num_steps, or draws= that are "
            "known to be of the target"
        )
    return dataclasses.replace(
        low,
        value=0.5 * (low.value + high.value),
        stderr=max(0.5 * error, 0.5 * abs(gap)),
        upper=high.upper,
        ess=min(low.ess or 0.0, high.ess or 0.0),
        method="bracket",
        log_weights=None,
        sides=(low, high),
        problems=tuple(problems),
        notes=high.notes,
    )


def _common(annealer: Annealer, run: Run, side: Weighted) -> dict[str, Any]:
    return {
        "ess": side.ess,
        "num_chains": len(run.log_weights),
        "num_steps": annealer.num_steps,
        "acceptance_rate": None if np.isnan(run.acceptance) else run.acceptance,
        "levels": annealer.values,
        "problems": side.problems,
    }


def given_draws(annealer: Annealer, path: Path, draws: Any) -> Values:
    """Rows of given draws in unconstrained space, evenly spaced where they are too many."""
    names = annealer.bridge.variables
    if isinstance(draws, Draws):
        draws = {n: np.asarray(draws[n]).reshape(-1, *draws[n].shape[2:]) for n in draws}
    elif not isinstance(draws, Mapping):
        draws = {path.variables[0]: draws}
    if missing := [name for name in names if name not in draws]:
        raise ValueError(f"draws= lacks {missing}; it needs {names}")
    counts = {name: np.shape(draws[name])[0] if np.ndim(draws[name]) else 0 for name in names}
    count = min(counts.values())
    if len(set(counts.values())) > 1 or count < 2:
        raise ValueError(f"draws= needs as many rows for each variable, at least 2; got {counts}")
    few = min(count, annealer.num_chains)
    check_mesh(annealer.mesh, few, f"draws= of {few} rows")
    rows = np.linspace(0, count - 1, few).round().astype(int)
    chosen = {name: np.asarray(draws[name])[rows] for name in names}
    starts = given_starts(target_of(path), chosen, few)
    return unconstrained_rows(annealer.bridge.joint, starts)
