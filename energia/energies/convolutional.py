"""Convolutional energies of images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import check_count, check_key
from energia.energies._checks import one_value
from energia.energies._convolution import Convolution
from energia.energies._energy import Energy
from energia.energies._spectral import SpectralNorm
from energia.supports import Real, Support

Activation = Callable[[jax.Array], jax.Array]
Layer = Convolution | SpectralNorm


class ConvEnergy(Energy):
    r"""A convolutional network with a scalar output, for images.

    Each layer is a convolution of 3 by 3 with a stride of 2, which halves the image (rounded up),
    then the activation; what is left is flattened and mapped to the energy.

    Args:
        image_shape: the shape of x, (height, width) or (height, width, channels).
        widths: channels of each layer.
        num_groups: of a group normalisation after each convolution, which divides every width;
            None: no normalisation.
        spectral_norm: whether each convolution is divided by its spectral norm, that of the linear
            map of images, with its padding and stride. The energy's slope is then at most the norm
            of the last layer's weights, which set its scale, times the activation's steepest slope
            (1.1 for silu) to the power of the number of layers.
        activation: a smooth function: score matching and Langevin dynamics use its derivatives.
        key: a typed JAX key for the initial weights.

    Raises:
        ValueError: when the shape is that of no image, the groups do not divide a width, or both
            normalisations are asked for.

    References:
        Nijkamp, Hill, Zhu and Wu (2019), Learning non-convergent non-persistent short-run MCMC
        toward energy-based model. Wu and He (2018), Group normalization. Miyato, Kataoka, Koyama
        and Yoshida (2018), Spectral normalization for generative adversarial networks.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> energy = en.ConvEnergy((8, 8), widths=(8, 16), key=jax.random.key(0))
        >>> energy(jnp.zeros((8, 8))).shape
        ()
        >>> print(energy)
        ConvEnergy(x)  [x: real (8, 8); 1313 parameters]
    """

    layers: tuple[Layer, ...]
    norms: tuple[eqx.nn.GroupNorm, ...]
    last: eqx.nn.Linear
    image_shape: tuple[int, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        widths: Sequence[int] = (64, 128, 256),
        num_groups: int | None = None,
        spectral_norm: bool = False,
        activation: Activation = jax.nn.silu,
        key: jax.Array,
    ):
        height, width, channels = _image(image_shape)
        widths = [check_count(each, "widths", 1) for each in widths]
        if not widths:
            raise ValueError("widths must name at least one layer, got none")
        self.norms = tuple(_norms(widths, num_groups, spectral_norm))
        keys = jax.random.split(check_key(key), len(widths) + 1)
        layers = []
        for before, after, layer_key in zip([channels, *widths], widths, keys[:-1], strict=False):
            layer = _conv(before, after, 2, layer_key)
            layers.append(_normed(layer, (height, width), spectral_norm, layer_key))
            height, width = -(-height // 2), -(-width // 2)
        self.layers = tuple(layers)
        self.last = eqx.nn.Linear(height * width * widths[-1], "scalar", key=keys[-1])
        self.image_shape, self.activation = tuple(image_shape), activation

    def __call__(self, x: ArrayLike) -> jax.Array:
        features = _channels_first(one_value(self, x, self.image_shape))
        for index, layer in enumerate(self.layers):
            features = layer(features)
            if self.norms:
                features = self.norms[index](features)
            features = self.activation(features)
        return self.last(jnp.ravel(features))

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self.image_shape)}


class ResNetEnergy(Energy):
    r"""A residual network with a scalar output, for images.

    A convolution of 3 by 3 to `width` channels; `depth` blocks
    $z \leftarrow a(s(z) + c_2(a(c_1(z))))$ of two convolutions and a shortcut each, of which the
    first two halve the image; the mean over positions; a linear map to the energy. The default is
    the network of Grathwohl et al. (2021).

    Args:
        image_shape: the shape of x, (height, width) or (height, width, channels).
        width: channels.
        depth: number of blocks.
        num_groups: of a group normalisation after each convolution of a block, which divides
            `width`; None: no normalisation.
        spectral_norm: whether each convolution is divided by its spectral norm, that of the linear
            map of images, with its padding and stride: a block then at most doubles a difference,
            times the activation's steepest slopes. The last layer's weights set the scale.
        activation: $a$, a smooth function: score matching and Langevin dynamics use its
            derivatives.
        key: a typed JAX key for the initial weights.

    Raises:
        ValueError: when the shape is that of no image, the groups do not divide the width, or both
            normalisations are asked for.

    References:
        He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition. Grathwohl,
        Swersky, Hashemi, Duvenaud and Maddison (2021), Oops I took a gradient: scalable sampling
        for discrete distributions.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> energy = en.ResNetEnergy((8, 8, 3), width=8, depth=2, key=jax.random.key(0))
        >>> energy(jnp.zeros((8, 8, 3))).shape
        ()
        >>> print(energy)
        ResNetEnergy(x)  [x: real (8, 8, 3); 2713 parameters]
    """

    first: Layer
    blocks: "tuple[_Block, ...]"
    last: eqx.nn.Linear
    image_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        width: int = 64,
        depth: int = 8,
        num_groups: int | None = None,
        spectral_norm: bool = False,
        activation: Activation = jax.nn.silu,
        key: jax.Array,
    ):
        *size, channels = _image(image_shape)
        width = check_count(width, "width", 1)
        depth = check_count(depth, "depth", 1)
        _norms([width], num_groups, spectral_norm)  # raises before anything is made
        key_first, key_last, key_blocks = jax.random.split(check_key(key), 3)
        first = _conv(channels, width, 1, key_first)
        self.first = _normed(first, size, spectral_norm, key_first)
        norms = num_groups, spectral_norm
        blocks = []
        for index, block_key in enumerate(jax.random.split(key_blocks, depth)):
            stride = 2 if index < 2 else 1
            blocks.append(_Block(width, size, stride, norms, activation, block_key))
            size = [-(-length // stride) for length in size]
        self.blocks = tuple(blocks)
        self.last = eqx.nn.Linear(width, "scalar", key=key_last)
        self.image_shape = tuple(image_shape)

    def __call__(self, x: ArrayLike) -> jax.Array:
        features = self.first(_channels_first(one_value(self, x, self.image_shape)))
        for block in self.blocks:
            features = block(features)
        return self.last(jnp.mean(features, axis=(1, 2)))

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self.image_shape)}


class _Block(eqx.Module):
    convolutions: tuple[Layer, Layer]
    norms: tuple[eqx.nn.GroupNorm, ...]
    shortcut: Layer | None
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        size: Sequence[int],
        stride: int,
        norms: tuple[int | None, bool],
        activation: Activation,
        key: jax.Array,
    ):
        num_groups, spectral_norm = norms
        keys = jax.random.split(key, 3)
        halved = [-(-length // stride) for length in size]
        self.convolutions = (
            _normed(_conv(width, width, stride, keys[0]), size, spectral_norm, keys[0]),
            _normed(_conv(width, width, 1, keys[1]), halved, spectral_norm, keys[1]),
        )
        self.norms = tuple(_norms((width, width), num_groups, spectral_norm))
        self.shortcut = None
        if stride > 1:
            shortcut = Convolution(width, width, 1, stride=stride, key=keys[2])
            self.shortcut = _normed(shortcut, size, spectral_norm, keys[2])
        self.activation = activation

    def __call__(self, features: jax.Array) -> jax.Array:
        one, two = self.convolutions
        inner = self.activation(self._normed(0, one(features)))
        kept = features if self.shortcut is None else self.shortcut(features)
        return self.activation(kept + self._normed(1, two(inner)))

    def _normed(self, index: int, features: jax.Array) -> jax.Array:
        return self.norms[index](features) if self.norms else features


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels."""
    sizes: Any = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) not in (2, 3):
        raise ValueError(
            f"image_shape must be (height, width) or (height, width, channels), got {shape!r}"
        )
    height, width, channels = (check_count(n, "image_shape", 1) for n in (*sizes, 1)[:3])
    return height, width, channels


def _conv(before: int, after: int, stride: int, key: jax.Array) -> Convolution:
    return Convolution(before, after, stride=stride, key=key)


def _normed(layer: Convolution, size: Sequence[int], spectral_norm: bool, key: jax.Array) -> Layer:
    """The convolution of images of this height and width, divided by its norm where wanted."""
    if not spectral_norm:
        return layer
    return SpectralNorm(layer, (layer.in_channels, *size), jax.random.fold_in(key, 1))


def _norms(
    widths: Sequence[int], num_groups: int | None, spectral_norm: bool
) -> list[eqx.nn.GroupNorm]:
    """A normalisation for each width; none of them without groups."""
    if num_groups is None:
        return []
    if spectral_norm:
        raise ValueError(
            "num_groups= makes values independent of the scale that spectral_norm=True sets: ask "
            "for one of them"
        )
    num_groups = check_count(num_groups, "num_groups", 1)
    if wrong := [width for width in widths if width % num_groups]:
        raise ValueError(f"num_groups={num_groups} must divide every width, but not {wrong[0]}")
    return [eqx.nn.GroupNorm(num_groups, width) for width in widths]


def _channels_first(image: jax.Array) -> jax.Array:
    """As Equinox's convolutions have it; the compiler chooses a layout of its own."""
    return image[None] if image.ndim == 2 else jnp.moveaxis(image, -1, 0)
