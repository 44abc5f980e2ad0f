"""Toys of two dimensions, on the scale that generative models of the plane are usually shown on."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from energia._types import Values, check_count, check_key, float_dtype

Part = Callable[[jax.Array, jax.Array], jax.Array]


def _draws(part: Part, num_parts: int, num_rows: int, key: jax.Array) -> Values:
    """Rows of the parts, each part equally likely: `part(y, key)` is one row of part y."""
    num_rows, key = check_count(num_rows, "num_rows", 1), check_key(key)
    return _compiled(part, num_parts, num_rows, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(part: Part, num_parts: int, num_rows: int, key: jax.Array) -> Values:
    part_key, row_key = jax.random.split(key)
    y = jax.random.randint(part_key, (num_rows,), 0, num_parts)
    x = jax.vmap(part)(y, jax.random.split(row_key, num_rows))
    return {"x": x.astype(float_dtype()), "y": y}


def eight_gaussians(num_rows: int, *, key: jax.Array) -> Values:
    r"""Eight normal laws on a circle: modes that are far apart.

    Centres at $\tfrac{4}{\sqrt 2} (\cos \tfrac{\pi y}{4}, \sin \tfrac{\pi y}{4})$, with standard
    deviations of $\tfrac{1}{2 \sqrt 2}$.

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the part that each row is from, 0 to 7.

    References:
        Metz, Poole, Pfau and Sohl-Dickstein (2017), Unrolled generative adversarial networks.
        Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2019), FFJORD (the scale of this and
        the other toys).

    Example:
        >>> import energia as en, jax
        >>> data = en.data.eight_gaussians(1000, key=jax.random.key(0))
        >>> data["x"].shape, int(data["y"].max())
        ((1000, 2), 7)
    """
    return _draws(_eight_gaussians, 8, num_rows, key)


def _eight_gaussians(y: jax.Array, key: jax.Array) -> jax.Array:
    return (4 * _direction(y * jnp.pi / 4) + 0.5 * jax.random.normal(key, (2,))) / math.sqrt(2)


def two_spirals(num_rows: int, *, key: jax.Array) -> Values:
    r"""Two arms of a spiral, wound round each other.

    With $t = 3 \pi \sqrt u$, $u$ uniform on [0, 1], and $v$ uniform on $[0, 1]^2$, the first arm is
    $\tfrac13 [t\,(-\cos t, \sin t) + \tfrac12 v]$, the second one its mirror image in the origin;
    to both is added normal noise with standard deviations of 0.1.

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the arm, 0 or 1.

    Example:
        >>> import energia as en, jax
        >>> en.data.two_spirals(10, key=jax.random.key(0))["x"].shape
        (10, 2)
    """
    return _draws(_two_spirals, 2, num_rows, key)


def _two_spirals(y: jax.Array, key: jax.Array) -> jax.Array:
    place_key, width_key, noise_key = jax.random.split(key, 3)
    t = 3 * jnp.pi * jnp.sqrt(jax.random.uniform(place_key))
    arm = jnp.stack([-jnp.cos(t), jnp.sin(t)]) * t + 0.5 * jax.random.uniform(width_key, (2,))
    return (1 - 2 * y) * arm / 3 + 0.1 * jax.random.normal(noise_key, (2,))


def checkerboard(num_rows: int, *, key: jax.Array) -> Values:
    r"""Uniform on the dark squares of a board of four by four: edges without a slope.

    The squares have sides of 2 and cover half of $[-4, 4]^2$, so that the density on them is 1/32.

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the square, 0 to 7.

    Example:
        >>> import energia as en, jax
        >>> x = en.data.checkerboard(1000, key=jax.random.key(0))["x"]
        >>> bool((abs(x) <= 4).all())
        True
    """
    return _draws(_checkerboard, 8, num_rows, key)


def _checkerboard(y: jax.Array, key: jax.Array) -> jax.Array:
    column, half = y // 2, y % 2
    corner = jnp.stack([column, 2 * half + column % 2])
    return 2 * (corner + jax.random.uniform(key, (2,))) - 4


def rings(num_rows: int, *, key: jax.Array) -> Values:
    r"""Four rings round one centre.

    Their radii are 0.75, 1.5, 2.25 and 3; normal noise has standard deviations of 0.08.

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the ring, 0 the innermost, to 3.

    Example:
        >>> import energia as en, jax
        >>> en.data.rings(10, key=jax.random.key(0))["x"].shape
        (10, 2)
    """
    return _draws(_rings, 4, num_rows, key)


def _rings(y: jax.Array, key: jax.Array) -> jax.Array:
    angle_key, noise_key = jax.random.split(key)
    angle = 2 * jnp.pi * jax.random.uniform(angle_key)
    return 0.75 * (y + 1) * _direction(angle) + 0.08 * jax.random.normal(noise_key, (2,))


def pinwheel(num_rows: int, *, key: jax.Array) -> Values:
    r"""Five arms that bend the more the farther out: thin, and curved.

    With $r \sim N(1, 0.3^2)$ and $s \sim N(0, 0.1^2)$ a row is $2 (r, s)$, turned by the angle
    $\tfrac{2 \pi y}{5} + \tfrac{1}{4} e^{r}$ (clockwise).

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the arm, 0 to 4.

    References:
        Johnson, Duvenaud, Wiltschko, Datta and Adams (2016), Composing graphical models with neural
        networks for structured representations and fast inference.

    Example:
        >>> import energia as en, jax
        >>> en.data.pinwheel(10, key=jax.random.key(0))["x"].shape
        (10, 2)
    """
    return _draws(_pinwheel, 5, num_rows, key)


def _pinwheel(y: jax.Array, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, (2,))
    r, s = 1 + 0.3 * noise[0], 0.1 * noise[1]
    along, across = _direction(-(2 * jnp.pi * y / 5 + 0.25 * jnp.exp(r)))
    return 2 * jnp.stack([along * r - across * s, across * r + along * s])


def moons(num_rows: int, *, key: jax.Array) -> Values:
    r"""Two half circles that reach into each other.

    With $t$ uniform on $[0, \pi]$ the first is $2 (\cos t, \sin t) - (1, 0.2)$, the second one
    $2 (1 - \cos t, \tfrac12 - \sin t) - (1, 0.2)$; normal noise has standard deviations of 0.2.

    Args:
        num_rows: how many draws, at least 1.
        key: a typed JAX key.

    Returns:
        `x`, shape (num_rows, 2), and `y`, the number of the half circle, 0 or 1.

    Example:
        >>> import energia as en, jax
        >>> en.data.moons(10, key=jax.random.key(0))["x"].shape
        (10, 2)
    """
    return _draws(_moons, 2, num_rows, key)


def _moons(y: jax.Array, key: jax.Array) -> jax.Array:
    angle_key, noise_key = jax.random.split(key)
    arc = _direction(jnp.pi * jax.random.uniform(angle_key))
    moon = jnp.where(y == 0, arc, jnp.array([1.0, 0.5]) - arc)
    return 2 * moon - jnp.array([1.0, 0.2]) + 0.2 * jax.random.normal(noise_key, (2,))


def _direction(angle: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])
