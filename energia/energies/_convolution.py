"""Convolutions of small images, fast where they run most."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class Convolution(eqx.nn.Conv2d):
    r"""A convolution for networks that are trained and sampled on a CPU too.

    $y_o = b_o + \sum_c W_{oc} \star x_c$, padded with zeros so that an image of height and width
    $n$ becomes one of $\lceil n / \text{stride} \rceil$.

    It is `eqx.nn.Conv2d`, but for a CPU, where it is one matrix product with the windows of the
    image: inside a loop, and training and sampling run in loops, XLA's own convolution takes about
    ten times as long there.

    Args:
        in_channels: of an image, shape (in_channels, height, width).
        out_channels: of its values, shape (out_channels, height, width).
        width: of the square kernel, odd.
        stride: every how many pixels the kernel stands.
        key: a typed JAX key for the initial weights.

    Raises:
        ValueError: when the width is even.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> layer = en.Convolution(1, 4, stride=2, key=jax.random.key(0))
        >>> layer(jnp.zeros((1, 28, 28))).shape
        (4, 14, 14)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 3,
        *,
        stride: int = 1,
        key: jax.Array,
    ):
        if width % 2 == 0:
            raise ValueError(f"Convolution(width=...) must be odd, got {width}")
        padding = width // 2
        super().__init__(in_channels, out_channels, width, stride, padding=padding, key=key)

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        if jax.default_backend() != "cpu":
            return super().__call__(x, **options)
        stride, width = self.stride[0], self.weight.shape[-1]
        margin = width // 2
        wide = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin)))
        sizes = [-(-length // stride) for length in x.shape[1:]]
        rows, columns = (stride * (size - 1) + 1 for size in sizes)
        windows = [
            wide[:, i : i + rows : stride, j : j + columns : stride]
            for i in range(width)
            for j in range(width)
        ]
        matrix = jnp.moveaxis(self.weight, 1, -1).reshape(self.out_channels, -1)
        values = matrix @ jnp.concatenate(windows).reshape(matrix.shape[1], -1)
        assert self.bias is not None
        return values.reshape(-1, *sizes) + self.bias
