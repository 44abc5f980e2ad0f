"""Uniform and normal numbers, several times as fast on a CPU as JAX's own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)
LOWEST = np.nextafter(np.float32(-1), np.float32(0))


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform numbers in [0, 1).

    In 32 bits and with JAX's default keys they are made of the words of its generator, written out
    so that it compiles into one pass over the numbers: its own is a loop that keeps every round in
    memory, and uses half of the words. Random numbers are most of the time of a small Boltzmann
    machine. Else they are `jax.random.uniform`.

    References:
        Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    if not _written_out(key, dtype):
        return jax.random.uniform(key, shape, dtype)
    size = math.prod(shape)
    words = threefry(jax.random.key_data(key), size + size % 2)[:size]
    # 23 random bits behind the exponent of 1: a number in [1, 2)
    numbers = jax.lax.bitcast_convert_type((words >> 9) | np.uint32(0x3F800000), jnp.float32)
    return numbers.reshape(shape) - 1


def normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal numbers: the inverse error function of uniform ones, as in `jax.random`."""
    if not _written_out(key, dtype):
        return jax.random.normal(key, shape, dtype)
    # above -1, whose image would be infinite
    numbers = jnp.maximum(uniform(key, shape, dtype) * (1 - LOWEST) + LOWEST, LOWEST)
    return np.sqrt(np.float32(2)) * jax.lax.erf_inv(numbers)


def signs(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Numbers that are 1 or -1, with even odds."""
    return jnp.where(uniform(key, shape, dtype) < 0.5, -1, 1).astype(dtype)


def _written_out(key: jax.Array, dtype: Any) -> bool:
    """Whether numbers come from the words written out here."""
    return dtype == jnp.float32 and str(jax.random.key_impl(key)) == "threefry2x32"


def threefry(key: jax.Array, size: int) -> jax.Array:
    """Words of the generator Threefry-2x32 with 20 rounds: the hashes of an even count of numbers.

    Args:
        key: two words.
        size: how many words.
    """
    keys = key[0], key[1], key[0] ^ key[1] ^ PARITY
    counts = jnp.arange(size, dtype=jnp.uint32)
    first, second = counts[: size // 2] + keys[0], counts[size // 2 :] + keys[1]
    for number in range(5):
        for rotation in ROTATIONS[number % 2]:
            first = first + second
            second = (second << rotation) | (second >> (32 - rotation))
            second = first ^ second
        first = first + keys[(number + 1) % 3]
        second = second + keys[(number + 2) % 3] + np.uint32(number + 1)
    return jnp.concatenate([first, second])
