"""The verdict on the ladder of parallel tempering: swaps, round trips, barrier."""

import dataclasses
from collections.abc import Mapping

import numpy as np

BROKEN = 0.05  # a mean acceptance rate of swaps below which a pair hardly swaps
MIN_ROUND_TRIPS = 10  # a chain
LITTLE = 0.1  # a barrier that tells nothing of modes
KEPT = 0.5  # the share of the round trips that the swaps promise
NEW = 0.2  # effective draws a round trip, below which trips bring nothing new
ENOUGH = 400  # effective draws a chain, with which they need not


@dataclasses.dataclass(frozen=True)
class Tempering:
    r"""What the swaps of parallel tempering tell.

    Attributes:
        levels: the values of the path's variable from the reference to the target, shape (n,).
        swap_rates: mean acceptance rate of the swaps between neighbours, shape (n - 1,).
        round_trips: how often a replica went from the reference to the target and back, by chain.
        barrier: the global barrier $\Lambda$: the sum of the mean rejections.
        expected: the round trips a chain that such swaps promise, steps
            $/ (2 + 2 \sum_i r_i / (1 - r_i))$ with $r_i$ the mean rejections: if kernels forget
            where they were at each level. With many replicas it is steps $/ (2 + 2 \Lambda)$.
        advised: how many replicas to take, about $2 \Lambda + 1$.

    References:
        Syed, Bouchard-Côté, Deligiannidis and Doucet (2022), Non-reversible parallel tempering: a
        scalable highly parallel MCMC scheme.
    """

    levels: np.ndarray
    swap_rates: np.ndarray
    round_trips: np.ndarray
    barrier: float
    expected: float
    advised: int

    def problems(self) -> list[str]:
        """What is wrong, each with its numbers and advice."""
        found = []
        replicas, levels = len(self.levels), self.levels
        for pair in np.nonzero(~(self.swap_rates >= BROKEN))[0]:
            found.append(
                f"the ladder is broken between {pair} and {pair + 1} (levels {levels[pair]:.4g} "
                f"and {levels[pair + 1]:.4g}): {self.swap_rates[pair]:.1%} of their swaps are "
                f"accepted; take more than {replicas} replicas, a longer warm-up, or a reference "
                "closer to the target"
            )
        if (fewest := self.round_trips.min()) < MIN_ROUND_TRIPS:
            found.append(
                f"chain {self.round_trips.argmin()} made {fewest} round trips between the "
                f"reference and the target, below {MIN_ROUND_TRIPS}: what the reference finds "
                "hardly arrives; draw more, or take more replicas"
            )
        elif self.round_trips.mean() < KEPT * self.expected:
            found.append(
                f"there were {self.round_trips.mean():.0f} round trips a chain where swaps "
                f"accepted so often promise {self.expected:.0f}: replicas do not mix at their "
                "levels, and the swap rates only look healthy; move longer between swaps "
                "(ParallelTempering(Repeat(kernel, 5))), take more replicas, or another reference"
            )
        return found

    def carried(self, min_ess: float, where: str, num_draws: int) -> list[str]:
        """What is wrong when round trips bring back what they took.

        Args:
            min_ess: the smallest effective sample size of all entries, that of `where`.
            where: the entry.
            num_draws: of all chains.
        """
        trips = min(int(self.round_trips.sum()), num_draws)
        if not min_ess < min(NEW * trips, ENOUGH * len(self.round_trips)):
            return []
        return [
            f"the effective sample size of {where} is {min_ess:.0f} after {trips} round trips: "
            "replicas come back to the mode that they left, as when modes differ in width and the "
            "narrow one has no weight at the hot levels; its weight is less certain than its "
            "standard error says; draw more, or give a reference= with weight in every mode"
        ]

    def __str__(self) -> str:
        low, high = self.swap_rates.min(), self.swap_rates.max()
        trips = f"{self.round_trips.min()} to {self.round_trips.max()} round trips a chain"
        shown = ", ".join(f"{level:.3g}" for level in self.levels)
        told = (
            "; next to no barrier: the reference is all but the target, or what was fitted to the "
            "mass that was seen, and has not met other modes: reference= or init= as wide as the "
            "target may be would tell"
            if self.barrier < LITTLE
            else ""
        )
        return (
            f"global barrier {self.barrier:.2f}, about {self.advised} replicas do (there are "
            f"{len(self.levels)}); swap rates {low:.2f} to {high:.2f}; {trips} (expected "
            f"{self.expected:.0f}); levels {shown}{told}"
        )


def tempering(stats: Mapping[str, np.ndarray], thin: int) -> Tempering | None:
    """What the statistics of a run tell, or None where it was not tempered.

    Args:
        stats: those of the draws.
        thin: steps a draw.
    """
    if "swap_acceptance_rate" not in stats:
        return None
    rates = np.asarray(np.mean(stats["swap_acceptance_rate"], axis=(0, 1), dtype=np.float64))
    trips = stats["round_trips"]
    barrier = float(np.sum(1 - rates))
    steps = (trips.shape[1] - 1) * thin
    with np.errstate(divide="ignore"):
        expected = steps / (2 + 2 * float(np.sum((1 - rates) / rates)))
    return Tempering(
        levels=np.asarray(stats["levels"])[0, -1],
        swap_rates=rates,
        round_trips=trips[:, -1] - trips[:, 0],
        barrier=barrier,
        expected=expected,
        advised=max(2, round(2 * barrier) + 1),
    )
