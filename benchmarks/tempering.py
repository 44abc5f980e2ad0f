"""Parallel tempering and sequential Monte Carlo on targets of several modes, side by side.

    python benchmarks/tempering.py
    python benchmarks/tempering.py --targets bimodal_50 --plot tempering.png

Each target is written as a function, so that nothing is known of it but its energy. Told are, of
one run of 4 chains: the weight of a mode with its standard error and the exact one, the effective
sample size of the indicator of that mode (of particles: from the spread over the runs), the
smallest bulk effective sample size of all entries; of parallel tempering the global barrier, the
swap rates, the round trips beside those that the swaps promise, and the verdict; of sequential
Monte Carlo the estimate of log Z with its error; evaluations of gradients, and seconds with and
without compiling.

With `--plot`: barrier and swap rates along the ladders, and the error of log Z against seconds of
annealed importance sampling, sequential Monte Carlo and stepping stones of parallel tempering, from
the fixed, wide Gaussian, over five seeds and three budgets.

`wide` is the same ladder from a fixed, wide Gaussian in place of the fitted reference: where modes
differ in width, the narrow one has no weight at the hot levels, swaps look healthy all the same,
and only the effective sample size of the mode tells.
"""

import argparse
import math
import time
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import energia as en
from energia.diagnostics import mean_ess

CHAINS, WARMUP, DRAWS = 4, 1000, 3000
BUDGETS, SEEDS = (100, 300, 1000), 5  # of log Z


class Target(NamedTuple):
    """An energy, an indicator whose mean is known, and the exact log Z."""

    energy: en.Energy
    reference: en.Energy
    inside: Any
    share: float
    log_partition: float
    replicas: int
    init: Any = None


def bimodal(size: int) -> Target:
    """0.75 N(0, I) + 0.25 N(4 e1, 0.6² I)."""

    @en.energy(x=en.Real((size,)))
    def energy(x):
        near = math.log(0.75) - 0.5 * jnp.sum(x**2)
        far = jnp.sum((x.at[0].add(-4.0) / 0.6) ** 2)
        far = math.log(0.25) - size * math.log(0.6) - 0.5 * far
        return 0.5 * size * math.log(2 * math.pi) - jnp.logaddexp(near, far)

    def inside(x):  # nearer to the narrow mode, in standard deviations: of mass 0.25 but for 1e-4
        return jnp.sum((x.at[0].add(-4.0) / 0.6) ** 2) + 2 * size * math.log(0.6) < jnp.sum(x**2)

    wide = en.Gaussian(np.zeros(size), scale=3.0)
    return Target(energy, wide, inside, 0.25, 0.0, 12)


def forty_modes() -> Target:
    """Forty normals of unit scale in [-40, 40]²; the share of those on the right."""
    means = jax.random.uniform(jax.random.key(0), (40, 2), minval=-40.0, maxval=40.0)

    @en.energy(x=en.Real((2,)))
    def energy(x):
        return math.log(2 * math.pi * 40) - jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, 1))

    share = float(jnp.mean(jax.scipy.stats.norm.cdf(means[:, 0])))
    wide = en.Gaussian(np.zeros(2), scale=25.0)
    starts = np.random.default_rng(0).uniform(-40, 40, (CHAINS, 2))
    return Target(energy, wide, lambda x: x[0] > 0, share, 0.0, 8, starts)


def many_wells() -> Target:
    """Sixteen copies of exp(0.5 d + 6 d² - d⁴) N(v; 0, 1); the share of d > 0 in the first."""

    @en.energy(x=en.Real((32,)))
    def energy(x):
        d, v = x[:16], x[16:]
        return jnp.sum(d**4 - 6 * d**2 - 0.5 * d) + 0.5 * jnp.sum(v**2)

    grid = np.linspace(-5, 5, 20_001)
    density = np.exp(0.5 * grid + 6 * grid**2 - grid**4)
    share = density[grid > 0].sum() / density.sum()
    wide = en.Gaussian(np.zeros(32), scale=2.0)
    return Target(energy, wide, lambda x: x[0] > 0, float(share), 164.695675, 14)


TARGETS = {
    "bimodal_10": lambda: bimodal(10),
    "bimodal_50": lambda: bimodal(50),
    "forty_modes": forty_modes,
    "many_wells": many_wells,
}


def run(target: Target, sampler: Any, key: jax.Array) -> tuple[en.Draws, float, float]:
    """Draws, and the seconds of a first and of a second run."""
    particles = isinstance(sampler, en.samplers.SMC)
    options: dict[str, Any] = {"num_chains": CHAINS, "num_samples": DRAWS}
    if not particles:
        options |= {"num_warmup": WARMUP, "init": target.init}
    seconds = []
    for number in (0, 1):
        begin = time.perf_counter()
        own = jax.random.fold_in(key, number)
        draws = en.sample(target.energy, sampler, key=own, progress=False, **options)
        seconds.append(time.perf_counter() - begin)
    return draws, *seconds


def report(name: str, target: Target, side: str, draws: en.Draws, first: float, second: float):
    """One line of the table, and the verdict of a tempered run."""
    inside = np.asarray(jax.vmap(jax.vmap(target.inside))(draws["x"]), np.float64)
    if isinstance(draws.sampler, en.samplers.SMC):  # runs are independent, particles are not
        error = inside.mean(axis=1).std(ddof=1) / math.sqrt(CHAINS)
        ess = target.share * (1 - target.share) / max(error, 1e-9) ** 2
    else:
        ess = mean_ess(inside) if 0 < inside.mean() < 1 else math.nan
        error = math.sqrt(inside.var() / ess) if ess == ess else math.nan
    verdict = draws.diagnose(show=False)
    print(
        f"{name:12} {side:12} {inside.mean():7.3f} ± {error:5.3f} ({target.share:5.3f}) "
        f"{ess:8.0f} {verdict.min_ess:8.0f} {first:8.1f} {second:7.1f}  "
        f"{'ok' if verdict.ok else 'NOT OK'}"
    )
    if verdict.tempering is not None:
        print(f"    {verdict.tempering}")
    if "log_partition" in draws.stats:
        runs = np.asarray(draws.stats["log_partition"])[:, 0]
        off = runs.mean() - target.log_partition
        print(f"    log Z off by {off:+.3f} ± {runs.std(ddof=1) / math.sqrt(CHAINS):.3f}")
    for problem in verdict.problems:
        print(f"    - {problem}")
    return verdict.tempering


def errors(target: Target) -> dict[str, np.ndarray]:
    """By method, for each budget the median seconds and the root mean square error of log Z."""
    ladder = en.samplers.ParallelTempering("hmc", num_replicas=target.replicas)
    found = {}
    for method, kernel in {"ais": "hmc", "smc": "hmc", "tempering": ladder}.items():
        rows = []
        for steps in BUDGETS:
            runs = []
            for seed in range(-1, SEEDS):  # the first one compiles
                begin = time.perf_counter()
                result = en.evaluate.log_partition(
                    target.energy,
                    method,
                    key=jax.random.key(seed % 2**31),
                    reference=target.reference,
                    kernel=kernel,
                    num_steps=steps,
                )
                seconds = time.perf_counter() - begin
                if seed >= 0:
                    runs.append((seconds, (result.value - target.log_partition) ** 2))
            seconds, squares = np.array(runs).T
            rows.append((np.median(seconds), math.sqrt(squares.mean())))
            print(f"    log Z by {method}, {steps} steps: {rows[-1][1]:.3f} in {rows[-1][0]:.2f} s")
        found[method] = np.array(rows)
    return found


def plot(found: dict[str, Any], accuracy: dict[str, Any], path: str) -> None:
    """Barrier along the ladder, swap rates of each pair, and the error of log Z."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, (left, right, last) = plt.subplots(1, 3, figsize=(17, 4.5), layout="constrained")
    for label, told in found.items():
        barrier = np.concatenate([[0.0], np.cumsum(1 - told.swap_rates)])
        left.plot(told.levels, barrier, marker=".", label=label)
        right.plot(np.arange(len(told.swap_rates)), told.swap_rates, marker=".", label=label)
    left.set(xlabel="inverse temperature", ylabel="barrier up to there", title="Barrier")
    right.set(xlabel="pair", ylabel="swap acceptance rate", ylim=(0, 1), title="Swaps")
    right.legend(fontsize="small", loc="lower left")
    markers = dict(zip(("ais", "smc", "tempering"), "osD", strict=True))
    for number, (name, methods) in enumerate(accuracy.items()):
        for method, rows in methods.items():
            last.loglog(*rows.T, f"-{markers[method]}C{number}", label=f"{name}, {method}")
    last.set(xlabel="seconds", ylabel="root mean square error of log Z", title="log Z")
    last.xaxis.set_minor_formatter(NullFormatter())
    last.yaxis.set_minor_formatter(NullFormatter())
    last.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--plot", metavar="FILE", help="save barrier and swap rates as an image")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", en.ConvergenceWarning)
    warnings.simplefilter("ignore", en.evaluate.EvaluationWarning)
    print(
        f"{'target':12} {'sampler':12} {'weight (exact)':>24} {'ESS mode':>8} {'min ESS':>8} "
        f"{'first s':>8} {'warm s':>7}"
    )
    found: dict[str, Any] = {}
    accuracy: dict[str, Any] = {}
    for name in arguments.targets:
        target = TARGETS[name]()
        tempered = en.samplers.ParallelTempering
        sides = {
            "tempering": tempered("hmc", num_replicas=target.replicas),
            "wide": tempered("hmc", num_replicas=target.replicas, reference=target.reference),
            "smc": en.samplers.SMC(reference=target.reference),
            "nuts": en.samplers.NUTS(),
        }
        for side, sampler in sides.items():
            draws, first, second = run(target, sampler, jax.random.key(0))
            told = report(name, target, side, draws, first, second)
            if told is not None:
                found[f"{name}, {side}"] = told
        if arguments.plot:
            accuracy[name] = errors(target)
    if arguments.plot:
        plot(found, accuracy, arguments.plot)


if __name__ == "__main__":
    main()
