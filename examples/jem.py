"""A classifier that is a density too: joint energy-based models, beside the classifier alone.

One network is trained twice: by the cross-entropy, and from there as a joint energy of image and
class. Both are then asked how accurate and how calibrated they are, whether they know noise and
rotated images from digits, and how many images a small change turns round; the joint energy also
draws images. With scikit-learn's digits:

    python examples/jem.py

with MNIST, in an npz file or a folder of IDX files:

    python examples/jem.py --mnist mnist.npz
"""

import argparse
import dataclasses
import pathlib
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en


class Network(eqx.Module):
    """Two convolutions with a stride of 2, a layer of units, and a logit for each class."""

    convolutions: list[en.Convolution]
    hidden: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, side, widths, units, key):
        keys = jax.random.split(key, 4)
        channels = [1, *widths]
        self.convolutions = [
            en.Convolution(channels[i], channels[i + 1], stride=2, key=keys[i]) for i in range(2)
        ]
        left = (side + 3) // 4  # halved twice, rounded up
        self.hidden = eqx.nn.Linear(left * left * widths[1], units, key=keys[2])
        self.last = eqx.nn.Linear(units, 10, key=keys[3])

    def __call__(self, x):
        features = 2 * x[None] - 1
        for convolution in self.convolutions:
            features = jax.nn.silu(convolution(features))
        return self.last(jax.nn.silu(self.hidden(jnp.ravel(features))))


@dataclasses.dataclass
class Settings:
    """How a network is made and trained."""

    widths: tuple[int, int]
    units: int
    classifier_steps: int
    joint_steps: int
    batch_size: int
    radius: float  # of attacks, in units of the range of pixels
    attacked: int  # images that are attacked


DIGITS = Settings((16, 32), 64, 1000, 500, 64, 0.1, 360)
MNIST = Settings((16, 32), 128, 3000, 1000, 64, 0.1, 1000)
NOISE = 0.03  # on images, in units of their range
CHAINS = en.samplers.Langevin(step_size=0.03, noise_scale=0.01, bounds=(0.0, 1.0))


def load(path):
    """Training and test data."""
    if path is not None:
        return en.data.mnist(path)
    data = en.data.digits()
    order = np.random.default_rng(0).permutation(len(data["x"]))
    rows = {name: array[order] for name, array in data.items()}
    return ({n: a[:-360] for n, a in rows.items()}, {n: a[-360:] for n, a in rows.items()})


def train(train_data, settings, key):
    """The classifier alone, and the joint energy that begins with it."""
    net_key, first_key, second_key = jax.random.split(key, 3)
    side = train_data["x"].shape[1]
    network = Network(side, settings.widths, settings.units, net_key)
    model = en.Classifier(network, shape=(side, side))
    noisy = en.data.add_noise(NOISE)
    alone = en.fit(
        model,
        train_data,
        en.objectives.MLE(given="x"),
        key=first_key,
        num_steps=settings.classifier_steps,
        batch_size=settings.batch_size,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, settings.classifier_steps)),
        augment=noisy,
    )
    jem = en.objectives.JEM(
        sampler=CHAINS, weight=0.1, num_steps=20, buffer_size=4096, class_conditional=True
    )
    joint = en.fit(
        alone.energy,
        train_data,
        jem,
        key=second_key,
        num_steps=settings.joint_steps,
        batch_size=settings.batch_size,
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(3e-4, settings.joint_steps)),
        ),
        ema_decay=0.99,
        augment=noisy,
    )
    return alone, joint


def others(test, path):
    """Images that are no digits: uniform noise, and the test images on their side."""
    noise = np.random.default_rng(1).uniform(size=test["x"].shape).astype(np.float32)
    images = {"uniform noise": noise, "on their side": np.rot90(test["x"], axes=(1, 2)).copy()}
    if path is not None:
        with np.load(path) as arrays:
            images["Omniglot"] = arrays["images"].astype(np.float32) / 255
    return images


def judge(energy, test, outside, settings, key):
    """A row of the table for each question."""
    calibration = en.evaluate.calibration_error(energy, test)
    rows = {"accuracy": calibration.accuracy, "calibration error": calibration.value}
    inside = en.evaluate.ood_scores(energy, test["x"])
    for name, images in outside.items():
        scores = en.evaluate.ood_scores(energy, images)
        rows[f"AUROC, {name}"] = en.evaluate.auroc(inside, scores)
    attacked = {name: rows[: settings.attacked] for name, rows in test.items()}
    rows[f"accuracy under attack, L-inf {settings.radius}"] = en.evaluate.adversarial_accuracy(
        energy, attacked, radius=settings.radius, bounds=(0.0, 1.0), key=key
    )
    return rows


def generate(energy, side, key, per_class=8, num_steps=1000):
    """Images of each class: chains of p(x | y) from uniform noise."""
    labels = jnp.repeat(jnp.arange(10), per_class)
    start_key, run_key = jax.random.split(key)
    starts = jax.random.uniform(start_key, (len(labels), side, side))

    @eqx.filter_jit
    def run(energy, starts, labels, keys):
        def chain(start, label, key):
            given = energy.condition(y=label)
            state = CHAINS.init(given, {"x": start}, key)

            def step(t, state):
                return CHAINS.step(given, state, jax.random.fold_in(key, t))[0]

            return jax.lax.fori_loop(0, num_steps, step, state).position["x"]

        return jax.vmap(chain)(starts, labels, keys)

    images = run(energy, starts, labels, jax.random.split(run_key, len(labels)))
    return np.asarray(images), np.asarray(labels)


def main():
    parser = argparse.ArgumentParser(description="A classifier that is a density too.")
    parser.add_argument("--mnist", help="an npz file, or a folder of IDX files")
    parser.add_argument("--omniglot", help="an npz file of other drawings, uint8 `images`")
    parser.add_argument("--out", default=".", help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--joint-steps", type=int, help="training steps of the joint energy")
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = DIGITS if options.mnist is None else MNIST
    if options.joint_steps:
        settings = dataclasses.replace(settings, joint_steps=options.joint_steps)
    train_data, test_data = load(options.mnist)
    train_key, judge_key, draw_key = jax.random.split(jax.random.key(options.seed), 3)

    began = time.perf_counter()
    alone, joint = train(train_data, settings, train_key)
    print(f"trained in {time.perf_counter() - began:.0f} s")
    outside = others(test_data, options.omniglot)
    tables = [
        judge(fit.ema_energy, test_data, outside, settings, judge_key) for fit in (alone, joint)
    ]
    print(f"{'':36s} {'classifier':>12s} {'joint energy':>12s}")
    for name in tables[0]:
        print(f"{name:36s} {tables[0][name]:12.4f} {tables[1][name]:12.4f}")

    images, labels = generate(joint.ema_energy, test_data["x"].shape[1], draw_key)
    told = jax.vmap(alone.ema_energy.logits)(jnp.asarray(images)).argmax(-1)
    agreed = float(np.mean(np.asarray(told) == labels))
    print(f"drawn images that the classifier alone takes for their class: {agreed:.0%}")
    en.plot.images(images, columns=8, bounds=(0, 1)).savefig(out / "jem_digits.png")
    print(f"picture in {out / 'jem_digits.png'}, {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
