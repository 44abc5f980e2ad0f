"""log Z of the MNIST machine of 2008: annealed importance sampling beside NumPy, in one run.

    python benchmarks/log_partition.py DATA/rbm_mnist_cd25_500.npz
    python benchmarks/log_partition.py DATA/rbm_mnist_cd25_500.npz --temperatures 1 --chains 100

The machine is CD25(500) of Salakhutdinov and Murray (2008), whose log Z is 451.28 there (100
chains; three standard deviations: 450.97 to 451.52), with their temperatures: 500 evenly in
[0, 0.5], 4,000 in [0.5, 0.9], 10,000 in [0.9, 1]; of these every n-th is kept. Both sides begin at
independent units with the data's means, have as many chains and the same temperatures, and make two
matrix products a temperature: the floor is a compiled loop of these alone. NumPy is in single
precision too. The reverse side and a run with levels that a pilot run spaces stand below.
"""

import argparse
import itertools
import os
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

PUBLISHED = 451.28


def temperatures(every):
    parts = (
        np.linspace(0, 0.5, 500, endpoint=False),
        np.linspace(0.5, 0.9, 4000, endpoint=False),
        np.linspace(0.9, 1, 10001),
    )
    whole = np.concatenate(parts)
    return np.append(whole[:-1:every], 1.0)


def by_numpy(weights, visible, hidden, means, betas, chains, seed=0):
    """Salakhutdinov and Murray's loop; the base has the data's means, and hidden odds of 1."""
    rng = np.random.default_rng(seed)
    weights, visible, hidden = (a.astype(np.float32) for a in (weights, visible, hidden))
    base = np.log(means / (1 - means)).astype(np.float32)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def log_density(v, odds, beta):
        outside = (1 - beta) * (v @ base) + beta * (v @ visible)
        return outside + np.logaddexp(0, beta * odds).sum(1)

    v = (rng.random((chains, len(base)), np.float32) < sigmoid(base)).astype(np.float32)
    log_weights = np.zeros(chains)
    for before, beta in itertools.pairwise(betas.astype(np.float32)):
        odds = v @ weights + hidden
        log_weights += log_density(v, odds, beta) - log_density(v, odds, before)
        on = sigmoid(beta * odds)
        h = (rng.random(on.shape, np.float32) < on).astype(np.float32)
        on = sigmoid((1 - beta) * base + beta * (h @ weights.T + visible))
        v = (rng.random(on.shape, np.float32) < on).astype(np.float32)
    start = np.logaddexp(0, base.astype(float)).sum() + len(hidden) * np.log(2)
    spread = np.exp(log_weights - log_weights.max())
    value = start + log_weights.max() + np.log(spread.mean())
    return value, spread.std(ddof=1) / spread.mean() / np.sqrt(chains)


@jax.jit
def products(weights, v, count):
    """The matrix products alone."""

    def step(_, v):
        h = v @ weights
        return (h @ weights.T) * 1e-6

    return jax.lax.fori_loop(0, count, step, v)


def clock(run, repeats=1):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - began)
    return result, min(times)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("file", help="rbm_mnist_cd25_500.npz")
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=10, help="every n-th is kept")
    arguments = parser.parse_args()
    stored = np.load(arguments.file)
    weights, visible, hidden = stored["W"], stored["visible_bias"], stored["hidden_bias"]
    rows = np.unpackbits(stored["test_packed"], axis=1)
    means = (rows.sum(0) + 1) / (len(rows) + 2)
    betas, chains = temperatures(arguments.temperatures), arguments.chains
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "numpy"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    print(f"{chains} chains, {len(betas)} temperatures; published {PUBLISHED}")

    rbm = en.RBM.from_parameters(weights, visible, hidden)
    reference = en.Bernoulli("v", probs=means) + en.Bernoulli("h", probs=np.full(len(hidden), 0.5))

    def energia(seed=0, method="ais", **options):
        return en.evaluate.log_partition(
            rbm,
            method,
            key=jax.random.key(seed),
            reference=reference,
            num_chains=chains,
            **({"levels": betas} | options),
        )

    (value, error), numpy_seconds = clock(
        lambda: by_numpy(weights, visible, hidden, means, betas, chains)
    )
    print(f"NumPy:   {value:.2f} ± {error:.2f} in {numpy_seconds:.1f} s")
    _, first = clock(energia)
    result, seconds = clock(lambda: energia(1))
    print(f"energia: {result!r} in {seconds:.1f} s ({first:.1f} s with compiling)")
    v = jnp.asarray(rows[:chains], jnp.float32)
    matrix, count = jnp.asarray(weights, jnp.float32), len(betas)
    jax.block_until_ready(products(matrix, v, 2))
    _, floor = clock(lambda: jax.block_until_ready(products(matrix, v, count)))
    flops = 4 * chains * weights.size * count
    print(
        f"NumPy / energia {numpy_seconds / seconds:.1f}; two products a temperature alone "
        f"{floor:.1f} s ({flops / floor / 1e9:.0f} Gflop/s), {floor / seconds:.2f} of energia's"
    )
    reverse, seconds = clock(lambda: energia(2, "raise"))
    print(f"the other side: {reverse!r} in {seconds:.1f} s")
    spaced, seconds = clock(lambda: energia(3, levels=None, num_steps=len(betas) - 1))
    print(f"levels by a pilot run: {spaced!r} in {seconds:.1f} s")
    likelihood = en.evaluate.log_likelihood(rbm, rows, log_partition=result)
    print(f"test digits (stochastically binarised): {likelihood!r}")


if __name__ == "__main__":
    main()
