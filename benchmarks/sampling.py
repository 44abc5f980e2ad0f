"""NUTS by `en.sample`, by a hand-written BlackJAX loop and by NumPyro, side by side in one run.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --targets eight_schools --processes 1 --repeats 3
    python benchmarks/sampling.py --targets eight_schools --acceptance-rate 0.95

All sample the same density of unconstrained positions with 4 chains, 1,000 warm-up steps and 1,000
draws, with each library's default tuning, or with one acceptance rate that all are tuned to, from
starts of the same law, Uniform(-2, 2): energia takes the lowest of 16 for each chain, the others
one. Hand-written is `blackjax.window_adaptation` and a scan in one compiled function, chains by
`vmap` (the usual recipe) and by `lax.map`; NumPyro runs with each of its chain methods ('parallel'
over 4 host devices that XLA is told to make), inside one `jax.jit`, which spares it compiling at
every call.

Each library runs in a process of its own with no compilation cache; all of them make their first
call in turn, then their warm runs in turn, with one key a turn. Told are medians: seconds of a
first call (compile included) and of a warm run, the smallest bulk effective sample size of all
entries, that size by the second of the warm run, warm-up and energia's check of convergence
included, gradients of the sampling phase by the effective draw, and how many draws came by a
transition that diverged. Numbers in brackets count seconds of the process on all cores, which other
work on the machine disturbs less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

CHAINS, WARMUP, DRAWS = 4, 1000, 1000
TARGETS = (
    "eight_schools",
    "german_credit",
    "correlated_gaussian",
    "kidiq",
    "ark",
    "earnings",
    "garch",
)
HAND_WRITTEN = ("blackjax vmap", "blackjax lax.map")
NUMPYRO = ("numpyro sequential", "numpyro vectorized", "numpyro parallel")
SIDES = ("energia", *HAND_WRITTEN, *NUMPYRO)


# --- one library in its process: seconds, effective sample size and gradients of each run


def by_energia(energy, method, rate):
    import numpy as np

    import energia as en

    nuts = en.samplers.NUTS(target_acceptance_rate=rate)

    def run(key):
        draws = en.sample(
            energy, nuts, key=key, num_chains=CHAINS, num_warmup=WARMUP, num_samples=DRAWS
        )
        steps, diverging = (np.asarray(draws.stats[name]) for name in ("n_steps", "diverging"))
        return {n: np.asarray(x) for n, x in draws.items()}, steps, diverging

    return run


def _potential(energy):
    """The energy of unconstrained positions, and starts for all chains."""
    import jax
    import jax.numpy as jnp

    from energia.energies._unconstrained import Unconstrained

    target = Unconstrained(energy)

    def starts(key):
        keys = jax.random.split(key, len(target.supports))
        return {
            name: jax.random.uniform(k, (CHAINS, *support.shape), jnp.float32, -2.0, 2.0)
            for k, (name, support) in zip(keys, target.supports.items(), strict=True)
            if support is not None
        }

    return target.at, starts


def by_blackjax(energy, method, rate):
    import blackjax
    import jax

    potential, starts = _potential(energy)

    def log_density(position):
        return -potential(position)

    def chain(key, position):
        tune, draw = jax.random.split(key)
        warmup = blackjax.window_adaptation(
            blackjax.nuts,
            log_density,
            target_acceptance_rate=rate or 0.8,
            adaptation_info_fn=lambda *_: None,
        )
        (state, parameters), _ = warmup.run(tune, position, WARMUP)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state, key):
            state, info = kernel.step(key, state)
            return state, (
                state.position,
                info.num_integration_steps,
                info.is_divergent,
                info.acceptance_rate,
                info.energy,
            )

        return jax.lax.scan(step, state, jax.random.split(draw, DRAWS))[1]

    def one_after_another(keys, positions):
        return jax.lax.map(lambda each: chain(*each), (keys, positions))

    compiled = jax.jit(jax.vmap(chain) if method == "vmap" else one_after_another)

    def run(key):
        key, key_start = jax.random.split(key)
        told = compiled(jax.random.split(key, CHAINS), starts(key_start))
        return jax.device_get(told[:3])

    return run


def by_numpyro(energy, method, rate):
    import jax
    from numpyro.infer import MCMC, NUTS

    potential, starts = _potential(energy)
    runner = MCMC(
        NUTS(potential_fn=potential, target_accept_prob=rate or 0.8),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method=method,
        progress_bar=False,
    )

    @jax.jit  # outside of it MCMC.run compiles its loop anew at every call
    def compiled(key):
        key, key_start = jax.random.split(key)
        fields = ("num_steps", "diverging")
        runner.run(key, init_params=starts(key_start), extra_fields=fields)
        told = runner.get_extra_fields(group_by_chain=True)
        return runner.get_samples(group_by_chain=True), *(told[field] for field in fields)

    return lambda key: jax.device_get(compiled(key))


LIBRARIES = {"energia": by_energia, "blackjax": by_blackjax, "numpyro": by_numpyro}


def worker(target: str, side: str, rate: float | None) -> None:
    """Run once for each seed that comes in, and tell what came out."""
    import jax
    import posteriors
    from arviz_stats.base import array_stats

    from energia._types import strong_tree

    warnings.simplefilter("ignore")
    library, _, method = side.partition(" ")
    energy = strong_tree(getattr(posteriors, target)())
    run = LIBRARIES[library](energy, method, rate)
    for line in sys.stdin:
        key = jax.random.key(int(line))
        began, cpu_began = time.perf_counter(), time.process_time()
        draws, steps, diverging = run(key)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        entries = [x.reshape(*x.shape[:2], -1) for x in draws.values()]
        ess = min(
            array_stats.ess(x[..., i].astype(float), chain_axis=0, draw_axis=1, method="bulk")
            for x in entries
            for i in range(x.shape[-1])
        )
        told = {"seconds": seconds, "cpu": cpu, "ess": float(ess)}
        told |= {"gradients": steps.sum(), "diverged": diverging.sum()}
        print(json.dumps(told, default=float), flush=True)


# --- all of them in turn


def measure(
    target: str, sides: tuple[str, ...], processes: int, repeats: int, options: list[str]
) -> Any:
    """First calls and warm runs of every side."""
    first: dict[str, list] = {side: [] for side in sides}
    warm: dict[str, list] = {side: [] for side in sides}
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    devices = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={CHAINS}"}
    for process in range(processes):
        workers = {}
        for side in sides:
            workers[side] = subprocess.Popen(
                [sys.executable, __file__, "--worker", target, side, *options],
                env=environment | (devices if side == "numpyro parallel" else {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ask(workers[side], first[side], 1000 * process)
        for repeat in range(repeats):
            for side in sides:
                ask(workers[side], warm[side], 1000 * process + repeat + 1)
        for each in workers.values():
            each.communicate()
    return first, warm


def ask(process: Any, told: list, seed: int) -> None:
    process.stdin.write(f"{seed}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} ended with code {process.wait()}")
    told.append(json.loads(line))


def median(runs: list, number: Any) -> float:
    return statistics.median(map(number, runs))


def report(target: str, first: Any, warm: Any) -> dict[str, float]:
    """Print a table; the ratios of energia to the others."""

    def of(runs: dict[str, list], number: Any) -> dict[str, float]:
        return {side: median(told, number) for side, told in runs.items()}

    calls, calls_cpu = (of(first, lambda run, n=n: run[n]) for n in ("seconds", "cpu"))
    seconds, cpu, ess = (of(warm, lambda run, n=n: run[n]) for n in ("seconds", "cpu", "ess"))
    rates = of(warm, lambda run: run["ess"] / run["seconds"])
    rates_cpu = of(warm, lambda run: run["ess"] / run["cpu"])
    cost = of(warm, lambda run: run["gradients"] / run["ess"])
    diverged = of(warm, lambda run: run["diverged"])
    for side in warm:
        print(
            f"{target:<20}{side:<20}{calls[side]:>7.2f} s ({calls_cpu[side]:5.2f})"
            f"{seconds[side]:>8.3f} s ({cpu[side]:6.3f}){ess[side]:>7.0f}"
            f"{rates[side]:>9.0f}/s ({rates_cpu[side]:6.0f}){cost[side]:>9.1f}"
            f"{diverged[side]:>9.0f}"
        )
    ratios = {}
    hand = [side for side in HAND_WRITTEN if side in warm]
    rivals = [side for side in NUMPYRO if side in warm]
    for unit, call, run, rate in (
        ("", calls, seconds, rates),
        (", CPU", calls_cpu, cpu, rates_cpu),
    ):
        if hand:
            ratios[f"warm run / hand-written{unit}"] = run["energia"] / min(run[h] for h in hand)
        if HAND_WRITTEN[0] in hand:
            ratios[f"first call / hand-written{unit}"] = call["energia"] / call[HAND_WRITTEN[0]]
        if rivals:
            best = max(rate[side] for side in rivals)
            ratios[f"ESS/s / NumPyro's best{unit}"] = rate["energia"] / best
    for name, ratio in ratios.items():
        print(f"{target:<20}{name}: {ratio:.2f}", flush=True)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--processes", type=int, default=3, help="first calls of each library")
    parser.add_argument("--repeats", type=int, default=5, help="warm runs of each process")
    parser.add_argument("--acceptance-rate", type=float, help="that all are tuned to")
    parser.add_argument("--worker", nargs=2, metavar=("TARGET", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(*arguments.worker, arguments.acceptance_rate)
    import jax
    import posteriors

    packages = ("jax", "blackjax", "numpyro", "equinox", "numpy")
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {versions}")
    print(
        f"{'target':<20}{'library':<20}{'first call (CPU)':>17}{'warm run (CPU)':>19}"
        f"{'ESS':>7}{'ESS/s (CPU)':>20}{'grad/ESS':>9}{'diverged':>9}",
        flush=True,
    )
    rate = arguments.acceptance_rate
    options = [] if rate is None else ["--acceptance-rate", str(rate)]
    ratios: dict[str, list] = {}
    for target in arguments.targets:
        try:
            getattr(posteriors, target)()
        except posteriors.NoData as missing:
            print(f"{target:<20}skipped: {missing}")
            continue
        counts = arguments.processes, arguments.repeats
        found = measure(target, tuple(arguments.sides), *counts, options)
        for name, ratio in report(target, *found).items():
            ratios.setdefault(name, []).append(ratio)
    for name, values in ratios.items():
        print(
            f"{name}: geometric mean {statistics.geometric_mean(values):.2f}, from "
            f"{min(values):.2f} to {max(values):.2f}"
        )


if __name__ == "__main__":
    main()
