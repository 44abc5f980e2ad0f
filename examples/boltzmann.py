"""Boltzmann machines of handwritten digits, with likelihoods: in some minutes.

A restricted machine is trained on scikit-learn's digits (8 by 8, thresholded) by persistent
contrastive divergence, and its test log-likelihood is exact, by a sum over the states of its hidden
units. It draws digits, shows its filters, and completes digits of which it sees the upper half. A
deep machine is trained layer by layer, then as a whole; its likelihood is a lower bound.

    python examples/boltzmann.py
    python examples/boltzmann.py --mnist mnist.npz --num-hidden 20 --num-steps 60000

With `--mnist` the digits are those of a file or folder that `en.data.mnist` reads, 28 by 28, whose
pixels are drawn anew at each step by their grey level, and of the test digits once: likelihoods
hold for that binarisation, and not for thresholded digits, which score some 15 nats higher.
"""

import argparse
import pathlib
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en


def picture(rows, path, **options):
    """Images, a row of a matrix each, side by side."""
    side = int(np.sqrt(rows.shape[1]))
    figure = en.plot.images(rows.reshape(-1, side, side), columns=10, **options)
    figure.savefig(path, dpi=120)


def flat(data):
    return data["x"].reshape(len(data["x"]), -1)


def small_digits():
    digits = np.float32(flat(en.data.digits()) > 0.5)
    return digits[:1437], digits[1437:], None


def mnist(path, key):
    def binarise(datum, key):
        return {"v": jax.random.bernoulli(key, datum["v"]).astype(jnp.float32)}

    train, test = map(flat, en.data.mnist(path))
    return train, np.asarray(jax.random.bernoulli(key, test), np.float32), binarise


def average(machine, draws):
    """The mean of the visible units given the others of each draw: grey levels of drawn images."""
    others = {name: draws[name] for name in machine.variables if name != "v"}
    factors = jax.vmap(lambda row: machine._factorize("v", row))(others)
    return jax.nn.softmax(factors.logits, axis=-1)[..., 1]


# chains at higher temperatures carry the others from digit to digit, which Gibbs alone rarely does
TEMPERED = en.samplers.ParallelTempering("gibbs", num_replicas=8)


def samples(machine, sampler, key, num_chains=10, each=3):
    """Draws far apart, of many chains: to look at, so that few of each will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(
            machine,
            sampler,
            key=key,
            num_chains=num_chains,
            num_warmup=500,
            num_samples=500,
            thin=2,
        )
    chosen = np.linspace(0, 499, each).astype(int)
    rows = {name: np.concatenate(draws[name][:, chosen]) for name in machine.variables}
    return average(machine, rows)


def completed(rbm, image, key):
    """A digit of which the upper half is clamped: the mean over draws of the lower one; R-hat."""
    half = image.size // 2

    def whole(missing, known):
        return jnp.concatenate([known, missing])

    posterior = (
        rbm.substitute(v=whole).constrain(missing=en.Binary(half)).condition(known=image[:half])
    )
    with warnings.catch_warnings():  # told for all of them at once
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(posterior, TEMPERED, key=key, num_warmup=200, num_samples=1000)
    mean = np.concatenate([image[:half], draws["missing"].mean((0, 1))])
    return mean, draws.diagnose(show=False).max_rhat


def told(name, result, began):
    print(f"{name}: {result}  ({time.perf_counter() - began:.0f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mnist", help="what en.data.mnist reads")
    parser.add_argument("--num-hidden", type=int, default=20)
    parser.add_argument("--num-steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--gibbs-steps", type=int, default=5)
    parser.add_argument("--annealing-steps", type=int, default=1000, help="above 20 hidden units")
    parser.add_argument("--layers", type=int, nargs=2, default=(64, 32), help="of the deep machine")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    key, began = jax.random.key(arguments.seed), time.perf_counter()
    keys = jax.random.split(key, 8)
    if arguments.mnist:
        train, test, binarise = mnist(arguments.mnist, keys[0])
        sampler = "gibbs"  # 784 pixels would need a long ladder
        first = jax.random.bernoulli(keys[1], train[:10_000])
    else:
        train, test, binarise = small_digits()
        sampler = TEMPERED
        first = train

    schedule = optax.cosine_decay_schedule(arguments.learning_rate, arguments.num_steps)
    options = {
        "num_steps": arguments.num_steps,
        "batch_size": arguments.batch_size,
        "optimizer": optax.adam(schedule),
        "augment": binarise,
    }
    pcd = en.objectives.PCD(num_steps=arguments.gibbs_steps, buffer_size=1024, reinit_prob=0.0)

    # --- a restricted machine
    rbm = en.RBM(test.shape[1], arguments.num_hidden, data=first, key=keys[2])
    print(rbm)
    rbm = en.fit(rbm, train, pcd, key=keys[3], **options).ema_energy
    result = en.evaluate.log_likelihood(rbm, test, key=keys[4], num_steps=arguments.annealing_steps)
    told("test log-likelihood", result, began)
    picture(samples(rbm, sampler, keys[5]), arguments.out / "rbm_samples.png")
    weights = rbm.weights.T[:100]
    bound = float(jnp.quantile(jnp.abs(weights), 0.99))
    picture(weights, arguments.out / "rbm_filters.png", bounds=(-bound, bound))
    if arguments.mnist:
        return

    # --- lower halves of test digits, given the upper ones
    shown, rhats = zip(*(completed(rbm, image, keys[6]) for image in test[:10]), strict=True)
    print("completions: max R-hat " + ", ".join(f"{rhat:.2f}" for rhat in rhats))
    halves = [np.concatenate([image[:32], np.full(32, 0.3)]) for image in test[:10]]
    picture(np.concatenate([test[:10], halves, shown]), arguments.out / "rbm_completed.png")
    told("pictures", arguments.out, began)

    # --- a deep machine
    dbm = en.DBM((test.shape[1], *arguments.layers), data=first, key=keys[2])
    print(dbm)
    deep = en.objectives.PCD(
        num_steps=arguments.gibbs_steps, buffer_size=1024, reinit_prob=0.0, mean_field=True
    )
    dbm = en.pretrain(dbm, train, pcd, key=keys[3], num_steps=1500, optimizer=optax.adam(0.005))
    dbm = en.fit(dbm, train, deep, key=keys[4], **options).ema_energy
    result = en.evaluate.log_likelihood(dbm, test, key=keys[5], num_steps=arguments.annealing_steps)
    told("test log-likelihood", result, began)
    picture(samples(dbm, sampler, keys[6]), arguments.out / "dbm_samples.png")
    told("pictures", arguments.out, began)


if __name__ == "__main__":
    main()
