"""Gradients of NUTS until its estimates are good, beside what was published for BlackJAX's.

    python benchmarks/gradients.py
    python benchmarks/gradients.py --targets banana --chains 16

For f = x², entry by entry, b² = (Ê f - E f)² / Var f along a chain. Told is how many gradients of
the sampling phase it takes until the median over chains of b² stays below 0.01: b² of the worst
entry, and its mean over the entries. A number of draws becomes one of gradients by the mean number
of gradients a draw. Published: github.com/reubenharry/sampler-benchmarks, NUTS of BlackJAX with a
diagonal metric and an acceptance rate of 0.8, its results of March 2026. Of energia's rates the
default rises from 0.8 to 0.95 where warm-up meets sharp curvature; 0.8 is what compares.

Brownian motion is inference-gym's BrownianMotionUnknownScalesMissingMiddleObservations; as it tells
no E x⁴, moments are those of a longer run of ours, with another key.
"""

import argparse
import itertools
import warnings
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

PUBLISHED = {
    "banana": (111_691, 83_598),
    "bimodal": (248_728, 20_500),
    "brownian_motion": (33_462, 6_270),
}
DRAWS = {"banana": 40_000, "bimodal": 60_000, "brownian_motion": 5_000}
LOW = 0.01

# inference-gym 0.0.5, Apache-2.0; steps 10 to 19 are missing
OBSERVED = (
    *(0.21592641, 0.118771404, -0.07945447, 0.037677474, -0.27885845),
    *(-0.1484156, -0.3250906, -0.22957903, -0.44110894, -0.09830782),
    *(-0.8786016, -0.83736074, -0.7384849, -0.8939254, -0.7774566),
    *(-0.70238715, -0.87771565, -0.51853573, -0.6948214, -0.6202789),
)


def banana():
    @en.energy(x=en.Real((2,)))
    def bent(x):
        return 0.5 * (x[0] / 10) ** 2 + 0.5 * (x[1] - 0.03 * (x[0] ** 2 - 100)) ** 2

    # x1 = 0.03 (x0² - 100) + z = 3 (w² - 1) + z with w and z standard normal
    second = np.array([100.0, 19.0])
    fourth = np.array([3e4, 81 * 60.0 + 6 * 9 * 2 * 1 + 3])  # E (w² - 1)⁴ = 60
    return bent, (second, fourth - second**2)


def bimodal():
    size, share, scale, away = 50, 0.25, 0.6, 4.0
    means = np.zeros((2, size))
    means[1, 0] = away
    energy = en.GaussianMixture(means, scales=[1.0, scale], weights=[1 - share, share])
    mean = means[1]
    second = (1 - share) + share * (mean**2 + scale**2)
    fourth = 3 * (1 - share) + share * (mean**4 + 6 * mean**2 * scale**2 + 3 * scale**4)
    return energy, (second, fourth - second**2)


def brownian_motion():
    seen = np.r_[0:10, 20:30]

    @en.energy(innovation=en.Positive(), observation=en.Positive(), locs=en.Real((30,)))
    def energy(innovation, observation, locs):
        steps = jnp.diff(locs, prepend=0.0)
        misses = (jnp.array(OBSERVED) - locs[seen]) / observation
        prior = sum(jnp.log(s) + jnp.log(s) ** 2 / 8 for s in (innovation, observation))
        walk = 0.5 * jnp.sum((steps / innovation) ** 2) + 30 * jnp.log(innovation)
        return prior + walk + 0.5 * jnp.sum(misses**2) + 20 * jnp.log(observation)

    long = en.sample(energy, "nuts", key=jax.random.key(10), num_chains=16, num_samples=20_000)
    squares = flat(long) ** 2
    return energy, (squares.mean((0, 1)), squares.var((0, 1)))


def flat(draws):
    """All entries of all variables: (chain, draw, entry)."""
    parts = [np.asarray(draws[name], float) for name in sorted(draws)]
    return np.concatenate([x.reshape(*x.shape[:2], -1) for x in parts], -1)


def crossing(errors):
    """How many draws until the median over chains stays low; None: it does not."""
    high = np.flatnonzero(np.median(errors, 0) > LOW)
    last = high[-1] + 1 if len(high) else 0
    return None if last == errors.shape[1] else last + 1


def rate_or_none(text):
    return None if text == "auto" else float(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--metric", default="auto")
    parser.add_argument(
        "--rates",
        nargs="+",
        type=rate_or_none,
        default=[None, 0.8],
        help="target acceptance rates; auto: the default",
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", en.ConvergenceWarning)
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "blackjax"))
    print(f"{packages}; {arguments.chains} chains, metric {arguments.metric!r}")
    print(f"{'target':<18}{'rate':<6}{'b²':<8}{'gradients':>11}{'published':>11}{'ratio':>7}")
    for target, rate in itertools.product(arguments.targets, arguments.rates):
        energy, (mean, variance) = globals()[target]()
        kernel = en.samplers.NUTS(metric=arguments.metric, target_acceptance_rate=rate)
        count = DRAWS[target]
        draws = en.sample(
            energy,
            kernel,
            key=jax.random.key(0),
            num_chains=arguments.chains,
            num_warmup=5000,
            num_samples=count,
        )
        a_draw = float(np.mean(np.asarray(draws.stats["n_steps"])))
        squares = flat(draws) ** 2
        running = np.cumsum(squares, 1) / np.arange(1, count + 1)[:, None]
        errors = (running - mean) ** 2 / variance
        for name, seen, published in zip(
            ("worst", "mean"), (errors.max(-1), errors.mean(-1)), PUBLISHED[target], strict=True
        ):
            reached = crossing(seen)
            text = f"{'never':>11}" if reached is None else f"{reached * a_draw:>11,.0f}"
            ratio = "" if reached is None else f"{reached * a_draw / published:>7.2f}"
            print(
                f"{target:<18}{rate or 'auto':<6}{name:<8}{text}{published:>11,}{ratio}", flush=True
            )


if __name__ == "__main__":
    main()
