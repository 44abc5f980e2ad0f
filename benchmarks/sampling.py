"""NUTS by `en.sample` against hand-written BlackJAX, side by side in one run.

    python benchmarks/sampling.py            # warm calls, then first calls in fresh processes
    python benchmarks/sampling.py --no-first

Both sides: 4 chains, 1,000 warm-up steps and 1,000 draws of the same kernel on the same density,
positions mapped to the reals by the same maps. Hand-written is `blackjax.window_adaptation` and a
scan in one compiled function, chains by `vmap` (the usual recipe) and by `lax.map`. Times are
medians over keys, alternated; ratios are energia / hand-written, so below 1 is faster. Runs with
other keys adapt to other step sizes, so the number of gradients is told as well.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

import energia as en

CHAINS, WARMUP, DRAWS = 4, 1000, 1000

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools():
    @en.energy(mu=en.Real(), tau=en.Positive(), z=en.Real((8,)))
    def energy(mu, tau, z):
        prior = 0.5 * (mu / 5) ** 2 + jnp.log1p((tau / 5) ** 2) + 0.5 * jnp.sum(z**2)
        return prior + 0.5 * jnp.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)

    def log_density(position):
        mu, tau, z = position["mu"], jnp.exp(position["tau"]), position["z"]
        prior = 0.5 * (mu / 5) ** 2 + jnp.log1p((tau / 5) ** 2) + 0.5 * jnp.sum(z**2)
        likelihood = 0.5 * jnp.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)
        return position["tau"] - prior - likelihood

    return energy, log_density, {"mu": (), "tau": (), "z": (8,)}


def correlated_gaussian():
    lag = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    precision = jnp.asarray(np.linalg.inv(0.9**lag), jnp.float32)
    energy = en.Gaussian(jnp.zeros(100), precision=precision)
    factor = jnp.linalg.cholesky(precision)

    def log_density(position):
        return -0.5 * jnp.sum((position["x"] @ factor) ** 2)

    return energy, log_density, {"x": (100,)}


def logistic_regression():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1000, 25)).astype(np.float32)
    odds = features @ generator.normal(size=25) / 2
    labels = (generator.random(1000) < 1 / (1 + np.exp(-odds))).astype(np.float32)

    @en.energy(weights=en.Real((25,)))
    def model(weights, features, labels):
        logits = features @ weights
        return 0.5 * jnp.sum(weights**2) + jnp.sum(jax.nn.softplus(logits) - labels * logits)

    def log_density(position):
        logits = jnp.asarray(features) @ position["weights"]
        losses = jax.nn.softplus(logits) - jnp.asarray(labels) * logits
        return -0.5 * jnp.sum(position["weights"] ** 2) - jnp.sum(losses)

    energy = model.condition(features=features, labels=labels)
    return energy, log_density, {"weights": (25,)}


TARGETS = {f.__name__: f for f in (eight_schools, correlated_gaussian, logistic_regression)}


def hand_written(log_density, shapes, chains_by):
    def chain(key):
        start, tune, draw = jax.random.split(key, 3)
        position = {
            name: jax.random.uniform(jax.random.fold_in(start, i), shape, minval=-2.0, maxval=2.0)
            for i, (name, shape) in enumerate(shapes.items())
        }
        warmup = blackjax.window_adaptation(
            blackjax.nuts, log_density, adaptation_info_fn=lambda *_: None
        )
        (state, parameters), _ = warmup.run(tune, position, WARMUP)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state, key):
            state, info = kernel.step(key, state)
            return state, (
                state.position,
                info.acceptance_rate,
                info.is_divergent,
                info.energy,
                info.num_integration_steps,
            )

        return jax.lax.scan(step, state, jax.random.split(draw, DRAWS))[1]

    over = jax.vmap(chain) if chains_by == "vmap" else lambda keys: jax.lax.map(chain, keys)
    compiled = jax.jit(over)

    def run(key):
        draws = jax.block_until_ready(compiled(jax.random.split(key, CHAINS)))
        return float(np.mean(draws[-1]))

    return run


def by_energia(energy):
    def run(key):
        draws = en.sample(
            energy, "nuts", key=key, num_chains=CHAINS, num_warmup=WARMUP, num_samples=DRAWS
        )
        return float(np.mean(np.asarray(draws.stats["n_steps"])))

    return run


def runner(target, side):
    energy, log_density, shapes = TARGETS[target]()
    return by_energia(energy) if side == "energia" else hand_written(log_density, shapes, side)


def warm(target, repeats):
    sides = ("energia", "lax.map", "vmap")
    runs = {side: runner(target, side) for side in sides}
    for run in runs.values():
        run(jax.random.key(0))
    seconds = {side: [] for side in sides}
    steps = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides:
            began = time.perf_counter()
            steps[side].append(runs[side](jax.random.key(repeat + 1)))
            seconds[side].append(time.perf_counter() - began)
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    best = min(("lax.map", "vmap"), key=medians.__getitem__)
    texts = [
        f"{side} {medians[side]:.3f} s ({statistics.mean(steps[side]):.1f} gradients a draw)"
        for side in sides
    ]
    ratio = medians["energia"] / medians[best]
    print(f"warm   {target}: {'; '.join(texts)}; ratio to the best ({best}) {ratio:.2f}")


def first(target, repeats):
    """First calls, compile included, each in a fresh process with no compilation cache."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    seconds = {"energia": [], "vmap": []}
    for _ in range(repeats):
        for side, times in seconds.items():
            command = [sys.executable, __file__, "--one-first", target, side]
            out = subprocess.run(command, env=environment, capture_output=True, check=True)
            times.append(float(out.stdout.split()[-1]))
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    ratio = medians["energia"] / medians["vmap"]
    print(
        f"first  {target}: energia {medians['energia']:.2f} s, vmapped window_adaptation + scan "
        f"{medians['vmap']:.2f} s; ratio {ratio:.2f}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-first", action="store_true")
    parser.add_argument("--one-first", nargs=2, metavar=("TARGET", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", en.ConvergenceWarning)
    if arguments.one_first:
        run = runner(*arguments.one_first)
        began = time.perf_counter()
        run(jax.random.key(0))
        print(time.perf_counter() - began)
        return
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "blackjax", "equinox", "numpy"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    for target in arguments.targets:
        warm(target, arguments.repeats)
    for target in () if arguments.no_first else arguments.targets:
        first(target, max(3, arguments.repeats // 3))


if __name__ == "__main__":
    main()
