"""A long run of training and one of sampling: does memory stay flat, and the pace?

    python benchmarks/soak.py                        # half an hour of each
    python benchmarks/soak.py --runs nuts --minutes 5

'pcd' trains a Boltzmann machine of 256 visible and 128 hidden units in one call of `en.fit`; 'nuts'
draws from a posterior of 20 numbers and keeps one draw of 100, by one `draws.extend` after another.
Told are, for each twelfth of the time after the first, in which programs are compiled, steps a
second and the memory of the process at its end; at last how much both changed from the second third
to the last.
"""

import argparse
import os
import resource
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

SLICES = 12


def resident():
    """MB of the process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def pcd(seconds):
    """One training: a time stamp and the memory every 200 steps."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 256)) < 0.3
    data = patterns[rng.integers(10, size=5000)] ^ (rng.random((5000, 256)) < 0.05)
    marks, end = [], time.perf_counter() + seconds

    def mark(fit):
        marks.append((time.perf_counter(), len(fit.history["loss"]), resident()))
        if marks[-1][0] > end:
            raise StopIteration

    en.fit(
        en.RBM(256, 128, key=jax.random.key(0)),
        data.astype(np.int32),
        en.objectives.PCD(num_steps=10),
        key=jax.random.key(1),
        num_steps=10_000_000,
        callback=mark,
        evaluate_every=200,
        progress=False,
    )
    return marks


def nuts(seconds):
    """One posterior, gone on with again and again; of 100 draws one is kept."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 20)).astype(np.float32)
    y = rng.random(500) < 1 / (1 + np.exp(-x @ rng.normal(size=20)))

    @en.energy(weights=en.Real((20,)))
    def logistic(weights):
        signed = jnp.where(jnp.asarray(y), 1.0, -1.0) * (jnp.asarray(x) @ weights)
        return jnp.sum(jax.nn.softplus(-signed)) + 0.5 * jnp.sum(weights**2)

    draws = en.sample(
        logistic, "nuts", key=jax.random.key(0), num_samples=10, thin=100, progress=False
    )
    marks, end, leapfrog = [], time.perf_counter() + seconds, 0.0
    while not marks or marks[-1][0] < end:
        draws = draws.extend(10, progress=False)
        leapfrog = 100 * float(np.asarray(draws.stats["n_steps"]).sum())  # of draws that were kept
        marks.append((time.perf_counter(), leapfrog, resident()))
    return marks


def report(name, marks):
    times, steps, memory = np.array(marks).T
    edges = np.linspace(times[0], times[-1], SLICES + 1)
    at, held = np.interp(edges, times, steps), np.interp(edges, times, memory)
    rates, held = np.diff(at)[1:] / np.diff(edges)[1:], held[2:]
    unit = "steps" if name == "pcd" else "leapfrog steps"
    print(f"\n{name}: {steps[-1]:.0f} {unit} in {(times[-1] - times[0]) / 60:.1f} minutes")
    print(f"{'minutes':>8s} {unit + '/s':>17s} {'MB':>7s}")
    for minute, rate, size in zip((edges[2:] - edges[0]) / 60, rates, held, strict=True):
        print(f"{minute:8.1f} {rate:17.1f} {size:7.1f}")
    middle, last = slice(3, 7), slice(7, 11)
    pace = np.median(rates[last]) / np.median(rates[middle])
    grown = np.median(held[last]) - np.median(held[middle])
    print(
        f"from the second third to the last: pace × {pace:.3f}, memory {grown:+.1f} MB", flush=True
    )


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each run")
    parser.add_argument("--runs", nargs="+", default=["pcd", "nuts"], choices=["pcd", "nuts"])
    arguments = parser.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "blackjax", "optax"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    warnings.simplefilter("ignore", en.ConvergenceWarning)  # its first draws are few
    for name in arguments.runs:
        report(name, {"pcd": pcd, "nuts": nuts}[name](60 * arguments.minutes))


if __name__ == "__main__":
    main()
