"""A classifier that is a density too: joint energy-based models, beside the classifier alone.

One network is trained twice: by the cross-entropy, and from there as a joint energy of image and
class. Both are then asked how accurate and how calibrated they are, whether they know noise, other
drawings and images on their side from digits, and how many images a small change turns round. With
scikit-learn's digits, in some two minutes:

    python examples/jem.py

with MNIST, in an npz file or a folder of IDX files, in some twenty:

    python examples/jem.py --mnist mnist.npz

The joint energy has one factor beside the network, of independent normal pixels, which spares the
network to learn the bowl that all images with noise lie in. It also draws images, by chains of each
class from uniform noise. They run at the temperature 1, in training as afterwards, so that what is
learned is a density, of images with noise, and chains may run on for as long as they like: told are
how far the drawn images are from those of the training after more and more steps, beside how far
the test images are. The noise is taken away at the end by Tweedie's formula, x - noise² ∇F(x). With
the cold chains that images are usually trained with (`Langevin(noise_scale=...)` below the root of
2 step_size) all chains of a class ended at one picture.

See Grathwohl et al. (2020), Your classifier is secretly an energy based model.
"""

import argparse
import dataclasses
import pathlib
import time
import warnings

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


def independent(x, noise):
    """The energy of independent normal pixels: mean and deviation of the data with noise."""
    mean, scale = x.mean(0), np.sqrt(x.var(0) + noise**2)

    @en.energy(x=en.Real(x.shape[1:]))
    def pixels(x):
        return 0.5 * jnp.sum(((x - mean) / scale) ** 2)

    return pixels


@dataclasses.dataclass
class Settings:
    """How a network is made and trained, and what is asked of it; pixels run from 0 to 1."""

    widths: tuple[int, int]
    units: int
    classifier_steps: int
    joint_steps: int
    noise: float  # on images in training
    step_size: float  # of the chains
    weight: float  # of the density beside the classes
    linf: float  # radii of attacks
    l2: float
    attacked: int  # images that are attacked
    drawn: int  # of each class
    thin: int  # transitions between the images of a chain that are kept


DIGITS = Settings((16, 32), 64, 1000, 1000, 0.15, 0.01, 0.2, 0.1, 0.5, 360, 36, 100)
MNIST = Settings((16, 32), 128, 3000, 2500, 0.2, 0.015, 0.02, 0.1, 1.0, 1000, 20, 200)
KEPT = (1, 2, 5, 10, 20)  # images of a chain that are looked at


def load(path):
    """Training and test data."""
    if path is not None:
        return en.data.mnist(path)
    data = en.data.digits()
    order = np.random.default_rng(0).permutation(len(data["x"]))
    rows = {name: array[order] for name, array in data.items()}
    return ({n: a[:-360] for n, a in rows.items()}, {n: a[-360:] for n, a in rows.items()})


def train(train_data, settings, objective, key):
    """The classifier alone, and the joint energy that begins with it."""
    net_key, first_key, second_key = jax.random.split(key, 3)
    side = train_data["x"].shape[1]
    network = Network(side, settings.widths, settings.units, net_key)
    noisy = en.data.add_noise(settings.noise)
    alone = en.fit(
        en.Classifier(network, shape=(side, side)),
        train_data,
        en.objectives.MLE(given="x"),
        key=first_key,
        num_steps=settings.classifier_steps,
        batch_size=64,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, settings.classifier_steps)),
        augment=noisy,
    )
    joint = en.fit(
        alone.energy + independent(train_data["x"], settings.noise),
        train_data,
        objective,
        key=second_key,
        num_steps=settings.joint_steps,
        batch_size=64,
        optimizer=optax.chain(
            optax.clip_by_global_norm(10.0),
            optax.adam(optax.cosine_decay_schedule(1e-3, settings.joint_steps)),
        ),
        ema_decay=0.99,
        augment=noisy,
    )
    return alone.ema_energy, joint.ema_energy


def others(test, path):
    """Images that are no digits: uniform noise, and the test images on their side."""
    noise = np.random.default_rng(1).uniform(size=test["x"].shape).astype(np.float32)
    images = {"uniform noise": noise, "on their side": np.rot90(test["x"], axes=(1, 2)).copy()}
    if path is not None:
        with np.load(path) as arrays:
            images["Omniglot"] = arrays["images"].astype(np.float32) / 255
    return images


def judge(energy, test, scores, settings, key):
    """A row of the table for each question."""
    calibration = en.evaluate.calibration_error(energy, test)
    rows = {"accuracy": calibration.accuracy, "calibration error": calibration.value}
    for name in list(scores)[1:]:
        rows[f"AUROC, {name}"] = en.evaluate.auroc(scores["test digits"], scores[name])
    attacked = {name: rows[: settings.attacked] for name, rows in test.items()}
    for norm, radius in (("linf", settings.linf), ("l2", settings.l2)):
        rows[f"accuracy under attack, {norm} {radius}"] = en.evaluate.adversarial_accuracy(
            energy, attacked, radius=radius, norm=norm, bounds=(0.0, 1.0), key=key
        )
    return rows


def generate(energy, sampler, side, settings, key):
    """Chains of p(x | y) from uniform noise, some of each class: (class, chain, draw, *image)."""
    kernel = en.samplers.Thin(sampler, settings.thin)
    shape = (settings.drawn, side, side)
    chains = []
    with warnings.catch_warnings():  # so few draws of each chain cannot be checked
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        for label, label_key in enumerate(jax.random.split(key, 10)):
            start_key, run_key = jax.random.split(label_key)
            draws = en.sample(
                energy.condition(y=label),
                kernel,
                key=run_key,
                init={"x": jax.random.uniform(start_key, shape)},
                num_chains=settings.drawn,
                num_warmup=0,
                num_samples=KEPT[-1],
            )
            chains.append(draws["x"])
    return np.stack(chains)


def denoised(energy, x, settings):
    """Images without the noise that they were learned with, by Tweedie's formula."""
    score = jax.jit(jax.vmap(energy.marginalize("y").score))
    return np.clip(x + settings.noise**2 * np.asarray(score(jnp.asarray(x))), 0, 1)


def compare(samples, alone, joint, train_x, settings, key):
    """Print how far images are from those of the training, and what the energies say of them.

    Of images with noise the noise is taken away first.
    """
    features = en.evaluate.feature_network(train_x, num_steps=1000, key=key)
    told = jax.jit(jax.vmap(lambda x: alone.logits(x).argmax()))
    print(f"\n{'':36s} {'Fréchet':>12s} {'own class':>12s} {'free energy':>12s}")
    for name, (x, y, noisy) in samples.items():
        free = en.evaluate.ood_scores(joint, x).mean()
        if noisy:
            x = denoised(joint, x, settings)
        far = en.evaluate.frechet_distance(x, train_x["x"], features=features)
        own = "" if y is None else f"{np.mean(np.asarray(told(x)) == y):.1%}"
        print(f"{name:36s} {far:12.1f} {own:>12s} {free:12.1f}")


def main():
    parser = argparse.ArgumentParser(description="A classifier that is a density too.")
    parser.add_argument("--mnist", help="an npz file, or a folder of IDX files")
    parser.add_argument("--omniglot", help="an npz file of other drawings, uint8 `images`")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), help="for pictures")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("classifier_steps", "joint_steps", "drawn", "thin"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="see Settings")
    for name in ("noise", "step_size", "weight"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help="see Settings")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = DIGITS if options.mnist is None else MNIST
    given = {name: value for name, value in vars(options).items() if value is not None}
    given = {name: value for name, value in given.items() if hasattr(settings, name)}
    settings = dataclasses.replace(settings, **given)
    train_data, test_data = load(options.mnist)
    side = test_data["x"].shape[1]
    keys = jax.random.split(jax.random.key(options.seed), 4)

    began = time.perf_counter()
    sampler = en.samplers.Langevin(step_size=settings.step_size)
    jem = en.objectives.JEM(
        sampler=sampler,
        weight=settings.weight,
        num_steps=20,
        buffer_size=4096,
        class_conditional=True,
    )
    alone, joint = train(train_data, settings, jem, keys[0])
    print(f"trained in {time.perf_counter() - began:.0f} s")

    # --- what they know
    images = {"test digits": test_data["x"], **others(test_data, options.omniglot)}
    tables = []
    for energy in (alone, joint):
        scores = {name: en.evaluate.ood_scores(energy, x) for name, x in images.items()}
        tables.append(judge(energy, test_data, scores, settings, keys[1]))
    print(f"\n{'':36s} {'classifier':>12s} {'joint energy':>12s}")
    for name, value in tables[0].items():
        print(f"{name:36s} {value:12.4f} {tables[1][name]:12.4f}")
    en.plot.histograms(scores).savefig(options.out / "jem_energies.png")
    calibration = en.evaluate.calibration_error(joint, test_data)
    en.plot.reliability(calibration).savefig(options.out / "jem_reliability.png")

    # --- what the joint energy draws
    chains = generate(joint, sampler, side, settings, keys[2])
    x, y = (test_data[name][: 10 * settings.drawn] for name in ("x", "y"))
    noise = settings.noise * np.random.default_rng(0).normal(size=x.shape)
    samples = {
        "test digits": (x, y, False),
        "test digits with noise": (x + noise, y, True),
        "uniform noise": (images["uniform noise"][: len(x)], None, False),
    }
    own = np.repeat(np.arange(10), settings.drawn)
    for number in KEPT:
        drawn = chains[:, :, number - 1].reshape(-1, side, side)
        samples[f"drawn, {number * settings.thin} steps"] = drawn, own, True
    compare(samples, alone, joint, train_data, settings, keys[3])
    last = denoised(joint, chains[:, :8, -1].reshape(-1, side, side), settings)
    en.plot.images(last, columns=8, bounds=(0, 1)).savefig(options.out / "jem_digits.png")
    first = denoised(joint, chains[:, 0].reshape(-1, side, side), settings)
    first = first.reshape(10, -1, side, side)
    strips = en.plot.strips(first, thin=settings.thin, num_chains=10, bounds=(0, 1))
    strips.savefig(options.out / "jem_strips.png")
    print(f"pictures in {options.out}, {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
