"""log Z against known answers: how often estimates hold the truth inside their own error bars.

    python benchmarks/evidence.py
    python benchmarks/evidence.py --data DATA --targets german_credit many_well --seeds 20
    python benchmarks/evidence.py --methods smc tempering

Told for each target and method: of how many seeds |error| is at most three standard errors, or, of
'bracket', [lower, upper] holds the truth; the root mean squares of errors and of standard errors
told; how many gave no warning; and seconds, of the first run, which compiles, and of the others.
Exact answers: transfer matrices (Ising), enumeration (Boltzmann machines, another one each seed),
normalised densities (funnel, 40 modes), quadrature (many-well), and importance sampling (German
credit, -529.1752 ± 0.0011).
"""

import argparse
import itertools
import os
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

ISING = {  # side, coupling, field
    (5, 0.2, 0.2): 19.674086,
    (10, 0.2, 0.0): 73.453098,
    (10, 0.2, 0.2): 78.688056,
    (4, 0.440687, 0.0): 15.521921,
    (8, 0.4, 0.0): 56.599389,
    (8, 0.440687, 0.0): 60.141801,
    (10, 0.1, 0.0): 70.323124,
    (10, 0.4, 0.0): 88.187701,
    (10, 0.440687, 0.0): 93.610331,
    (10, 0.5, 0.0): 103.272975,
}


@en.energy(x=en.Real((32,)))
def many_well(x):
    d, v = x[::2], x[1::2]
    return -jnp.sum(0.5 * d + 6 * d**2 - d**4) + 0.5 * jnp.sum(v**2)


def boltzmann(seed):
    rng = np.random.default_rng(seed)
    weights, visible, hidden = rng.normal(size=(12, 8)), rng.normal(size=12), rng.normal(size=8)
    h = np.array(list(itertools.product([0, 1], repeat=8)))
    logs = h @ hidden + np.logaddexp(0, visible + h @ weights.T).sum(1)
    return en.RBM.from_parameters(weights, visible, hidden), np.logaddexp.reduce(logs)


def german_credit(folder):
    data = np.load(Path(folder) / "german_credit.npz")
    x = data["features"].astype(float)
    x = np.concatenate([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))], axis=1)

    @en.energy(x=en.Real(25), y=en.Binary())
    def bernoulli(weights, x, y):
        return jax.nn.softplus((1 - 2 * y) * (x @ weights))

    prior = en.Gaussian(jnp.zeros(25)).rename(x="weights")
    return prior + en.total(bernoulli, x=x, y=data["label"] == 2)


def targets(folder):
    """By name: the energy and log Z for a seed, and how to estimate it."""
    found = {}
    for (side, coupling, field), value in ISING.items():
        model = en.Ising((side, side), coupling=coupling, field=field)
        found[f"ising_{side}_{coupling}_{field}"] = lambda _, m=model, v=value: (m, v), {}
    found["boltzmann_12_8"] = boltzmann, {}
    wide = en.Gaussian(jnp.zeros(10), scale=3.0)
    found["funnel_10"] = lambda _: (en.Funnel(10), 0.0), {"reference": wide}
    means = jax.random.uniform(jax.random.key(0), (40, 2), minval=-40, maxval=40)
    modes = en.GaussianMixture(means, scales=1.0)
    wide = en.Gaussian(jnp.zeros(2), scale=30.0)
    found["modes_40"] = lambda _: (modes, 0.0), {"reference": wide}
    found["many_well"] = lambda _: (many_well, 164.695675), {"num_chains": 1024}
    if folder:
        credit = german_credit(folder)
        options = {"num_steps": 200, "num_chains": 64}
        found["german_credit"] = lambda _: (credit, -529.1752), options
    return found


def measure(name, make, options, methods, seeds):
    for method in methods:
        rows = []
        for seed in range(seeds):
            energy, value = make(seed)
            began = time.perf_counter()
            result = en.evaluate.log_partition(energy, method, key=jax.random.key(seed), **options)
            seconds = time.perf_counter() - began
            error, told = result.value - value, result.stderr
            sided = np.isfinite([result.lower, result.upper]).all()
            held = result.lower <= value <= result.upper if sided else abs(error) <= 3 * told
            rows.append((held, error, told, result.ok, seconds))
        held, error, told, fine, seconds = np.array(rows, float).T
        print(
            f"{name:24s} {method:10s} {held.sum():2.0f} of {seeds} hold; error {rms(error):.3f} "
            f"(mean {error.mean():+.3f}), told {rms(told):.3f}; trusted {fine.sum():2.0f}, "
            f"{(held * fine).sum():2.0f} of them hold; {seconds[0]:.1f} s, then "
            f"{np.median(seconds[1:] if seeds > 1 else seconds):.1f} s",
            flush=True,
        )


def rms(x):
    return np.sqrt(np.mean(x**2))


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", help="the folder that has german_credit.npz")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--targets", nargs="*", default=None, help="names, or what they begin with")
    parser.add_argument("--methods", nargs="+", default=["ais", "bracket", "tempering"])
    arguments = parser.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "blackjax"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    warnings.simplefilter("ignore", en.evaluate.EvaluationWarning)
    for name, (make, options) in targets(arguments.data).items():
        if arguments.targets is None or name.startswith(tuple(arguments.targets)):
            measure(name, make, options, arguments.methods, arguments.seeds)


if __name__ == "__main__":
    main()
