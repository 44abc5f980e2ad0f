"""The maps of the supports, their starting draws, and what they contain."""

import functools
import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import energia as en
from energia.supports import Continuous, Discrete

CONTINUOUS: list[Continuous] = [
    en.Real(),
    en.Real((2, 3)),
    en.Positive(),
    en.Positive((3,)),
    en.Interval(-1, 3, (2, 2)),
    en.Interval(-1, 0, 3),
    en.Interval(0, 1e-3),
    en.Interval(-2e6, -1e6),
    en.Simplex(2),
    en.Simplex(5),
    en.Ordered(1),
    en.Ordered(4),
    en.Ordered(3, low=-2),
    en.Simplex(3, batch=2),
    en.Ordered(2, batch=(2, 2)),
    en.Interval(0, np.inf),
    en.Interval(-np.inf, 3, (2,)),
    en.Interval([0, -1, -np.inf, -np.inf, 2], [np.inf, 1, 0, np.inf, 3]),
    en.Interval([[0], [-1]], 4, (2, 3)),
    en.CholeskyCorrelation(2),
    en.CholeskyCorrelation(4),
    en.CholeskyCorrelation(3, batch=2),
]
DISCRETE: list[Discrete] = [
    en.Binary(),
    en.Binary((2, 3)),
    en.Spin((4,)),
    en.Categorical(2),
    en.Categorical(300, (5,)),
]
ALL = [*CONTINUOUS, *DISCRETE]

continuous = pytest.mark.parametrize("support", CONTINUOUS, ids=repr)
every = pytest.mark.parametrize("support", ALL, ids=repr)


# One program for all operations: they take longer to compile one by one.
@functools.partial(jax.jit, static_argnums=0)
def there_and_back(support: Continuous, z: jax.Array) -> dict[str, jax.Array]:
    value, log_det = support.constrain(z)
    slope = jax.grad(lambda z: jnp.sum(support.constrain(z)[0]))(z)
    back = support.unconstrain(value)
    again, _ = support.constrain(back)
    inside = support.contains(value)
    return {
        "value": value,
        "log_det": log_det,
        "slope": slope,
        "back": back,
        "again": again,
        "inside": jnp.asarray(inside),
    }


def free(support: Continuous, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, support.unconstrained_shape)


# --- maps


@continuous
def test_round_trip(support):
    with jax.enable_x64(True):
        z = free(support)
        seen = there_and_back(support, z)
        assert seen["value"].shape == support.shape
        assert seen["value"].dtype == support.dtype == np.float64
        np.testing.assert_allclose(seen["back"], z, rtol=1e-8, atol=1e-8)


@continuous
def test_round_trip_in_single_precision(support):
    seen = there_and_back(support, np.float32(free(support)))
    assert seen["value"].dtype == seen["log_det"].dtype == np.float32
    np.testing.assert_allclose(seen["again"], seen["value"], rtol=1e-4)


@continuous
def test_log_jacobian(support):
    def coordinates(z):
        value = support.constrain(z.reshape(support.unconstrained_shape))[0].ravel()
        # a simplex has one coordinate fewer than entries
        if isinstance(support, en.Simplex):
            return value.reshape(-1, support.size)[:, :-1].ravel()
        if isinstance(support, en.CholeskyCorrelation):
            rows, columns = np.tril_indices(support.size, -1)
            return value.reshape(-1, support.size, support.size)[:, rows, columns].ravel()
        return value

    with jax.enable_x64(True):
        z = free(support, seed=1)
        jacobian = jax.jit(jax.jacobian(coordinates))(z.ravel())
        log_det = there_and_back(support, z)["log_det"]
        assert log_det.shape == ()
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-9, atol=1e-9)


@continuous
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_stay_strictly_inside(support, dtype):
    shape = support.unconstrained_shape
    signs = np.resize([1, -1], shape)
    patterns = [np.ones(shape), -np.ones(shape), signs, -signs]
    sizes = [17, 30, 88.7, 104, 745, 1e3]
    with jax.enable_x64(dtype is np.float64):
        for z in [np.asarray(size * pattern, dtype) for size in sizes for pattern in patterns]:
            seen = there_and_back(support, z)
            value = np.asarray(seen["value"])
            assert value.dtype == dtype
            assert np.all(support.contains(value)), value
            assert np.all(seen["inside"])
            assert all(np.isfinite(array).all() for array in seen.values()), seen
            if isinstance(support, en.Simplex):
                assert np.all(abs(value.sum(-1) - 1) < 1e-5)


def test_interval_keeps_its_digits_near_a_bound_at_zero():
    low, high = en.Interval(0, 1), en.Interval(-1, 0)
    for z in (30.0, 60.0):
        tail = math.exp(-z)
        for support, sign in ((low, -1), (high, 1)):
            value = there_and_back(support, np.float32(sign * z))["value"]
            np.testing.assert_allclose(value, -sign * tail, rtol=1e-5)


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3))
def test_maps_increase(numbers):
    z = np.array(numbers, np.float32)
    for support in (en.Positive(3), en.Interval(-3, 5, 3)):
        assert np.all(np.diff(there_and_back(support, np.sort(z))["value"]) >= 0)
    assert np.all(np.diff(there_and_back(en.Ordered(3), z)["value"]) > 0)


# --- draws


@every
def test_draws(support, key):
    draws = np.asarray(jax.jit(jax.vmap(support.draw))(jax.random.split(key, 1000)))
    assert draws.shape == (1000, *support.shape)
    assert draws.dtype == support.dtype
    assert all(np.all(support.contains(np.asarray(draw))) for draw in draws)
    values, counts = np.unique(draws, return_counts=True)
    if isinstance(support, Discrete):
        assert set(values) == set(support.states)
        expected = draws.size / len(values)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    else:
        assert len(values) > 900


def test_dtypes():
    assert en.Binary().dtype == en.Spin().dtype == en.Real().dtype == np.float32
    assert en.Categorical(3).dtype == np.int32
    assert [s.discrete for s in ALL] == [False] * len(CONTINUOUS) + [True] * len(DISCRETE)
    with jax.enable_x64(True):
        assert en.Binary().dtype == en.Simplex(2).dtype == np.float64
        assert en.Categorical(3).dtype == np.int32


# --- what they contain

INSIDE = [
    (en.Real(2), [0.0, -1e30], [np.nan, np.inf]),
    (en.Positive(2), [1e-30, 1e30], [0.0, -1.0]),
    (en.Positive(2), [1.0, 2.0], [np.inf, np.nan]),
    (en.Interval(-1, 1, 3), [0.0, -0.999, 0.999], [-1.0, 1.0, np.nan]),
    (en.Binary(3), [0, 1, 1], [2, -1, 0.5]),
    (en.Spin(3), [-1, 1, 1.0], [0, 2, np.nan]),
    (en.Categorical(3, (4,)), [0, 1, 2, 2.0], [3, -1, 1.5, np.nan]),
    (en.Simplex(3), [0.2, 0.3, 0.5], [0.2, 0.3, 0.6]),
    (en.Simplex(3), [1 / 3, 1 / 3, 1 / 3], [np.nan, 0.5, 0.5]),
]


@pytest.mark.parametrize(("support", "inside", "outside"), INSIDE, ids=lambda v: repr(v))
def test_contains(support, inside, outside):
    for convert in (np.asarray, jnp.asarray):
        assert np.all(support.contains(convert(inside)))
        assert not np.any(support.contains(convert(outside)))


def test_contains_entry_by_entry():
    np.testing.assert_array_equal(
        en.Ordered(4).contains(np.array([0.0, 1.0, 1.0, 2.0])), [True, True, False, True]
    )
    np.testing.assert_array_equal(
        en.Ordered(3).contains(jnp.array([-np.inf, np.nan, np.inf])), [False, False, False]
    )
    np.testing.assert_array_equal(
        en.Simplex(3).contains(jnp.array([-0.5, 0.5, 1.0])), [False, True, True]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.bool_, np.float32])
def test_contains_values_of_narrow_dtypes(dtype):
    one = np.asarray(1, dtype)
    for support in (en.Spin(), en.Binary(), en.Categorical(300)):
        assert support.contains(one)
        assert support.contains(jnp.asarray(one))
    assert not en.Spin().contains(np.asarray(0, dtype))
    if dtype != np.bool_:
        assert not en.Categorical(7).contains(np.asarray(7, dtype))


# --- what they are


@every
def test_hashable_and_equal(support):
    twin = pickle.loads(pickle.dumps(support))
    assert twin == support
    assert hash(twin) == hash(support)
    assert twin is not support
    assert eval(f"en.{support!r}", {"en": en, "inf": math.inf}) == support
    assert sum(support == other for other in ALL) == 1


def test_kinds_differ():
    assert len({en.Real(), en.Positive(), en.Binary(), en.Spin(), en.Interval(0, 1)}) == 5
    assert en.Interval(0, 1) == en.Interval(0.0, 1.0) != en.Interval(0, 2)
    assert en.Real(3) == en.Real((3,)) == en.Real([3])
    assert en.Categorical(2) != en.Categorical(3)


def test_frozen():
    with pytest.raises(AttributeError):
        en.Real().shape = (2,)  # pyright: ignore[reportAttributeAccessIssue]


REFUSED: list[tuple[Any, Any, str]] = [
    (lambda: en.Interval(1, 0), ValueError, "low < high"),
    (lambda: en.Interval(0, 0), ValueError, "low < high"),
    (lambda: en.Interval(-np.inf, np.inf), ValueError, "no finite bound.*en.Real"),
    (lambda: en.Interval(np.inf, np.inf), ValueError, "low= must not be nan or inf"),
    (lambda: en.Interval(np.nan, 1), ValueError, "low= must not be nan"),
    (lambda: en.Interval([0, 1], [1, 1]), ValueError, "low < high"),
    (lambda: en.Interval([0, 1], 2, (3,)), ValueError, "low= of shape .* does not broadcast"),
    (lambda: en.Interval("a", 1), TypeError, "low= must be numbers or a function"),
    (lambda: en.Interval(0, lambda *a: 1.0), TypeError, "write them out"),
    (lambda: en.Ordered(2, low=np.inf), ValueError, "low=...* must be a finite number"),
    (lambda: en.CholeskyCorrelation(1), ValueError, "size= must be at least 2"),
    (lambda: en.Categorical(1), ValueError, "num_categories= must be at least 2"),
    (lambda: en.Categorical(True), TypeError, "num_categories= must be an integer"),
    (lambda: en.Categorical(2, (-1,)), ValueError, "non-negative"),
    (lambda: en.Simplex(1), ValueError, "size= must be at least 2"),
    (lambda: en.Ordered(0), ValueError, "size= must be at least 1"),
    (lambda: en.Real(-1), ValueError, "non-negative"),
    (lambda: en.Real((2, -3)), ValueError, "non-negative"),
    (lambda: en.Binary((-2,)), ValueError, "non-negative"),
    (lambda: en.Interval(0, 1, (-2,)), ValueError, "non-negative"),
    (lambda: en.Real((2.5,)), (TypeError, ValueError), "int"),  # pyright: ignore
    (lambda: en.Real("ab"), (TypeError, ValueError), "int"),  # pyright: ignore
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
