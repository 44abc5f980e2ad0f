"""The network of the examples on digits."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp


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
