"""Uniform numbers: the generator is JAX's, and the draws made of them have their chances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.random import threefry_2x32

from energia.energies._factors import Categorical
from energia.energies._uniform import normal, signs, threefry, uniform
from energia.supports import Spin


@pytest.mark.parametrize("size", [2, 10, 1000])
def test_the_words_are_those_of_jax(size: int, key: jax.Array) -> None:
    words = jax.random.key_data(key)
    expected = threefry_2x32(words, jnp.arange(size, dtype=jnp.uint32))
    np.testing.assert_array_equal(threefry(words, size), expected)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5)])
def test_shapes(shape: tuple[int, ...], key: jax.Array) -> None:
    numbers = uniform(key, shape, jnp.float32)
    assert numbers.shape == shape
    assert numbers.dtype == jnp.float32
    assert bool(jnp.all((numbers >= 0) & (numbers < 1)))


def test_uniform(key: jax.Array) -> None:
    """Moments, neighbours, and the numbers of other keys."""
    count = 100_000
    keys = jax.random.split(key, count // 10)
    for x in (
        np.asarray(uniform(key, (count,), jnp.float32), float),
        np.asarray(jax.vmap(lambda key: uniform(key, (10,), jnp.float32))(keys), float).ravel(),
    ):
        for power in (1, 2, 3):
            error = np.std(x**power) / np.sqrt(count)
            assert abs(np.mean(x**power) - 1 / (power + 1)) < 5 * error
        for lag in (1, 2, 5, count // 2):
            products = (x[lag:] - 0.5) * (x[:-lag] - 0.5)
            assert abs(products.mean()) < 5 / 12 / np.sqrt(len(products))
        assert len(np.unique(x)) > 0.99 * count


def test_normal(key: jax.Array) -> None:
    """The law is normal (Kolmogorov's distance), rows of other keys are independent."""
    keys = jax.random.split(key, 20_000)
    rows = np.asarray(jax.vmap(lambda key: normal(key, (5,), jnp.float32))(keys), float)
    x = np.sort(rows.ravel())
    distance = np.abs(scipy.stats.norm.cdf(x) - np.arange(x.size) / x.size).max()
    assert distance < 2.2 / np.sqrt(x.size)  # exceeded once in 10,000
    between = np.corrcoef(rows.T) - np.eye(5)
    assert np.abs(between).max() < 5 / np.sqrt(len(rows))


def test_signs(key: jax.Array) -> None:
    x = np.asarray(signs(key, (100_000,), jnp.float32))
    assert set(x) == {-1, 1}
    assert abs(x.mean()) < 5 / np.sqrt(x.size)


def test_other_dtypes_and_generators_are_left_to_jax(key: jax.Array) -> None:
    with jax.enable_x64(True):
        numbers = uniform(key, (4,), jnp.float64)
        np.testing.assert_array_equal(numbers, jax.random.uniform(key, (4,), jnp.float64))
    other = jax.random.key(0, impl="rbg")
    numbers = uniform(other, (4,), jnp.float32)
    np.testing.assert_array_equal(numbers, jax.random.uniform(other, (4,), jnp.float32))
    numbers = normal(other, (4,), jnp.float32)
    np.testing.assert_array_equal(numbers, jax.random.normal(other, (4,), jnp.float32))


def test_chances(key: jax.Array) -> None:
    odds = jnp.array([-jnp.inf, -6.0, -1.0, 0.0, 2.0, jnp.inf])
    factors = Categorical(jnp.zeros(()), jnp.stack([jnp.zeros(6), odds], -1))
    keys = jax.random.split(key, 100_000)
    drawn = jax.vmap(lambda key: factors.draw(key, Spin(6)))(keys)
    chance = np.asarray(jax.nn.sigmoid(odds), float)
    error = np.sqrt(chance * (1 - chance) / len(keys))
    assert np.all(np.abs(np.asarray(drawn > 0).mean(0) - chance) <= 5 * error)
