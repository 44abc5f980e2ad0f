"""Score matching on tables of the UCI repository: 'sm' and 'ssm' side by side.

    python benchmarks/score_matching.py uci_density.npz

The file holds the arrays red_wine, white_wine (quality last) and parkinsons (subject, age and sex
first). The protocol is that of Song et al. (2019) and Wenliang et al. (2019): the greedy choice of
columns without a correlation above 0.98, whitening, a tenth of the rows to test and a tenth of the
rest (at most 1,000) to stop by, batches of 200, Adam at 0.01 with kernels. Kernel energies have 200
inducing points, three kernels, and features with 30 hidden units and a skip connection; all their
parameters are trained, where Wenliang et al. solve for coefficients. Cut: `--num-steps` in place of
500 epochs, one split in place of several.

The loss is that of exact score matching on the test rows, whatever the energy was trained by; early
stopping goes by each objective's own loss. The papers show theirs in figures only, so that no
number stands beside it here but the loss of a normal law, -D/2 for whitened rows, and that of a
kernel density estimate whose bandwidth has the least loss on the validation rows.

Wine is measured to few digits, and rows come twice: a density on a lattice has no score, and losses
far below -D/2 are those of energies that begin to see the lattice. Compare objectives under one
energy, not energies.
"""

import argparse
import functools
import os
import time
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en

SETS = {
    "red_wine": slice(None, -1),
    "white_wine": slice(None, -1),
    "parkinsons": slice(3, None),
}
BATCH = 200


class KernelEnergy(en.Energy):
    """Minus a sum of kernels at inducing points, beside a normal law: deep kernels in features."""

    points: jax.Array
    coefficients: jax.Array
    features: list[eqx.nn.MLP]
    skips: list[eqx.nn.Linear]
    log_widths: jax.Array
    log_weights: jax.Array

    def __init__(self, points, key, num_kernels=3, hidden=30):
        size, keys = points.shape[1], jax.random.split(key, 2 * num_kernels)
        self.points, self.coefficients = points, jnp.zeros(len(points))
        make = functools.partial(eqx.nn.MLP, size, hidden, hidden, 2, activation=jax.nn.softplus)
        self.features = [make(key=k) for k in keys[::2]]
        self.skips = [eqx.nn.Linear(size, hidden, key=k) for k in keys[1::2]]
        self.log_widths = jnp.log(jnp.geomspace(1.0, 10.0, num_kernels))
        self.log_weights = jnp.zeros(num_kernels) - jnp.log(num_kernels)

    def __call__(self, x):
        total = 0.0
        kernels = zip(
            self.features, self.skips, self.log_widths, jnp.exp(self.log_weights), strict=True
        )
        for network, skip, log_width, weight in kernels:
            there = jax.vmap(lambda z, n=network, s=skip: n(z) + s(z))(self.points)
            here = network(x) + skip(x)
            squares = jnp.sum(there**2, -1) - 2 * there @ here + jnp.sum(here**2)
            total += weight * jnp.exp(-0.5 * squares * jnp.exp(-2 * log_width))
        return -jnp.dot(self.coefficients, total)


def uncorrelated(rows, limit=0.98):
    """Columns without one of each pair that is nearly the same."""
    kept = list(range(rows.shape[1]))
    correlation = np.abs(np.corrcoef(rows.T)) - np.eye(rows.shape[1])
    while (among := correlation[np.ix_(kept, kept)]).max() > limit:
        del kept[np.unravel_index(among.argmax(), among.shape)[1]]
    return rows[:, kept]


def prepared(rows, seed=0):
    """Training, validation and test rows, whitened by the first."""
    rows = uncorrelated(np.asarray(rows, float))
    rows = np.random.default_rng(seed).permutation(rows)
    num_test = len(rows) // 10
    test, rest = rows[:num_test], rows[num_test:]
    num_held = min(len(rest) // 10, 1000)
    held, train = rest[:num_held], rest[num_held:]
    values, vectors = np.linalg.eigh(np.cov(train.T))
    whiten = vectors / np.sqrt(values) @ vectors.T
    return [((part - train.mean(0)) @ whiten).astype(np.float32) for part in (train, held, test)]


def energies(train, key):
    """By name: an energy, and its learning rate."""
    size = train.shape[1]
    normal = en.Gaussian(jnp.zeros(size), precision=jnp.eye(size))
    points = jnp.asarray(train[np.linspace(0, len(train) - 1, 200).astype(int)])
    return {
        "kernels": (normal + KernelEnergy(points, key), 1e-2),
        "MLP": (normal + en.MLPEnergy(size, width=128, depth=2, key=key), 1e-3),
    }


@eqx.filter_jit
def exact_loss(energy, rows):
    return en.objectives.SM().loss(energy, None, {"x": rows}, None, jax.random.key(0))[0]


def density_estimate(train, held, test):
    """The loss of a kernel density estimate."""

    def loss(width, rows):
        mixture = en.GaussianMixture(train, scales=width)
        return float(exact_loss(mixture, jnp.asarray(rows)))

    best = min(np.geomspace(0.3, 1.2, 5), key=lambda width: loss(width, held[:300]))
    return loss(best, test)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="a file with the arrays red_wine, white_wine, parkinsons")
    parser.add_argument("--sets", nargs="+", default=tuple(SETS), choices=tuple(SETS))
    parser.add_argument("--num-steps", type=int, default=1000)
    arguments = parser.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "optax", "numpy"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    stored, key = np.load(arguments.data), jax.random.key(0)
    for name in arguments.sets:
        train, held, test = prepared(stored[name][:, SETS[name]])
        size = train.shape[1]
        anchor = float(exact_loss(en.Gaussian(jnp.zeros(size)), jnp.asarray(test)))
        estimate = density_estimate(train, held, test)
        print(
            f"{name}, {len(train)} + {len(held)} + {len(test)} rows of {size}: -D/2 {-size / 2}, "
            f"normal law {anchor:.2f}, density estimate {estimate:.2f}",
            flush=True,
        )
        for label, (energy, rate) in energies(train, key).items():
            for objective in ("sm", "ssm"):
                began = time.perf_counter()
                fit = en.fit(
                    energy,
                    train,
                    objective,
                    key=key,
                    num_steps=arguments.num_steps,
                    batch_size=BATCH,
                    optimizer=optax.adam(rate),
                    validation=held,
                    evaluate_every=50,
                    patience=10,
                )
                seconds, loss = time.perf_counter() - began, exact_loss(fit.energy, test)
                best = np.nanargmin(fit.history["validation_loss"]) + 1
                print(
                    f"  {label:8}{objective:4} test loss {float(loss):8.2f}, of step {best} of "
                    f"{fit.num_steps}, {1e3 * seconds / fit.num_steps:.1f} ms a step",
                    flush=True,
                )


if __name__ == "__main__":
    main()
