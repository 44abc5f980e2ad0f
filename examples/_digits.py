"""What the examples on digits share: a network, training, draws, and judges of them."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en

NOISE = jnp.geomspace(4.0, 0.1, 45)  # levels of it, where a pixel runs from -1 to 1
SCALE = 0.8  # of such pixels, about


class Network(eqx.Module):
    """Of an image and its noise level: a perceptron with shortcuts, its values of any shape."""

    first: eqx.nn.Linear
    blocks: list[eqx.nn.Linear]
    last: eqx.nn.Linear
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape, width, key):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Linear(64 + 16, width, key=keys[0])
        self.blocks = [eqx.nn.Linear(width, width, key=each) for each in keys[1:3]]
        self.last = eqx.nn.Linear(width, math.prod(shape), key=keys[3])
        self.shape = shape

    def __call__(self, x, sigma):
        angles = jnp.geomspace(0.25, 4.0, 8) * jnp.log(sigma)
        features = self.first(jnp.concatenate([jnp.ravel(x), jnp.sin(angles), jnp.cos(angles)]))
        for block in self.blocks:
            features = features + block(jax.nn.silu(features))
        return self.last(jax.nn.silu(features)).reshape(self.shape)


def fitted(model, data, objective, num_steps, key, rate=2e-3, **options):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    return en.fit(
        model, data, objective, key=key, num_steps=num_steps, optimizer=optimizer, **options
    )


def learn(*arguments, **options):
    return fitted(*arguments, **options).ema_energy


def sampler_of(name, steps_per_level):
    """Down the noise levels: another kernel is another word."""
    if name == "reverse_diffusion":
        return name
    return en.samplers.Annealed(name, steps_per_level=steps_per_level)


def draw(energy, name, steps_per_level, key, count):
    """Sample E(x, sigma) down the noise levels, then take the rest of the noise away (Tweedie)."""
    levels = NOISE if name == "reverse_diffusion" else NOISE[::4]  # one step a level, or several
    sampler = sampler_of(name, steps_per_level)
    path = en.Path(energy, sigma=levels)
    with warnings.catch_warnings():  # so few draws of each run cannot be checked
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        x = en.sample(path, sampler, key=key, num_samples=count // 4)["x"].reshape(-1, 8, 8)
    return np.asarray(x + NOISE[-1] ** 2 * jax.vmap(path.target.score)(x))


def judged(data, num_steps, network_key, key):
    """A classifier of clean digits, as a function of images that tells their digits."""
    layers = eqx.nn.MLP(64, 10, 128, 2, key=network_key)
    network = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), layers])
    judge = en.Classifier(network, shape=(8, 8))
    judge = learn(judge, data, en.objectives.MLE(given="x"), min(num_steps, 1000), key)
    return jax.jit(jax.vmap(lambda x: judge.logits(x).argmax()))


def distance(images):
    """The mean distance of two images of a set."""
    x = images.reshape(len(images), -1)
    apart = np.sqrt(np.maximum(((x[:, None] - x[None]) ** 2).sum(-1), 0))
    return apart.sum() / (len(x) * (len(x) - 1))
