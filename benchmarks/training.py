"""A training step of `en.fit` against the bare gradients that it needs, in one run.

    python benchmarks/training.py

The floor of a PCD step is one compiled scan of: `num_steps` gradients of the energy with respect to
the batch, and one gradient of the loss with respect to the parameters, with no noise, no buffer and
no optimiser. Times are medians, alternated; the ratio is floor / energia, so 1 is the floor itself.
"""

import argparse
import os
import statistics
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _rates import steps_a_second

import energia as en


def floor(model, data, batch_size, num_steps):
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    data = jnp.asarray(data)

    @jax.jit
    def run(arrays, steps):
        def step(_, carry):
            arrays, x = carry
            energy = eqx.combine(arrays, static)
            slope = jax.grad(lambda x: jnp.sum(jax.vmap(energy)(x)))
            moved = jax.lax.fori_loop(0, num_steps, lambda _, x: x - 1e-3 * slope(x), x)

            def loss(arrays):
                energy = eqx.combine(arrays, static)
                return jnp.mean(jax.vmap(energy)(x)) - jnp.mean(jax.vmap(energy)(moved))

            gradient = jax.grad(loss)(arrays)
            return jax.tree.map(lambda a, g: a - 1e-6 * g, arrays, gradient), x

        return jax.lax.fori_loop(0, steps, step, (arrays, data[:batch_size]))

    return lambda steps: jax.block_until_ready(run(arrays, steps))


def energia(model, data, objective, batch_size):
    def run(steps):
        return en.fit(
            model,
            data,
            objective,
            key=jax.random.key(0),
            num_steps=steps,
            batch_size=batch_size,
            optimizer=optax.adam(1e-4),
        )

    return run


def compare(batch_size, num_steps, steps, repeats):
    data = np.random.default_rng(0).normal(size=(10_000, 2)).astype(np.float32)
    model = en.MLPEnergy(2, width=128, depth=2, key=jax.random.key(0))
    pcd = en.objectives.PCD(sampler="langevin", num_steps=num_steps)
    sides = {
        "floor": floor(model, data, batch_size, num_steps),
        "energia": energia(model, data, pcd, batch_size),
    }
    rates = steps_a_second(sides, max(steps // 10, 1), steps, repeats)
    medians = {side: statistics.median(rate) for side, rate in rates.items()}
    print(
        f"PCD-{num_steps}, MLP 2-128-128-1, batch {batch_size}: energia {medians['energia']:.0f} "
        f"steps/s, floor {medians['floor']:.0f}; ratio {medians['energia'] / medians['floor']:.2f}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "equinox", "optax", "numpy"))
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {packages}")
    compare(256, 20, 100, arguments.repeats)
    compare(32, 20, 500, arguments.repeats)


if __name__ == "__main__":
    main()
