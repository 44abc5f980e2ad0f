"""A 3, and slanted, and not thick: attributes learned apart, and composed.

An energy of all of scikit-learn's digits is learned at many noise levels. Then each attribute is
learned as a factor that turns it into the energy of the images that have it: the threes, the
slanted third, the thick third,

    en.fit(everything.freeze() + Attribute(network), images_that_have_it, "dsm", key=key)

No energy is told of slanted thin threes. By Bayes' rule, where attributes are independent given the
image, they are

    wanted = everything + three + slanted - 0.5 * thick

and one call draws from it down the noise levels, with any kernel by name. What is drawn is measured
as the data are: slant by second moments, thickness by ink, and the digit by a classifier trained
apart; and how far apart two images are, as a share of that in the data that have the attributes.

    python examples/attributes.py
    python examples/attributes.py --sampler reverse_diffusion --objective drl
    python examples/attributes.py --full

See Du, Li and Mordatch (2020), Compositional visual generation with energy based models, and Liu et
al. (2022), Compositional visual generation with composable diffusion models.
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from _digits import NOISE, SCALE, Network, distance, draw, judged, learn, sampler_of

import energia as en

OBJECTIVES = {
    "dsm": en.objectives.DSM(sigma=NOISE),
    "drl": en.objectives.DRL(num_levels=len(NOISE) - 1, num_steps=10, sigma_min=0.1, sigma_max=4.0),
}


class Attribute(en.Energy):
    """-log p(attribute | x, sigma), up to a constant: at least 0, and no steeper than linear.

    So no place is likelier for it than Bayes' rule allows, and a negation, which lowers the energy
    linearly at most, is outweighed where the energy of all digits grows faster far from them.
    Nothing makes a learned one do so: too large a weight shows as particles that run away.
    """

    network: Network

    def __call__(self, x, sigma):
        return jax.nn.softplus(self.network(x / jnp.sqrt(SCALE**2 + sigma**2), sigma))


def ink(images):
    """How much of the paper is written on, from 0 to 1."""
    return ((np.clip(images, -1, 1) + 1) / 2).mean((1, 2))


def slant(images):
    """How far a stroke moves to the right as it rises by a pixel, by second moments of the ink."""
    weights = (np.clip(images, -1, 1) + 1) / 2
    weights = weights / weights.sum((1, 2), keepdims=True)
    rows, columns = np.mgrid[:8, :8].astype(float)
    up = -(rows - (weights * rows).sum((1, 2))[:, None, None])
    right = columns - (weights * columns).sum((1, 2))[:, None, None]
    return (weights * up * right).sum((1, 2)) / (weights * up**2).sum((1, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sampler", default="hmc", help="a kernel by name, or 'reverse_diffusion'")
    parser.add_argument("--objective", default="dsm", choices=OBJECTIVES)
    parser.add_argument("--full", action="store_true", help="a wider network, longer chains")
    parser.add_argument("--num-steps", type=int, help="training steps of the energy of all digits")
    parser.add_argument("--count", type=int, help="images drawn of each energy, a multiple of 4")
    parser.add_argument("--weight", type=float, default=1.0, help="of what is asked for")
    parser.add_argument("--negation", type=float, default=0.5, help="weight of what is not")
    parser.add_argument("--steps-per-level", type=int, help="transitions of the kernel")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    width, num_steps, count, steps_per_level = 256, 2000, 100, 4
    if options.full:
        width, num_steps, count, steps_per_level = 512, 20_000, 1000, 20
    num_steps, count = options.num_steps or num_steps, options.count or count
    steps_per_level = options.steps_per_level or steps_per_level
    sampler_of(options.sampler, steps_per_level)  # a wrong name is told before anything is learned
    keys = jax.random.split(jax.random.key(options.seed), 8)
    objective = OBJECTIVES[options.objective]

    # --- attributes of the data
    data = en.data.digits()
    x, y = 2 * data["x"] - 1, data["y"]
    steep, dark = np.quantile(slant(x), 2 / 3), np.quantile(ink(x), 2 / 3)
    has = {"three": y == 3, "slanted": slant(x) > steep, "thick": ink(x) > dark}
    like = {  # the data that have what is asked for
        "everything": y >= 0,
        **has,
        "three AND slanted": has["three"] & has["slanted"],
        "three AND slanted AND NOT thick": has["three"] & has["slanted"] & ~has["thick"],
    }

    # --- an energy of all digits, and a factor of each attribute
    network = Network((8, 8), width, keys[0])
    everything = en.NoiseConditional(network, form="quadratic", data_scale=SCALE, shape=(8, 8))
    everything = learn(everything, x, objective, num_steps, keys[1])
    three, slanted, thick = (
        learn(
            everything.freeze() + Attribute(Network((), 128, key)),
            x[rows],
            objective,
            num_steps // 2,
            key,
        ).energies[-1]
        for rows, key in zip(has.values(), jax.random.split(keys[2], 3), strict=True)
    )

    # --- what they say together
    also, never = options.weight, options.negation
    both = everything + also * three + also * slanted
    energies = {
        "everything": everything,
        "three": everything + three,
        "slanted": everything + slanted,
        "thick": everything + thick,
        "three AND slanted": both,
        "three AND slanted AND NOT thick": both - never * thick,
    }
    print(energies["three AND slanted AND NOT thick"])

    # --- measured as the data are
    told = judged({"x": x, "y": y}, num_steps, keys[4], keys[5])

    def measured(name, images, digits, similar):
        is_three, leans, is_dark = digits == 3, slant(images) > steep, ink(images) > dark
        wanted = is_three & leans & ~is_dark
        print(
            f"{name:32s} {is_three.mean():7.1%} {slant(images).mean():7.3f} {leans.mean():8.1%} "
            f"{ink(images).mean():7.3f} {is_dark.mean():7.1%} "
            f"{wanted.mean():8.1%} {distance(images) / distance(similar):10.2f}",
            flush=True,
        )

    titles = f"{'threes':>7s} {'slant':>7s} {'slanted':>8s} {'ink':>7s} {'thick':>7s} {'all':>8s}"
    print(f"{'':32s} {titles} {'diversity':>10s}")
    measured("data", x, y, x)
    shown, labels = [], []
    for (name, energy), key in zip(energies.items(), jax.random.split(keys[6], 6), strict=True):
        images = draw(energy, options.sampler, steps_per_level, key, count)
        measured(name, images, np.asarray(told(images)), x[like[name]])
        shown += list(images[:20])
        labels += [*[""] * 9, name, *[""] * 10]
    path = options.out / "attributes.png"
    en.plot.images(np.stack(shown), columns=20, bounds=(-1, 1), labels=labels).savefig(path)
    print(f"picture in {path}; {time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
