"""Steps of PCD-1 of a Boltzmann machine by `en.fit`, scikit-learn and a hand-written scan.

    python benchmarks/boltzmann.py

The hand-written floor is one compiled scan of five matrix products, two draws of uniform numbers
and an update of the parameters: no history, no averages, no checks, no choice of rows. Rates are
medians of alternated runs, by differences of a long and a short one, so that what a call costs is
taken off; the ratios are energia's rate by the other's. Data are independent bits: rates do not
depend on them.
"""

import argparse
import os
import statistics
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _rates import steps_a_second
from sklearn.neural_network import BernoulliRBM

import energia as en

LEARNING_RATE = 0.01


def energia(rows, hidden, batch_size):
    rbm = en.RBM(rows.shape[1], hidden, key=jax.random.key(0))
    pcd = en.objectives.PCD(num_steps=1, buffer_size=batch_size, reinit_prob=0.0)

    def run(steps):
        en.fit(
            rbm,
            rows,
            pcd,
            key=jax.random.key(1),
            num_steps=steps,
            batch_size=batch_size,
            optimizer=optax.sgd(LEARNING_RATE),
            progress=False,
        )

    return run


def floor(rows, hidden, batch_size):
    visible, data = rows.shape[1], jnp.asarray(rows)
    weights = 0.01 * jax.random.normal(jax.random.key(0), (visible, hidden))
    chains = jnp.zeros((batch_size, hidden))

    def step(t, carry):
        weights, below, above, h = carry
        key = jax.random.fold_in(jax.random.key(1), t)
        start = (t * batch_size) % (len(rows) - batch_size + 1)
        v = jax.lax.dynamic_slice_in_dim(data, start, batch_size)
        mean = jax.nn.sigmoid(v @ weights + above)
        key_v, key_h = jax.random.split(key)
        chance = jax.nn.sigmoid(h @ weights.T + below)
        model = (jax.random.uniform(key_v, chance.shape) < chance).astype(chance.dtype)
        model_mean = jax.nn.sigmoid(model @ weights + above)
        h = (jax.random.uniform(key_h, h.shape) < model_mean).astype(h.dtype)
        rate = LEARNING_RATE / batch_size
        return (
            weights + rate * (v.T @ mean - model.T @ model_mean),
            below + rate * (v - model).sum(0),
            above + rate * (mean - model_mean).sum(0),
            h,
        )

    @jax.jit
    def loop(steps):
        start = weights, jnp.zeros(visible), jnp.zeros(hidden), chains
        return jax.lax.fori_loop(0, steps, step, start)

    return lambda steps: jax.block_until_ready(loop(jnp.int32(steps)))


def estimator(rows, hidden, batch_size):
    numbers = {"learning_rate": LEARNING_RATE, "batch_size": batch_size, "random_state": 0}
    count = len(rows) // batch_size

    def run(steps):
        en.interop.BernoulliRBM(hidden, n_iter=max(steps // count, 1), **numbers).fit(rows)

    return run


def scikit_learn(rows, hidden, batch_size):
    rbm = BernoulliRBM(hidden, learning_rate=LEARNING_RATE, batch_size=batch_size, random_state=0)
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    batches = [batch for batch in batches if len(batch) == batch_size]
    rbm.partial_fit(batches[0])
    generator = np.random.RandomState(0)

    def run(steps):
        for t in range(steps):
            rbm._fit(batches[t % len(batches)], generator)  # what its fit calls a batch

    return run


SIDES = {
    "energia": energia,
    "en.interop.BernoulliRBM": estimator,
    "scan": floor,
    "scikit-learn": scikit_learn,
}


def compare(visible, hidden, batch_size, steps, repeats, sides):
    rows = np.random.default_rng(0).integers(0, 2, (10 * batch_size, visible))
    rows = rows.astype(np.float32)
    runs = {side: SIDES[side](rows, hidden, batch_size) for side in sides}
    short = max(steps // 100, 1) * 10  # whole sweeps over the data
    rates = steps_a_second(runs, short, steps, repeats)
    medians = {side: statistics.median(rate) for side, rate in rates.items()}
    told = ", ".join(f"{side} {rate:.0f}" for side, rate in medians.items())
    ratios = ", ".join(
        f"{statistics.median(a / b for a, b in zip(rates['energia'], rates[s], strict=True)):.2f} "
        f"of {s}"
        for s in sides
        if s != "energia"
    )
    print(
        f"{visible}-{hidden}, batch {batch_size}: {told} steps/s; energia has {ratios}", flush=True
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without", default="", help="leave out a side: scikit-learn")
    parser.add_argument("--large", action="store_true", help="784-500 with batches of 8,192 too")
    arguments = parser.parse_args()
    packages = ("jax", "equinox", "optax", "numpy", "scikit-learn")
    listed = ", ".join(f"{p} {version(p)}" for p in packages)
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {listed}")
    sides = [side for side in SIDES if side != arguments.without]
    scale = 1 if jax.default_backend() == "cpu" else 10
    compare(64, 128, 100, 1000 * scale, arguments.repeats, sides)
    compare(784, 500, 100, 100 * scale, arguments.repeats, sides)
    compare(784, 500, 1024, 20 * scale, arguments.repeats, sides)
    if arguments.large:
        compare(784, 500, 8192, 10 * scale, arguments.repeats, sides)


if __name__ == "__main__":
    main()
