"""Learning curves of Boltzmann machines on MNIST: test log-likelihood in nats against time.

    python benchmarks/mnist.py mnist.npz                          # 784-500
    python benchmarks/mnist.py mnist.npz --layers 500 1000        # a deep machine: the lower bound

The file has the arrays x_train and x_test, grey levels 28 by 28. Pixels are drawn by grey level,
those of training anew at each step, those of the test digits once: the binarisation for which the
likelihoods hold. The normaliser is AIS's from the Bernoulli reference of the data's means, with
reverse AIS on the other side. Seconds are those of training, without the evaluations.
"""

import argparse
import os
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en


def binarise(datum, key):
    return {"v": jax.random.bernoulli(key, datum["v"] / 255.0).astype(jnp.float32)}


def digits(path, key):
    stored = np.load(path)
    train, test = (stored[name].reshape(-1, 784) for name in ("x_train", "x_test"))
    keys = jax.random.split(key)
    drawn = (
        np.asarray(jax.random.bernoulli(k, rows / 255.0), np.float32)
        for k, rows in zip(keys, (train, test), strict=True)
    )
    return train, *drawn


class Curve:
    """Evaluates what has been learned so far, and keeps its own time out of that of training."""

    def __init__(self, test, key):
        self.test, self.key = test, key
        self.spent, self.since = 0.0, time.perf_counter()

    def __call__(self, fit):
        self.spent += time.perf_counter() - self.since
        self.tell(f"{len(fit.history['loss']):>7}", fit.ema_energy, 1_000)
        self.since = time.perf_counter()

    def tell(self, name, machine, annealing_steps):
        result = en.evaluate.log_likelihood(
            machine, self.test, key=self.key, num_steps=annealing_steps
        )
        z = result.log_partition
        weights = "exact" if z.ess is None else f"ESS {z.ess:.0f} of {z.num_chains}"
        print(
            f"{name} {self.spent:>8.0f} s {result.value:>9.2f} ± {result.stderr:.2f}"
            f"  [{result.lower:.2f}, {result.upper:.2f}]  log Z {z.value:.2f} ± {z.stderr:.2f}"
            f"  {weights}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="a file with the arrays x_train and x_test")
    parser.add_argument("--layers", type=int, nargs="+", default=[500])
    parser.add_argument("--num-steps", type=int, default=60_000)
    parser.add_argument("--pretrain-steps", type=int, default=5_000, help="a layer")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--pretrain-rate", type=float, default=0.001, help="the same, of a layer")
    parser.add_argument("--gibbs-steps", type=int, default=5)
    parser.add_argument("--annealing-steps", type=int, default=20_000, help="at the end")
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; jax {version('jax')}, "
        f"optax {version('optax')}; {vars(arguments) | {'data': 'mnist.npz'}}"
    )
    keys = jax.random.split(jax.random.key(arguments.seed), 5)
    train, drawn, test = digits(arguments.data, keys[0])

    deep = len(arguments.layers) > 1
    pcd = en.objectives.PCD(
        num_steps=arguments.gibbs_steps,
        buffer_size=arguments.batch_size,
        reinit_prob=0.0,
        mean_field=deep,
    )
    curve = Curve(test, keys[4])
    if deep:
        machine = en.pretrain(
            en.DBM((784, *arguments.layers), data=drawn[:10_000], key=keys[1]),
            drawn,
            en.objectives.PCD(num_steps=1, buffer_size=arguments.batch_size, reinit_prob=0.0),
            key=keys[2],
            num_steps=arguments.pretrain_steps,
            batch_size=arguments.batch_size,
            optimizer=optax.adam(arguments.pretrain_rate),
        )
    else:
        machine = en.RBM(784, *arguments.layers, data=drawn[:10_000], key=keys[1])
    print(machine)
    print("  steps training  test, nats a digit")
    fit = en.fit(
        machine,
        train,
        pcd,
        key=keys[3],
        num_steps=arguments.num_steps,
        batch_size=arguments.batch_size,
        optimizer=optax.adam(
            optax.cosine_decay_schedule(arguments.learning_rate, arguments.num_steps)
        ),
        augment=binarise,
        callback=curve,
        evaluate_every=arguments.num_steps // arguments.evaluations,
    )
    curve.tell("  final", fit.ema_energy, arguments.annealing_steps)


if __name__ == "__main__":
    main()
