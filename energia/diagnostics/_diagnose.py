"""The verdict on a set of chains: R-hat, effective sample size, divergences, frozen chains."""

import dataclasses
import importlib
import threading
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from energia.diagnostics import _arviz
from energia.diagnostics._tempering import Tempering, tempering

MAX_RHAT = 1.01
MIN_ESS_A_CHAIN = 100
MIN_BFMI = 0.3
MIN_ACCEPTANCE = 0.05
MAX_ENERGY_VARIANCE = 0.01
STUCK, MAX_STUCK = 0.01, 0.001  # an acceptance rate, and the share of particles below it
SCREENED = 4

Arrays = Mapping[str, np.ndarray]
Kind = Literal["chains", "particles", "minima"]  # what draws are


class ConvergenceWarning(UserWarning):
    """Chains that have not converged, as far as can be seen; the message has the numbers.

    Example:
        >>> import energia as en, warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", en.ConvergenceWarning)  # a run is known to be short
    """

    def __init__(self, problems: "str | list[str]"):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n  ".join(["the draws should not be trusted yet:", *self.problems])


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the checks found.

    Attributes:
        max_rhat: the largest rank-normalised split R-hat; NaN where it needs more chains or draws.
        min_ess: the smallest of bulk and tail effective sample sizes (tails of 5 %; ArviZ's summary
            takes 11 %).
        divergences: how many transitions diverged.
        bfmi: the smallest E-BFMI of a chain; None where the sampler tells no energy.
        frozen_chains: the chains that never moved.
        problems: what is wrong, each with its numbers and advice.
        notes: what to know that is no fault.
        tempering: of parallel tempering, what its swaps tell; else None.
        kind: of what: 'chains', 'particles' or 'minima'. Of the latter two nothing converges.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> draws = en.sample(en.Gaussian(jnp.zeros(2)), "nuts", key=jax.random.key(0))
        >>> verdict = draws.diagnose(show=False)
        >>> verdict.ok, verdict.divergences, verdict.max_rhat < 1.01
        (True, 0, True)
    """

    max_rhat: float
    min_ess: float
    divergences: int
    bfmi: float | None
    frozen_chains: tuple[int, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    tempering: Tempering | None = None
    kind: Kind = "chains"

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found."""
        return not self.problems

    def __str__(self) -> str:
        numbers = f"max R-hat {self.max_rhat:.4g}, "
        if not np.isnan(self.min_ess):  # particles have none
            numbers += f"min ESS {self.min_ess:.0f}, "
        numbers += f"{self.divergences} divergences"
        if self.bfmi is not None:
            numbers += f", min E-BFMI {self.bfmi:.2f}"
        verdict = "converged, as far as can be seen" if self.ok else "not to be trusted yet"
        if self.ok and self.kind != "chains":
            verdict = "nothing wrong found"
        lines = [f"{verdict}: {numbers}"]
        lines += [] if self.tempering is None else [f"  {self.tempering}"]
        lines += [f"  - {problem}" for problem in self.problems]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def preload() -> None:
    """Import ArviZ in the background: it takes about a second, which compiling can hide."""
    threading.Thread(target=importlib.import_module, args=("arviz_stats.base.array",)).start()


def diagnose(
    positions: Arrays,
    stats: Arrays,
    kind: Kind = "chains",
    *,
    bias: str | None = None,
    thin: int = 1,
) -> Diagnosis:
    """Check every entry of every variable; see `Draws.diagnose`."""
    return _check(positions, stats, list(_entries(positions)), kind, bias, thin)


def quick_check(
    positions: Arrays, stats: Arrays, kind: Kind = "chains", *, thin: int = 1
) -> list[str]:
    """The problems that `diagnose` would tell, from the entries that look worst.

    A split R-hat without ranks, of the values and of their distances to the median, ranks all
    entries in one pass; ArviZ's own numbers are then computed for the worst of them alone.
    """
    entries = list(_entries(positions))
    if len(entries) > SCREENED:
        worst = np.argsort([-_plain_rhat(draws) for _, draws in entries])[:SCREENED]
        entries = [entries[index] for index in worst]
    return list(_check(positions, stats, entries, kind, None, thin).problems)


def _check(
    positions: Arrays,
    stats: Arrays,
    entries: list[tuple[str, np.ndarray]],
    kind: Kind,
    bias: str | None,
    thin: int,
) -> Diagnosis:
    if kind == "minima":
        note = (
            "these are low points of the energy, no draws of exp(-E): there is nothing to converge"
        )
        return Diagnosis(np.nan, np.nan, 0, None, (), (), (note,), kind=kind)
    num_chains, num_draws = next(iter(positions.values())).shape[:2]
    swaps = tempering(stats, thin)
    if swaps is not None:  # modes that differ in depth show here
        entries = [*entries, ("lp", stats["lp"].astype(np.float64))]
    problems: list[str] = []
    chains = kind == "chains"
    frozen = _frozen(positions) if num_draws > 1 and chains else ()
    rhat, min_ess, rhat_at, ess_at = np.nan, np.inf, "", ""
    not_finite: list[str] = []
    constant: list[str] = []
    for name, draws in entries:
        if not np.isfinite(draws).all():
            not_finite.append(name)
        elif np.ptp(draws) == 0:  # it has an ESS of N and no R-hat
            constant.append(name)
        elif num_draws >= 4:
            if num_chains > 1 and not (value := _arviz.rhat(draws)) <= rhat:
                rhat, rhat_at = value, name
            # particles are in no order
            if chains and (value := _arviz.ess(draws)) < min_ess:
                min_ess, ess_at = value, name
    min_ess = min_ess if np.isfinite(min_ess) else np.nan
    if not_finite:
        problems.append(
            f"draws of {_first(not_finite)} are not finite: the step size is too large, or the "
            "energy is not finite there"
        )
    elif kind == "particles":
        problems += _of_particles(stats)
    elif nowhere := int(np.sum(~np.isfinite(stats.get("lp", 0.0)))):
        problems.append(
            f"{nowhere} of {num_chains * num_draws} draws lie where the energy is not finite: "
            "declare the support with .constrain, or use a kernel with a Metropolis step"
        )
    if frozen:
        which = f"{len(frozen)} of {num_chains} chains"
        if _moves(stats.get("lp"), frozen):
            problems.append(
                f"{which} moved, and what was kept of them never changed (chain {frozen[0]} "
                "first): collect= something else, or draw more"
            )
        else:
            problems.append(
                f"{which} never moved (chain {frozen[0]} first): the step size is too large, or "
                "the start is where the energy is not finite"
            )
    if num_draws < 4:
        problems.append(f"{num_draws} draws a chain are too few to check: R-hat and ESS need 4")
    elif num_chains < 2:
        problems.append("one chain cannot be checked against another: use num_chains=4")
    if rhat > MAX_RHAT:
        problems.append(
            f"R-hat of {rhat_at} is {rhat:.3f}, above {MAX_RHAT}: the chains disagree; run longer "
            "(more num_warmup, or extend), reparametrise, or temper"
        )
    if min_ess < MIN_ESS_A_CHAIN * num_chains:
        problems.append(
            f"the effective sample size of {ess_at} is {min_ess:.0f}, {min_ess / num_chains:.0f} a "
            f"chain, below {MIN_ESS_A_CHAIN}: draw more, or use a sampler that mixes faster"
        )
    divergences = int(np.sum(stats["diverging"])) if "diverging" in stats else 0
    if divergences:
        problems.append(
            f"{divergences} of {num_chains * num_draws} transitions diverged: take "
            "smaller steps (a higher target_acceptance_rate, or step_size=), or reparametrise "
            "where the energy curves sharply"
        )
    bfmi = _arviz.bfmi(stats["energy"]) if "energy" in stats and num_draws >= 4 else None
    if bfmi is not None and bfmi < MIN_BFMI:
        problems.append(
            f"E-BFMI is {bfmi:.2f}, below {MIN_BFMI}: the momentum cannot follow the energy's "
            "spread; reparametrise heavy tails or funnels"
        )
    rate = np.mean(stats["acceptance_rate"]) if "acceptance_rate" in stats else 1.0
    if not rate >= MIN_ACCEPTANCE:
        problems.append(f"the mean acceptance rate is {rate:.3f}: lower the step size")
    else:
        problems += _of_parts(stats)
    if "energy_error" in stats:  # told by a kernel without a Metropolis step
        size = sum(int(np.prod(draws.shape[2:])) for draws in positions.values())
        variance = float(np.mean(np.square(stats["energy_error"], dtype=np.float64))) / size
        if not variance <= MAX_ENERGY_VARIANCE:
            problems.append(
                f"the energy error has a variance of {variance:.2g} an entry, above "
                f"{MAX_ENERGY_VARIANCE}, and no Metropolis step takes the bias away that this "
                "brings: lower the step size, or use 'adjusted_mclmc'"
            )
    if swaps is not None and num_draws > 1:
        problems += swaps.problems() + swaps.carried(min_ess, ess_at, num_chains * num_draws)
    notes = [] if bias is None else [f"biased by design, not only by chance: {bias}"]
    if kind == "particles":
        notes.append(
            "R-hat compares runs, which agree on what is wrong alike: see that twice the levels or "
            "steps change nothing, or en.evaluate.ksd"
        )
    if deepest := int(np.sum(stats.get("reached_max_treedepth", 0))):
        notes.append(
            f"{deepest} of {num_chains * num_draws} trajectories were cut at the largest tree "
            "depth: slow, not wrong; reparametrise, or raise max_num_doublings"
        )
    if constant and num_draws > 1 and len(frozen) < num_chains:
        notes.append(f"every draw of {_first(constant)} is the same")
    told = tuple(problems), tuple(notes)
    return Diagnosis(rhat, min_ess, divergences, bfmi, frozen, *told, swaps, kind)


def _of_parts(stats: Arrays) -> list[str]:
    """Kernels of a combination that hardly ever move, beside others that do."""
    problems, prefix = [], "acceptance_rate_"
    for name in sorted(name for name in stats if name.startswith(prefix)):
        if not (rate := np.mean(stats[name])) >= STUCK:
            problems.append(
                f"the mean acceptance rate of {name.removeprefix(prefix)!r} is {rate:.3f}: lower "
                "its kernel's step size, or leave it out"
            )
    return problems


def _of_particles(stats: Arrays) -> list[str]:
    """Particles that lie nowhere, or were left behind, which every run has alike."""
    problems, count = [], stats["lp"].size
    if nowhere := int(np.sum(~np.isfinite(stats["lp"]))):
        problems.append(
            f"{nowhere} of {count} particles lie where the energy is not finite, which no draw "
            "does: take more levels or steps_per_level, or declare the support with .constrain"
        )
    rates = stats.get("acceptance_rate", np.ones(1))
    stuck = float(np.mean(rates < STUCK))
    if stuck > MAX_STUCK and np.mean(rates) >= MIN_ACCEPTANCE:
        problems.append(
            f"{stuck:.2%} of the particles were hardly moved in the end (acceptance rates below "
            f"{STUCK}), and may lie where the levels before left them: take more steps_per_level, "
            "smaller steps (target_acceptance_rate), or 'hmc'"
        )
    return problems


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _entries(positions: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Every scalar entry of every variable: its name, and its draws of shape (chain, draw)."""
    for name, draws in positions.items():
        flat = draws.reshape(*draws.shape[:2], -1)
        for index in range(flat.shape[-1]):
            where = np.unravel_index(index, draws.shape[2:]) if draws.ndim > 2 else ()
            label = name + (f"[{', '.join(str(i) for i in where)}]" if where else "")
            yield label, flat[..., index].astype(np.float64)


def _frozen(positions: Arrays) -> tuple[int, ...]:
    moved = [np.any(d != d[:, :1], axis=tuple(range(1, d.ndim))) for d in positions.values()]
    return tuple(int(chain) for chain in np.nonzero(~np.any(moved, axis=0))[0])


def _moves(lp: np.ndarray | None, chains: tuple[int, ...]) -> bool:
    """Whether the energy changes along each of these chains, by more than rounding."""
    if lp is None or not np.isfinite(own := lp[list(chains)].astype(np.float64)).all():
        return False
    return bool(np.all(np.ptp(own, axis=1) > 1e-3 * (1 + np.abs(own[:, 0]))))


def _plain_rhat(draws: np.ndarray) -> float:
    """Split R-hat without ranks, the larger of values and folded values."""
    half = draws.shape[1] // 2
    if half < 2:
        return 0.0
    split = np.concatenate([draws[:, :half], draws[:, -half:]])
    if not np.isfinite(split).all():
        return np.inf
    within = []
    for values in (split, np.abs(split - np.median(split))):
        spread = np.mean(np.var(values, axis=1, ddof=1))
        between = np.var(np.mean(values, axis=1), ddof=1)
        within.append(between / spread if spread > 0 else (np.inf if between > 0 else 0.0))
    return max(within)
