"""The verb's method 'tempering': log Z from swaps, a stepping stone at each level."""

import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
from scipy.special import expit

from energia.diagnostics import MAX_RHAT, ConvergenceWarning, mean_ess, rhat
from energia.energies._energy import Energy
from energia.evaluate._annealer import check_unbiased, step_kernel
from energia.evaluate._estimate import MIN_ESS, LogPartition
from energia.paths import Path
from energia.samplers import ParallelTempering
from energia.sampling import Draws, sample

REPLICAS = 16  # of a run, where the kernel does not say
FEWEST_RUNS = 4
DIVERGING = 0.005  # of the transitions at the target, above which mass may be missed
FARTHEST = 1e4  # nats between neighbours


def stepping_stones(
    energy: Energy | Path,
    kernel: Any,
    reference: Energy | None,
    *,
    num_chains: int,
    num_steps: int,
    key: jax.Array,
) -> LogPartition:
    """A run of parallel tempering, and what its swaps tell."""
    if isinstance(kernel, ParallelTempering):
        sampler = kernel if reference is None else kernel.replace(reference=reference)
    else:
        target = energy.target if isinstance(energy, Path) else energy
        moving = step_kernel(kernel, target, target.variables, num_chains)
        sampler = ParallelTempering(moving, num_replicas=REPLICAS, reference=reference)
    check_unbiased(sampler.kernel)
    replicas = energy.num_levels if isinstance(energy, Path) else sampler.num_replicas
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what matters here is told below
        draws = sample(
            energy,
            sampler,
            key=key,
            num_chains=max(FEWEST_RUNS, num_chains // replicas),
            num_warmup=num_steps,
            num_samples=num_steps,
            progress=False,
        )
    return from_swaps(draws)


def from_swaps(draws: Any) -> LogPartition:
    r"""$\log Z$ from draws of parallel tempering, by Bennett's estimate between neighbours.

    With $u$ the log ratio of the densities of pair i, up from a draw of the lower level, and $w$
    down from one of the upper, $s = \log Z_{i+1} / Z_i$ solves
    $\overline{\sigma(u - s)} = \overline{\sigma(w + s)}$. Terms are in (0, 1), so that no tail
    matters. The error is that of the sum over pairs, linearised: one series along the chains, with
    its effective sample size.
    """
    if not isinstance(draws, Draws) or "log_ratio_up" not in draws.stats:
        raise ValueError(
            f"method='tempering' needs draws= of ParallelTempering, got {draws!r}; without draws= "
            "it makes its own"
        )
    if not isinstance(draws.tuned_sampler, ParallelTempering) or draws.run is None:
        raise ValueError(
            "draws= lack the reference that log Z counts from: load them with their energy, "
            "Draws.load(path, energy=E), and draw by ParallelTempering itself"
        )
    check_unbiased(draws.tuned_sampler.kernel)
    ups, downs = (
        np.nan_to_num(np.asarray(draws.stats[f"log_ratio_{way}"], np.float64), nan=-np.inf)
        for way in ("up", "down")
    )
    value = float(_at_reference(draws.run, draws.tuned_sampler))
    influence = np.zeros(ups.shape[:2])
    for pair in range(ups.shape[2]):
        step, own = _between(ups[:, :, pair], downs[:, :, pair], pair)
        value, influence = value + step, influence + own
    ess = float(mean_ess(influence)) if np.ptp(influence) > 0 else float(influence.size)
    stderr = float(influence.std() / np.sqrt(ess))
    verdict, lp = draws.diagnose(show=False), np.asarray(draws.stats["lp"])
    problems = list[str]()
    if (swaps := verdict.tempering) is not None:
        problems = swaps.problems() + swaps.carried(verdict.min_ess, "an entry", lp.size)
    if verdict.divergences > DIVERGING * influence.size:
        problems.append(
            f"{verdict.divergences} of {influence.size} transitions at the target diverged: where "
            "its energy curves too sharply for the kernel, mass is missed and log Z too low; "
            "another kernel, or other variables"
        )
    if np.ptp(lp) > 0 and (disagreement := rhat(lp)) > MAX_RHAT:
        problems.append(
            f"R-hat of the target's energy is {disagreement:.3f}, above {MAX_RHAT}: the runs have "
            "not seen the same mass; more num_steps, or a kernel that moves further"
        )
    if not ess >= MIN_ESS:
        problems.append(
            f"the effective number of draws behind log Z is {ess:.1f} of {influence.size}, below "
            f"{MIN_ESS:.0f}: more num_steps, or more replicas, "
            "kernel=ParallelTempering(..., num_replicas=32)"
        )
    levels = np.asarray(draws.stats["levels"])[0, -1]
    rate = draws.stats.get("acceptance_rate")
    return LogPartition(
        value=value,
        stderr=stderr,
        lower=-np.inf,
        upper=np.inf,
        ess=ess,
        method="tempering",
        num_chains=influence.size,
        num_steps=draws.num_samples,
        acceptance_rate=None if rate is None else float(np.mean(rate)),
        levels=levels,
        problems=tuple(problems),
    )


def _between(up: np.ndarray, down: np.ndarray, pair: int) -> tuple[float, np.ndarray]:
    """Log Z of the upper level less that of the lower, and each draw's influence on it."""
    from scipy.optimize import brentq  # its import changes the filters of warnings

    def excess(step: float) -> float:
        return float(expit(up - step).mean() - expit(down + step).mean())

    if not excess(-FARTHEST) > 0 > excess(FARTHEST):
        raise ValueError(
            f"levels {pair} and {pair + 1} of the ladder share no draw: take more replicas, or a "
            "reference nearer to the target"
        )
    step: float = brentq(excess, -FARTHEST, FARTHEST, xtol=1e-10)  # pyright: ignore[reportAssignmentType]
    risen, fallen = expit(up - step), expit(down + step)
    slope = (risen * (1 - risen)).mean() + (fallen * (1 - fallen)).mean()
    return step, (risen - fallen) / slope


@eqx.filter_jit
def _at_reference(run: Any, sampler: ParallelTempering) -> jax.Array:
    """Log Z of the reference."""
    exact = sampler.path(run.moved).exact()
    if exact is None:
        raise ValueError(
            "nobody knows log Z where the path begins: give a reference= with exact draws, or a "
            "path from one"
        )
    return exact.log_partition
