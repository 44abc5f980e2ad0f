"""Training steps of `en.fit`, of bare gradients and of PyTorch, side by side on one core.

    python benchmarks/training.py
    python benchmarks/training.py --torch-python venv/bin/python --objectives pcd

All train the network 2-128-128-1 with SiLU by Adam on the same rows, with batches of 256 and 32:
'pcd' with 20 Langevin steps and a buffer of 8,192 chains, 'dsm' of one level, 'ssm' with one
projection. The sides:

- energia: `en.fit`, with all that it does: epochs, moving averages, checks, history;
- floor: one compiled loop of the bare gradients. For 'pcd' these are 20 gradients of the energy by
  the batch and one of the loss by the parameters, else one of the loss by the parameters; with no
  random number, no buffer and no optimiser;
- pytorch: a plain eager loop;
- torchebm, ebmkit: these libraries, by their own losses, samplers and buffers.

Each runs in a process of its own, all on the same core, in turn; rates are medians, by differences
of a long and a short run. Ratios are medians of energia's rate by the other's in the same turn.
PyTorch and its libraries are looked for in the Python that `--torch-python` names, and told as
absent where it has none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from random import Random

NUM_STEPS = 20  # of the chains
SHORT = 16
SIDES = ("energia", "floor", "pytorch", "torchebm", "ebmkit")
PACKAGES = {
    "energia": ("jax", "equinox", "optax", "numpy"),
    "floor": ("jax",),
    "pytorch": ("torch",),
    "torchebm": ("torch", "torchebm"),
    "ebmkit": ("torch", "ebmkit"),
}


# --- one side in its process


def energia(objective, rows, batch_size):
    import jax
    import numpy as np
    import optax

    import energia as en

    model, data = en.MLPEnergy(2, width=128, depth=2, key=jax.random.key(0)), np.asarray(rows)
    configured = {
        "pcd": en.objectives.PCD(sampler="langevin", num_steps=NUM_STEPS),
        "dsm": en.objectives.DSM(sigma=0.1),
        "ssm": en.objectives.SSM(),
    }[objective]

    def run(steps):
        en.fit(
            model,
            data,
            configured,
            key=jax.random.key(0),
            num_steps=steps,
            batch_size=batch_size,
            optimizer=optax.adam(1e-4),
            progress=False,
        )

    return run


def floor(objective, rows, batch_size):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import energia as en

    model = en.MLPEnergy(2, width=128, depth=2, key=jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    batch, direction = jnp.asarray(rows[: 2 * batch_size]).reshape(2, batch_size, 2)

    def pcd(energy, x, moved):
        return jnp.mean(jax.vmap(energy)(x)) - jnp.mean(jax.vmap(energy)(moved))

    def dsm(energy, x, target):
        slopes = jax.vmap(jax.grad(energy))(x)
        return 0.5 * jnp.mean(jnp.sum((slopes - target) ** 2, 1))

    def ssm(energy, x, v):
        slopes, curved = jax.jvp(jax.vmap(jax.grad(energy)), (x,), (v,))
        return jnp.mean(0.5 * jnp.sum(slopes**2, 1) - jnp.sum(v * curved, 1))

    loss = {"pcd": pcd, "dsm": dsm, "ssm": ssm}[objective]

    @jax.jit
    def loop(arrays, steps):
        def step(_, arrays):
            energy, other = eqx.combine(arrays, static), direction
            if objective == "pcd":
                slope = jax.grad(lambda x: jnp.sum(jax.vmap(energy)(x)))
                other = jax.lax.fori_loop(0, NUM_STEPS, lambda _, x: x - 1e-3 * slope(x), batch)
            gradient = jax.grad(lambda a: loss(eqx.combine(a, static), batch, other))(arrays)
            return jax.tree.map(lambda a, g: a - 1e-6 * g, arrays, gradient)

        return jax.lax.fori_loop(0, steps, step, arrays)

    return lambda steps: jax.block_until_ready(loop(arrays, steps))


def worker(side, objective, batch_size):
    """Say which packages there are; then run as many steps as each line asks for."""
    try:
        packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES[side])
    except PackageNotFoundError as missing:
        print(json.dumps({"absent": missing.name}), flush=True)
        return
    random = Random(0)
    rows = [[random.gauss(0, 1), random.gauss(0, 1)] for _ in range(10_000)]
    if side in ("energia", "floor"):
        run = {"energia": energia, "floor": floor}[side](objective, rows, batch_size)
    else:
        import _pytorch

        run = _pytorch.SIDES[side](objective, rows, batch_size, NUM_STEPS)
    print(json.dumps({"packages": packages}), flush=True)
    for line in sys.stdin:
        run(int(line))
        print("done", flush=True)


# --- all of them in turn


class Side:
    """A process that runs as many steps as it is asked for."""

    def __init__(self, side, objective, batch_size, python):
        command = [python, __file__, "--worker", side, objective, str(batch_size)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        told = json.loads(self._line())
        self.packages, self.absent = told.get("packages"), told.get("absent")

    def __call__(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self._line()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with code {self.process.wait()}")
        return line

    def end(self):
        self.process.communicate()


def steps_in(run, seconds):
    """How many steps take about so long, what a call costs beside them left out."""
    run(SHORT)
    count, taken = SHORT, 0.0
    while taken < 0.3 * seconds:
        count *= 4
        began = time.perf_counter()
        run(SHORT)
        middle = time.perf_counter()
        run(count + SHORT)
        taken = (time.perf_counter() - middle) - (middle - began)
    return max(int(count * seconds / taken), SHORT)


def compare(objective, batch_size, python, seconds, repeats):
    """Rates of all sides that there are, for runs of about so many seconds; their packages."""
    from _rates import steps_a_second

    known = {
        side: Side(side, objective, batch_size, sys.executable if index < 2 else python)
        for index, side in enumerate(SIDES)
    }
    sides = {name: side for name, side in known.items() if side.absent is None}
    steps = {name: steps_in(side, seconds) for name, side in sides.items()}
    rates = steps_a_second(sides, SHORT, steps, repeats)
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    print(f"{objective}, batch {batch_size}")
    for name, side in known.items():
        if side.absent is not None:
            print(f"  {name:10}absent: {side.absent} is not installed")
            continue
        pairs = zip(rates["energia"], rates[name], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        told = "" if name == "energia" else f"; energia has {ratio:.2f} of it"
        print(f"  {name:10}{medians[name]:7.0f} steps/s{told}", flush=True)
    for side in known.values():
        side.end()
    return [side.packages for side in sides.values()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--objectives", nargs="+", default=["pcd", "dsm", "ssm"])
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 32])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a run, about")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side, objective, batch_size = arguments.worker
        return worker(side, objective, int(batch_size))
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("one core for every side needs os.sched_setaffinity, which Linux has")
    # the processes of all sides inherit it; libraries size their pools of threads by it
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    for objective in arguments.objectives:
        for batch_size in arguments.batches:
            found = compare(
                objective,
                batch_size,
                arguments.torch_python,
                arguments.seconds,
                arguments.repeats,
            )
    names = dict.fromkeys(", ".join(found).split(", "))
    print(f"one core of {os.cpu_count()}, Linux; {', '.join(names)}")


if __name__ == "__main__":
    main()
