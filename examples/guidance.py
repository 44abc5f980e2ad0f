"""Digits of a class that is asked for: guidance by a classifier, and without one.

One energy E(x, y, sigma) is learned from scikit-learn's digits at many noise levels, with the label
dropped at random to one that stands for "none", so that E(x, none, sigma) is the energy of all
digits; and a classifier E_c(x, y, sigma) of noisy digits. Then two lines bend one towards a class:

    en.guide(everything, classifier, y=3, scale=s)                     # E(x) - s log p(y | x)
    en.classifier_free(digits.condition(y=3), everything, scale=s)     # (1 + s) E(x | y) - s E(x)

and each is sampled down the noise levels, at several scales s. A classifier that was trained apart,
on clean digits, tells how many are of their class; the distances between digits of one class, how
much of the diversity of the data is left.

    python examples/guidance.py
    python examples/guidance.py --sampler reverse_diffusion --objective drl
    python examples/guidance.py --full
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from _digits import NOISE, SCALE, Network, distance, draw, judged, learn, sampler_of

import energia as en

NONE = 10  # the label that stands for none

OBJECTIVES = {
    "dsm": en.objectives.DSM(sigma=NOISE, given="y"),
    "drl": en.objectives.DRL(
        num_levels=len(NOISE) - 1, num_steps=10, sigma_min=0.1, sigma_max=4.0, given="y"
    ),
}


class NoisyClassifier(en.Energy):
    """E(x, y, sigma) = -log p(y | x, sigma), of digits with noise."""

    network: Network

    def __call__(self, x, y, sigma):
        return -jax.nn.log_softmax(self.network(x / jnp.sqrt(SCALE**2 + sigma**2), sigma))[y]


class Digits(en.Energy):
    """E(x, y, sigma) = |x - D(x, sigma)|^2 / 2 sigma^2 + h_y(x, sigma), with h = 0 for no label.

    By Bayes' rule h is -log p(y | x, sigma), up to a constant: it is bounded from below here too,
    and so is (1 + s) E(x, y) - s E(x, none) at any scale. A denoiser that is given the label leaves
    the difference unbounded where it never saw data, and chains at equilibrium find such places.
    """

    denoiser: Network
    labels: Network

    def __call__(self, x, y, sigma):
        digits = en.NoiseConditional(self.denoiser, form="quadratic", data_scale=SCALE)
        by_label = self.labels(x / jnp.sqrt(SCALE**2 + sigma**2), sigma)
        return digits(x, sigma) + jnp.append(jax.nn.softplus(by_label), 0.0)[y]


def dropped(datum, key):
    """Every second label becomes none."""
    return {**datum, "y": jnp.where(jax.random.bernoulli(key), NONE, datum["y"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sampler", default="hmc", help="a kernel by name, or 'reverse_diffusion'")
    parser.add_argument("--objective", default="dsm", choices=OBJECTIVES)
    parser.add_argument("--full", action="store_true", help="a wider network, longer chains")
    parser.add_argument("--num-steps", type=int, help="training steps of the energy")
    parser.add_argument("--count", type=int, help="digits drawn of each class, a multiple of 4")
    parser.add_argument("--steps-per-level", type=int, help="transitions of the kernel")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    width, num_steps, count, steps_per_level = 256, 2500, 8, 4
    if options.full:
        width, num_steps, count, steps_per_level = 512, 30_000, 100, 20
    num_steps, count = options.num_steps or num_steps, options.count or count
    steps_per_level = options.steps_per_level or steps_per_level
    sampler_of(options.sampler, steps_per_level)  # a wrong name is told before anything is learned
    keys = jax.random.split(jax.random.key(options.seed), 8)

    data = en.data.digits()
    order = np.random.default_rng(options.seed).permutation(len(data["y"]))
    data = {"x": 2 * data["x"][order] - 1, "y": data["y"][order]}
    train = {name: rows[:-360] for name, rows in data.items()}
    test = {name: rows[-360:] for name, rows in data.items()}

    # --- learned apart: digits with a label or none, the label of noisy digits, that of clean ones
    image, mle = en.Real((8, 8)), en.objectives.MLE(given=("x", "sigma"))
    digits = Digits(Network((8, 8), width, keys[0]), Network((10,), width, keys[1]))
    digits = digits.constrain(x=image, y=en.Categorical(NONE + 1))
    digits = learn(
        digits, train, OBJECTIVES[options.objective], num_steps, keys[2], augment=dropped
    )
    everything = digits.condition(y=NONE)
    noisy = NoisyClassifier(Network((10,), 128, keys[3])).constrain(x=image, y=en.Categorical(10))
    noise = en.data.diffuse(NOISE)
    noisy = learn(noisy, train, mle, num_steps // 2, keys[3], augment=noise)
    told = judged(train, num_steps, keys[4], keys[5])
    print(
        digits,
        f"{np.mean(told(test['x']) == test['y']):.1%} of clean test digits are told",
        sep="\n",
    )

    # --- bent towards each class
    guided = {
        "guided by a classifier": lambda y, s: en.guide(everything, noisy, y=y, scale=s),
        "classifier-free": lambda y, s: en.classifier_free(
            digits.condition(y=y), everything, scale=s
        ),
    }
    scales = {"guided by a classifier": (0, 1, 3, 10), "classifier-free": (0, 1, 3)}
    own = np.mean([distance(test["x"][test["y"] == y]) for y in range(10)])
    print(f"{'':24s} {'scale':>6s} {'accuracy':>9s} {'diversity':>10s}")
    shown, labels = [], []
    for name, energy in guided.items():
        for scale in scales[name]:
            drawn = [
                draw(energy(y, scale), options.sampler, steps_per_level, key, count)
                for y, key in enumerate(jax.random.split(keys[6], 10))
            ]
            right = np.mean([np.mean(told(x) == y) for y, x in enumerate(drawn)])
            spread = np.mean([distance(x) for x in drawn]) / own
            print(f"{name:24s} {scale:6g} {right:9.1%} {spread:10.2f}", flush=True)
            shown += [image for x in drawn for image in x[:2]]
            labels += [*[""] * 9, f"{name}, s = {scale:g}", *[""] * 10]
    path = options.out / "guidance.png"
    en.plot.images(np.stack(shown), columns=20, bounds=(-1, 1), labels=labels).savefig(path)
    print(f"{path}: {', then '.join(guided)}; {time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
