"""Convolutions of small images, fast where they run most."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class Convolution(eqx.nn.Conv2d):
    """A convolution of an image, shape (channels, height, width), with one stride and padding.

    On a CPU it is one matrix product with the windows of the image: inside a loop, where training
    and sampling run it, XLA's own takes about ten times as long there. Elsewhere it is that.
    """

    def __init__(self, before: int, after: int, width: int, *, stride: int = 1, key: jax.Array):
        super().__init__(before, after, width, stride, padding=width // 2, key=key)

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        if jax.default_backend() != "cpu":
            return super().__call__(x, **options)
        weight, (stride, _) = self.weight, self.stride
        width = weight.shape[-1]
        margin = width // 2
        sizes = [-(-(length + 2 * margin - width + 1) // stride) for length in x.shape[1:]]
        wide = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin)))
        tall, broad = (stride * (size - 1) + 1 for size in sizes)
        windows = [
            wide[:, i : i + tall : stride, j : j + broad : stride]
            for i in range(width)
            for j in range(width)
        ]
        columns = jnp.concatenate(windows).reshape(-1, sizes[0] * sizes[1])
        matrix = jnp.moveaxis(weight, 1, -1).reshape(len(weight), -1)
        assert self.bias is not None
        return (matrix @ columns).reshape(-1, *sizes) + self.bias
