"""Toys of two dimensions by every objective: a table, and a picture of what each has learned.

    python benchmarks/toys.py --out toys.png

Every objective trains the same network, plus a wide normal law that keeps exp(-E) integrable; 'drl'
trains one that knows the noise level, and is scored at its lowest. The table has

- the log-likelihood of held-out rows, its normaliser by quadrature. The data's own is that of a
  histogram of four million draws;
- the squared MMD between 2,000 samples and as many fresh rows, times 1,000, by one kernel a toy.
  Samples are drawn by tempered SMC, whatever drew them in training, and for 'drl' by the chain of
  conditionals that it comes with;
- the modes covered: parts of the data (arms, rings, squares) that get at least half of their share
  of the samples, each sample counted for the part of the nearest row.
"""

import argparse
import os
import time
import warnings
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import energia as en

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TOYS = ("eight_gaussians", "two_spirals", "checkerboard", "rings", "pinwheel", "moons")
NUM_SAMPLES = 2000
EDGE = 4.5  # of the pictures


class Noised(en.Energy):
    """E(x, sigma) of rows under normal noise of the level sigma."""

    network: eqx.nn.MLP

    def __init__(self, key):
        self.network = eqx.nn.MLP(8, "scalar", 128, 2, activation=jax.nn.silu, key=key)

    def __call__(self, x, sigma):
        phase = jnp.log(sigma) * jnp.array([0.5, 1.0, 2.0])
        level = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])
        tail = jnp.sum(x**2) / (2 * (4 + sigma**2))
        return self.network(jnp.concatenate([x / jnp.sqrt(1 + sigma**2), level])) + tail


def models(key):
    """The network of the most objectives, and that of 'drl'."""
    tail = en.Gaussian(jnp.zeros(2), scale=4.0).freeze()
    plain = en.MLPEnergy(2, width=128, depth=2, key=key) + tail
    return plain, Noised(key).constrain(x=en.Real((2,)), sigma=en.Positive())


def objectives():
    """By name: the objective, steps, rows a step, learning rate."""
    o, mala = en.objectives, en.samplers.MALA(step_size=0.01)
    # chains that wander farther; many of them, so that each is moved rarely
    wide = en.samplers.MALA(step_size=0.05)
    pcd = o.PCD(sampler=wide, num_steps=10, reinit_prob=0.0)
    drl = o.DRL(sampler=wide, num_levels=5, num_steps=10, sigma_min=0.08, sigma_max=4.0)
    return {
        "cd": (o.CD(sampler=mala, num_steps=10), 3000, 128, 1e-2),
        "pcd": (pcd, 4000, 128, 2e-3),
        "sm": (o.SM(), 3000, 128, 2e-3),
        "ssm": (o.SSM(), 4000, 128, 2e-3),
        "dsm": (o.DSM(sigma=0.1), 4000, 256, 2e-3),
        "nce": (o.NCE(ratio=2), 2500, 128, 1e-2),
        "drl": (drl, 3000, 128, 2e-3),
    }


def density_of(fit):
    """The energy whose law is scored."""
    lowest = None if fit.sampler is None else fit.sampler.levels[0]
    return fit.energy if lowest is None else fit.energy.condition(sigma=lowest)


def samples_of(fit, key):
    sampler = fit.sampler or "smc"
    draws = en.sample(fit.energy, sampler, key=key, num_chains=2, num_samples=NUM_SAMPLES // 2)
    return np.asarray(draws["x"]).reshape(-1, 2)


def own_log_likelihood(draw, x, key, bins=225, batches=10):
    """The data's mean log-likelihood, of rows that the histogram has not seen."""
    edges, counts = np.linspace(-EDGE, EDGE, bins + 1), np.ones((bins, bins))
    for index in range(batches):
        rows = np.asarray(draw(400_000, key=jax.random.fold_in(key, index))["x"])
        counts += np.histogram2d(rows[:, 0], rows[:, 1], bins=(edges, edges))[0]
    density = counts / counts.sum() / (edges[1] - edges[0]) ** 2
    places = np.clip(np.searchsorted(edges, np.asarray(x)) - 1, 0, bins - 1)
    return float(np.mean(np.log(density[places[:, 0], places[:, 1]])))


def modes(samples, data):
    """Of how many parts of the data how many get at least half of their share of the samples."""
    x, y = np.asarray(data["x"]), np.asarray(data["y"])
    nearest = np.argmin(np.sum((samples[:, None] - x) ** 2, -1), 1)
    parts = y.max() + 1
    shares = np.bincount(y[nearest], minlength=parts) / len(samples)
    return f"{np.sum(shares >= 0.5 / parts)}/{parts}"


def log_density(energy, log_partition, axis):
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
    return -np.asarray(jax.vmap(jax.vmap(energy))(grid)) - log_partition


def picture(panels, path):
    """A row a toy, a column an objective: what was given, then densities learned."""
    columns = list(next(iter(panels.values())))
    size = (1.3 * len(columns), 1.35 * len(panels))
    figure, axes = plt.subplots(len(panels), len(columns), figsize=size, squeeze=False)
    for row, (toy, cells) in zip(axes, panels.items(), strict=True):
        # colours of one scale a row: those of the data
        top = np.quantile(cells["data"][cells["data"] > 0], 0.95)
        for axis, name in zip(row, columns, strict=True):
            axis.imshow(cells[name], origin="lower", cmap="magma", vmin=0, vmax=top)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(toy.replace("_", " "), fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--toys", nargs="+", default=TOYS, choices=TOYS)
    parser.add_argument("--objectives", nargs="+", default=tuple(objectives()))
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of steps")
    parser.add_argument("--out", default="toys.png", help="where the picture goes")
    arguments = parser.parse_args()
    began = time.perf_counter()
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "blackjax", "optax"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    print(f"{'':16}{'':6}{'log p':>8}{'of data':>9}{'MMD²·10³':>10}{'modes':>7}{'seconds':>9}")
    # one draw of a chain cannot be checked for convergence: these are particles
    warnings.simplefilter("ignore", en.ConvergenceWarning)
    keys = jax.random.split(jax.random.key(0), 8)
    plain, noised = models(keys[0])
    axis = jnp.linspace(-EDGE, EDGE, 181)
    panels = {}
    for toy in arguments.toys:
        draw = getattr(en.data, toy)
        train = draw(20_000, key=keys[1])
        test, fresh = draw(4000, key=keys[2]), draw(NUM_SAMPLES, key=keys[3])
        own = own_log_likelihood(draw, test["x"], keys[4])
        floor = 1e3 * en.evaluate.mmd(test["x"][:NUM_SAMPLES], fresh["x"])
        print(f"{toy:16}{'data':6}{own:8.3f}{own:9.3f}{floor:10.2f}", flush=True)
        seen = np.histogram2d(*np.asarray(train["x"]).T, bins=90, range=[[-EDGE, EDGE]] * 2)[0].T
        panels[toy] = {"data": seen / seen.sum() / (2 * EDGE / 90) ** 2}
        for name in arguments.objectives:
            objective, num_steps, batch_size, rate = objectives()[name]
            num_steps = max(int(arguments.scale * num_steps), 1)
            started = time.perf_counter()
            fit = en.fit(
                noised if name == "drl" else plain,
                train["x"],
                objective,
                key=keys[5],
                num_steps=num_steps,
                batch_size=batch_size,
                optimizer=optax.adam(optax.cosine_decay_schedule(rate, num_steps)),
            )
            energy = density_of(fit)
            found = en.evaluate.log_likelihood(energy, test["x"])
            samples = samples_of(fit, keys[6])
            discrepancy = 1e3 * en.evaluate.mmd(samples, fresh["x"])
            covered = modes(samples, fresh)
            seconds = time.perf_counter() - started
            print(
                f"{'':16}{name:6}{found.value:8.3f}{own:9.3f}{discrepancy:10.2f}{covered:>7}"
                f"{seconds:9.1f}",
                flush=True,
            )
            logs = log_density(energy, found.log_partition.value, axis)
            panels[toy][name] = np.exp(logs)
    picture(panels, arguments.out)
    print(f"picture in {arguments.out}  ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
