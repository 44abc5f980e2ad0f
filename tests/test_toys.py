"""The toys of `en.data` have the laws that their docstrings state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

NUM_ROWS = 20_000  # always, so that each toy compiles once


def _circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _eight_gaussians(random, y):
    centres = 4 * _circle(2 * np.pi * np.arange(8) / 8)
    return (centres[y] + 0.5 * random.normal(size=(len(y), 2))) / np.sqrt(2)


def _two_spirals(random, y):
    t = np.sqrt(random.random(len(y))) * 540 * np.pi / 180
    box = 0.5 * random.random((len(y), 2))
    first = np.stack([-np.cos(t) * t, np.sin(t) * t], -1) + box
    return np.where(y[:, None] == 0, first, -first) / 3 + 0.1 * random.normal(size=(len(y), 2))


def _checkerboard(random, y):
    squares = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    return 2 * np.array(squares)[y] - 4 + 2 * random.random((len(y), 2))


def _rings(random, y):
    angle = 2 * np.pi * random.random(len(y))
    radius = np.array([0.75, 1.5, 2.25, 3.0])[y]
    return radius[:, None] * _circle(angle) + 0.08 * random.normal(size=(len(y), 2))


def _pinwheel(random, y):
    features = random.normal(size=(len(y), 2)) * [0.3, 0.1] + [1, 0]
    angle = 2 * np.pi * y / 5 + 0.25 * np.exp(features[:, 0])
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    return 2 * np.einsum("ni,nij->nj", features, turn.reshape(-1, 2, 2))


def _moons(random, y):
    angle = np.pi * random.random(len(y))
    outer, inner = _circle(angle), np.array([1, 0.5]) - _circle(angle)
    x = np.where(y[:, None] == 0, outer, inner) + 0.1 * random.normal(size=(len(y), 2))
    return 2 * x + [-1, -0.2]


PARTS = {
    "eight_gaussians": (_eight_gaussians, 8),
    "two_spirals": (_two_spirals, 2),
    "checkerboard": (_checkerboard, 8),
    "rings": (_rings, 4),
    "pinwheel": (_pinwheel, 5),
    "moons": (_moons, 2),
}


def test_every_toy_is_tested():
    public = {name for name in en.data.__all__ if "_toys" in getattr(en.data, name).__module__}
    assert public == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_each_part_has_the_moments_of_its_law(key, name):
    reference, parts = PARTS[name]
    data = getattr(en.data, name)(NUM_ROWS, key=key)
    x, y = np.asarray(data["x"], float), np.asarray(data["y"])
    assert data["x"].dtype == jnp.float32
    assert x.shape == (NUM_ROWS, 2)
    shares = np.bincount(y, minlength=parts) / NUM_ROWS
    assert len(shares) == parts
    assert np.all(np.abs(shares - 1 / parts) < 5 / np.sqrt(parts * NUM_ROWS))
    other = reference(np.random.default_rng(0), y)
    for part in range(parts):
        one, two = (_features(rows[y == part]) for rows in (x, other))
        error = np.sqrt((one.var(0) + two.var(0)) / len(one))
        assert np.all(np.abs(one.mean(0) - two.mean(0)) < 5 * error), part


def _features(x):
    """Moments up to the fourth, and radii, which tell arms that overlap in their moments."""
    powers = [x[:, 0] ** i * x[:, 1] ** j for i in range(5) for j in range(5 - i) if i + j]
    return np.stack([*powers, np.linalg.norm(x, axis=1)], -1)


def test_rows_follow_the_key(key):
    one, two = (en.data.rings(NUM_ROWS, key=key) for _ in range(2))
    np.testing.assert_array_equal(one["x"], two["x"])
    other = en.data.rings(NUM_ROWS, key=jax.random.fold_in(key, 1))
    assert np.mean(one["x"] != other["x"]) > 0.99


def test_what_is_no_number_of_rows_raises(key):
    with pytest.raises(ValueError, match="num_rows= must be at least 1"):
        en.data.moons(0, key=key)
    with pytest.raises(TypeError, match="typed JAX key"):
        en.data.moons(10, key=jax.random.PRNGKey(0))
