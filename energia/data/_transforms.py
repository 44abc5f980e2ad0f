"""Random transforms of images, one datum at a time: what `en.fit(augment=...)` takes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from energia._types import Values, as_float, check_count

Transform = Callable[[Values, jax.Array], Values]
Change = Callable[[jax.Array, jax.Array], jax.Array]

# Functions are made once for the same numbers: JAX compiles a function by its identity.


@functools.cache
def _of_variable(change: Callable[..., jax.Array], number: Any, name: str) -> Transform:
    """`change(value, number, key)` of one variable of a datum."""

    def transform(datum: Values, key: jax.Array) -> Values:
        return {**datum, name: change(_value(datum, name), number, key)}

    return transform


def _value(datum: Values, name: str) -> jax.Array:
    if name not in datum:
        raise ValueError(f"name={name!r} is none of the data's {sorted(datum)}")
    return as_float(datum[name], name)


def _positive(value: Any, name: str) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name}= must be a positive number, got {value}")
    return number


def dequantize(levels: int = 256, *, name: str = "x") -> Transform:
    r"""Spread each level of grey evenly up to the next one.

    Of values $x = k / (L - 1)$, $k = 0, \dots, L - 1$, it makes $(k + u) / L$ in [0, 1) with $u$
    uniform. A density of the result bounds the probability of the levels: $\log P(k) \ge
    \mathbb{E}_u \log p((k + u) / L) - d \log L$ for $d$ entries.

    Args:
        levels: $L$; 256 for bytes, 17 for `digits()`.
        name: of the variable.

    Returns:
        A function `f(datum, key) -> datum` of one row, as `augment=` of `en.fit` takes it;
        `jax.vmap(f)(data, jax.random.split(key, rows))` applies it to data. Likewise of the others.

    References:
        Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> grey = {"x": jnp.array([0.0, 1.0])}
        >>> x = en.data.dequantize(2)(grey, jax.random.key(0))["x"]
        >>> bool(0 <= x[0] < 0.5 <= x[1] < 1)
        True
    """
    return _of_variable(_dequantized, check_count(levels, "levels", 2), name)


def _dequantized(x: jax.Array, levels: int, key: jax.Array) -> jax.Array:
    spread = (jnp.round(x * (levels - 1)) + jax.random.uniform(key, x.shape, x.dtype)) / levels
    return jnp.minimum(spread, 1 - jnp.finfo(x.dtype).epsneg)  # which rounding may have lifted


def add_noise(scale: Any, *, name: str = "x") -> Transform:
    """Add independent normal noise to every entry.

    Args:
        scale: its standard deviation, positive, in units of the data.
        name: of the variable.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> noisy = en.data.add_noise(0.1)({"x": jnp.zeros((8, 8))}, jax.random.key(0))
        >>> noisy["x"].shape
        (8, 8)
    """
    return _of_variable(_noisy, _positive(scale, "scale"), name)


def _noisy(x: jax.Array, scale: Any, key: jax.Array) -> jax.Array:
    return x + scale * jax.random.normal(key, x.shape, x.dtype)


def diffuse(levels: Any, *, name: str = "x", preserving: bool = False) -> Transform:
    r"""The forward process of diffusion: noise of a level drawn at random, and the level beside it.

    $x = x_0 + \sigma\xi$, $\xi \sim N(0, I)$ (variance-exploding), or in the coordinates that keep
    the variance of data of unit variance, $\tilde x = (x_0 + \sigma\xi) / \sqrt{1 + \sigma^2}$. The
    datum gets the level as its variable `sigma`: so that a noise-conditional classifier is learned
    by `en.fit(classifier, data, en.objectives.MLE(given=("x", "sigma")), augment=diffuse(levels))`.

    Args:
        levels: noise levels $\sigma$, positive, shape (n,), each as likely; or one number.
        name: of the variable.
        preserving: whether to shrink by $\sqrt{1 + \sigma^2}$.

    References:
        Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (2021), Score-based generative modeling
        through stochastic differential equations.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> noisy = en.data.diffuse([1.0, 0.1])({"x": jnp.zeros((8, 8))}, jax.random.key(0))
        >>> sorted(noisy), noisy["x"].shape
        (['sigma', 'x'], (8, 8))
    """
    levels = tuple(_positive(level, "levels") for level in jnp.ravel(as_float(levels, "levels")))
    if not levels:
        raise ValueError("levels= must have one noise level at least")
    return _diffusing(levels, name, preserving)


@functools.cache
def _diffusing(levels: tuple[float, ...], name: str, preserving: bool) -> Transform:
    def transform(datum: Values, key: jax.Array) -> Values:
        if "sigma" in datum:
            raise ValueError("the data have 'sigma' already, the variable that gets the level")
        level_key, noise_key = jax.random.split(key)
        sigma = jax.random.choice(level_key, as_float(levels))
        x = _noisy(_value(datum, name), sigma, noise_key)
        return {**datum, name: x / jnp.sqrt(1 + sigma**2) if preserving else x, "sigma": sigma}

    return transform


def translate(pixels: int, *, name: str = "x") -> Transform:
    """Shift an image by whole pixels, up to so many along each side; zeros come in.

    Args:
        pixels: the largest shift, at least 1; all shifts up to it are equally likely.
        name: of the variable, an image of shape (height, width) or (height, width, channels).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> moved = en.data.translate(1)({"x": jnp.eye(5)}, jax.random.key(0))
        >>> bool(moved["x"].sum() >= 3)
        True
    """
    return _of_variable(_translated, check_count(pixels, "pixels", 1), name)


def _translated(x: jax.Array, pixels: int, key: jax.Array) -> jax.Array:
    _check_image(x)
    wide = jnp.pad(x, [(pixels, pixels)] * 2 + [(0, 0)] * (x.ndim - 2))
    begin = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(wide, (*begin, *[0] * (x.ndim - 2)), x.shape)


def flip(*, name: str = "x") -> Transform:
    """Exchange left and right, in every second image.

    Args:
        name: of the variable, an image of shape (height, width) or (height, width, channels).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> image = jnp.array([[1.0, 2.0]])
        >>> sorted(en.data.flip()({"x": image}, jax.random.key(0))["x"][0].tolist())
        [1.0, 2.0]
    """
    return _of_variable(_flipped, None, name)


def _flipped(x: jax.Array, number: None, key: jax.Array) -> jax.Array:
    _check_image(x)
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def rotate(degrees: Any, *, name: str = "x") -> Transform:
    """Turn an image about its centre by a uniform angle; between pixels it is bilinear.

    Zeros come in from outside.

    Args:
        degrees: the largest angle to either side, positive, up to 180.
        name: of the variable, an image of shape (height, width) or (height, width, channels).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> turned = en.data.rotate(10)({"x": jnp.ones((9, 9))}, jax.random.key(0))
        >>> float(turned["x"][4, 4])
        1.0
    """
    number = _positive(degrees, "degrees")
    if number > 180:
        raise ValueError(f"degrees= must be at most 180, got {degrees}")
    return _of_variable(_rotated, number, name)


def _rotated(x: jax.Array, degrees: float, key: jax.Array) -> jax.Array:
    _check_image(x)
    angle = jnp.deg2rad(jax.random.uniform(key, (), x.dtype, -degrees, degrees))
    centre = (jnp.asarray(x.shape[:2], x.dtype) - 1) / 2
    rows, columns = jnp.indices(x.shape[:2], x.dtype) - centre[:, None, None]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    places = [cosine * rows - sine * columns, sine * rows + cosine * columns]
    places = [place + middle for place, middle in zip(places, centre, strict=True)]

    def turned(image: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(image, places, order=1)

    return turned(x) if x.ndim == 2 else jax.vmap(turned, -1, -1)(x)


def _check_image(x: jax.Array) -> None:
    if x.ndim not in (2, 3):
        raise ValueError(
            f"an image has shape (height, width) or (height, width, channels), got {x.shape}"
        )


@functools.cache
def compose(*transforms: Transform) -> Transform:
    """Several transforms of a datum, one after another, the first one first.

    Args:
        *transforms: functions `f(datum, key) -> datum`, at least one; each gets a key of its own.

    Returns:
        A function of the same form; the same transforms give the same function.

    Example:
        >>> import energia as en, jax
        >>> images = en.data.digits()
        >>> change = en.data.compose(en.data.translate(1), en.data.dequantize(17))
        >>> keys = jax.random.split(jax.random.key(0), len(images["x"]))
        >>> jax.vmap(change)(images, keys)["x"].shape
        (1797, 8, 8)
    """
    if not transforms or not all(map(callable, transforms)):
        raise TypeError(
            f"compose() takes functions of a datum and a key, at least one, got {transforms}"
        )

    def transform(datum: Values, key: jax.Array) -> Values:
        for each, own in zip(transforms, jax.random.split(key, len(transforms)), strict=True):
            datum = each(datum, own)
        return datum

    return transform
