"""The built-in energies against SciPy, quadrature and finite differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import logsumexp

import energia as en
from energia.energies._unconstrained import Unconstrained

stats: Any = scipy.stats  # its distributions are made at run time: types know nothing of them
COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])


def draws(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * 2


# --- normal distributions


@pytest.mark.parametrize("form", ["covariance", "precision"])
def test_gaussian_with_a_matrix(form):
    matrix = COVARIANCE if form == "covariance" else np.linalg.inv(COVARIANCE)
    normal = en.Gaussian(MEAN, **{form: matrix})
    x = draws((50, 3))
    exact = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    np.testing.assert_allclose(jax.vmap(normal.log_density)(x), exact, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(normal.covariance, COVARIANCE, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normal.precision, np.linalg.inv(COVARIANCE), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normal.scale, np.sqrt(np.diag(COVARIANCE)), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.5, [0.5, 1.0, 2.0], [[0.3], [3.0]], np.full((2, 3), 1.5)])
def test_gaussian_with_a_scale(scale):
    mean = draws((2, 3), seed=1)
    normal = en.Gaussian(mean, scale=scale)
    full = np.broadcast_to(scale, (2, 3))
    x = draws((20, 2, 3))
    exact = stats.norm(mean, full).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(jax.vmap(normal.log_density)(x), exact, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(normal.scale, full, rtol=1e-6)
    np.testing.assert_allclose(normal.covariance, np.diag(full.ravel() ** 2), rtol=1e-5)
    np.testing.assert_allclose(normal.precision, np.diag(full.ravel() ** -2.0), rtol=1e-5)


def test_gaussian_in_double_precision():
    with jax.enable_x64(True):
        x = draws((20, 3))
        exact = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(x)
        normal = en.Gaussian(MEAN, covariance=COVARIANCE)
        np.testing.assert_allclose(jax.vmap(normal.log_density)(x), exact, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0, "covariance": np.eye(3)}, "one of scale=, covariance=, precision="),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": np.inf}, "positive and finite"),
        ({"scale": np.nan}, "positive and finite"),
        ({"scale": [1.0, 2.0]}, "does not broadcast"),
        ({"scale": np.ones((1, 3))}, "does not broadcast"),
        ({"covariance": np.eye(2)}, "square matrix of its size"),
        (
            {"covariance": np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1.0]])},
            "smallest eigenvalue is -1",
        ),
        ({"precision": np.zeros((3, 3))}, "positive definite"),
        ({"precision": np.triu(np.ones((3, 3)))}, "symmetric"),
        ({"covariance": np.full((3, 3), np.nan)}, "finite"),
    ],
)
def test_refused_gaussians(options, message):
    with pytest.raises(ValueError, match=message):
        en.Gaussian(MEAN, **options)


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((3,), 0.5), ((3,), [0.5, 1.0, 2.0]), ((3, 2), [0.5, 1.0, 2.0]), ((3, 2), draws((3, 2)) ** 2)],
)
def test_gaussian_mixture(shape, scales):
    means, weights = draws(shape, seed=2), np.array([1.0, 2.0, 5.0])
    modes = en.GaussianMixture(means, scales=scales, weights=weights)
    full = np.asarray(scales)
    if full.ndim == 1:
        full = full.reshape(3, *[1] * (len(shape) - 1))
    x = draws((20, *shape[1:]))
    parts = stats.norm(means, full).logpdf(x[:, None])
    exact: Any = logsumexp(parts.reshape(20, 3, -1).sum(-1) + np.log(weights / 8), axis=1)
    np.testing.assert_allclose(jax.vmap(modes.log_density)(x), exact, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(modes.weights, weights / 8, rtol=1e-6)


@pytest.mark.parametrize(
    ("means", "scales", "weights", "message"),
    [
        (np.zeros((3, 2)), [1.0, 2.0], None, r"scales of shape \(3,\), got \(2,\)"),
        (np.zeros((3, 2)), np.ones((2, 3)), None, "does not broadcast"),
        (np.zeros((3, 2)), -1.0, None, "scales must be positive"),
        (np.zeros((3, 2)), 1.0, [1.0, 2.0], r"weights of shape \(3,\)"),
        (np.zeros((3, 2)), 1.0, [1.0, 2.0, 0.0], "weights must be positive"),
        (0.0, 1.0, None, "scalar"),
    ],
)
def test_refused_mixtures(means, scales, weights, message):
    with pytest.raises(ValueError, match=message):
        en.GaussianMixture(means, scales=scales, weights=weights)


@pytest.mark.parametrize("size", [2, 5])
def test_funnel(size):
    x = draws((20, size))
    rest = stats.norm(0, np.exp(x[:, :1] / 2)).logpdf(x[:, 1:]).sum(1)
    exact = stats.norm(0, 3).logpdf(x[:, 0]) + rest
    got = jax.vmap(en.Funnel(size).log_density)(x)
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-4)


def test_rosenbrock():
    x = draws((10, 4))
    got = jax.vmap(en.Rosenbrock(4))(x)
    np.testing.assert_allclose(got, [scipy.optimize.rosen(row) for row in x], rtol=1e-5)
    assert float(en.Rosenbrock(2, a=3.0)(jnp.array([3.0, 9.0]))) == 0.0
    assert float(en.Rosenbrock(3, a=[1.0, 2.0], b=[1.0, 5.0])(jnp.array([0.0, 1.0, 3.0]))) == 23.0


# --- normalisation by quadrature


def integral(energy, *axes):
    """The integral of exp(-E) over a grid, by the trapezoidal rule."""
    grid: Any = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    points = grid.reshape(-1, len(axes)) if len(axes) > 1 else grid[:, 0]
    density = np.exp(-np.asarray(jax.vmap(energy)(points), np.float64))
    total: Any = density.reshape([len(axis) for axis in axes])
    for axis in reversed(axes):
        total = np.trapezoid(total, axis, axis=-1)
    return total


LINE = np.linspace(-12, 12, 301)


@pytest.mark.parametrize(
    ("energy", "axes"),
    [
        (en.Gaussian(1.0, scale=0.7), [LINE]),
        (en.Gaussian([1.0, -1.0], covariance=[[1.0, 0.8], [0.8, 2.0]]), [LINE, LINE]),
        (en.GaussianMixture([-3.0, 2.0], scales=[0.5, 1.5], weights=[1, 3]), [LINE]),
        (en.GaussianMixture([[-3.0, 1.0], [2.0, 0.0]], scales=[0.5, 1.5]), [LINE, LINE]),
        (en.Uniform(-2.0, 3.0), [np.linspace(-2, 3, 11)]),
        (en.Uniform(-2.0, 3.0, shape=(2,)), [np.linspace(-2, 3, 11)] * 2),
        (en.mixture([en.Gaussian(0.0), en.Gaussian(4.0)], weights=[0.25, 0.75]), [LINE]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value),
)
def test_normalised(energy, axes):
    assert integral(energy, *axes) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "energy",
    [
        en.Uniform(-2.0, 3.0),
        en.energy(lambda x: x, x=en.Positive()),
        en.energy(lambda x: 0.0, x=en.Simplex(2)),
        en.energy(lambda x: jnp.log(4.0), x=en.Interval(-1, 3)),
        en.Gaussian([0.0, 0.0]).constrain(x=en.Ordered(2)) + en.energy(lambda x: -jnp.log(2.0)),
    ],
    ids=["uniform", "exponential", "dirichlet", "interval", "order statistics"],
)
def test_unconstrained_energy_is_normalised(energy):
    (support,) = energy.supports.values()
    size = math.prod(support.unconstrained_shape)
    free = jax.jit(jax.vmap(Unconstrained(energy)))
    axis = np.linspace(-20, 20, 401)
    grid: Any = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1)
    density = np.exp(-np.asarray(free(grid.reshape(-1, *support.unconstrained_shape)), np.float64))
    assert density.sum() * 0.1**size == pytest.approx(1, abs=1e-4)


def test_funnel_is_normalised():
    funnel = en.Funnel(2, scale=1.5)

    def widened(point):
        """The funnel after x2 = exp(x1 / 2) t, which makes it as wide everywhere."""
        x1, t = point
        return funnel(jnp.stack([x1, jnp.exp(x1 / 2) * t])) - x1 / 2

    assert integral(widened, LINE, LINE) == pytest.approx(1, abs=1e-4)


def test_weights_of_a_mixture_multiply_densities_as_they_stand():
    double = en.mixture([en.Gaussian(0.0), en.Gaussian(1.0)], weights=[2.0, 1.0])
    assert integral(double, LINE) == pytest.approx(3, abs=1e-3)


# --- shapes of the landscape


def test_double_well():
    well = en.DoubleWell([1.0, 4.0], shape=2)
    assert float(well(jnp.array([1.0, -1.0]))) == 0.0
    assert float(well(jnp.zeros(2))) == 5.0
    assert float(well(jnp.array([0.0, 1.0]))) == 1.0


def test_ring():
    ring = en.Ring(2.0, scale=0.5)
    angles = np.linspace(0, 2 * np.pi, 9)
    circle = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    np.testing.assert_allclose(jax.vmap(ring)(circle), 0, atol=1e-10)
    assert float(ring(jnp.zeros(2))) == 8.0


@pytest.mark.parametrize("x", [0.0, 1e-30, 1e-20, 1e-10, 1e15])
def test_gradient_of_the_ring_is_finite(x):
    gradient = jax.jit(jax.grad(en.Ring()))(jnp.full(2, x))
    assert np.isfinite(gradient).all()
    assert np.isfinite(jax.jit(jax.hessian(en.Ring()))(jnp.full(2, x))).all()
    if x == 0:
        np.testing.assert_array_equal(gradient, 0)


def test_mlp_is_smooth(key):
    with jax.enable_x64(True):
        energy = en.MLPEnergy(3, width=16, key=key)
        x, direction = jnp.asarray(draws(3)), jnp.asarray(draws(3, seed=1))
        score, slope = jax.jvp(energy.score, (x,), (direction,))
        steps = np.array([1e-3, 1e-4])
        errors = [
            float(jnp.abs(energy.score(x + h * direction) - score - h * slope).max())  # pyright: ignore
            for h in steps
        ]
        assert float(jnp.abs(slope).max()) > 1e-6
        assert errors[1] < 0.02 * errors[0]  # the remainder of a twice differentiable score: h^2


def test_mlp_depends_on_its_key(key):
    first, second = (en.MLPEnergy(2, width=8, key=k)(X2) for k in jax.random.split(key))
    assert float(first) != float(second)
    with pytest.raises(TypeError, match="typed JAX key"):
        en.MLPEnergy(2, key=jnp.zeros(2, jnp.uint32))


X2 = jnp.array([0.5, -1.5])


# --- all of them

ENERGIES = {
    "gaussian": lambda key: en.Gaussian([0.5, 1.0], scale=[0.5, 2.0]),
    "dense gaussian": lambda key: en.Gaussian([0.5, 1.0], covariance=[[1.0, 0.3], [0.3, 1.0]]),
    "gaussian mixture": lambda key: en.GaussianMixture(np.eye(2), scales=0.5),
    "funnel": lambda key: en.Funnel(2),
    "rosenbrock": lambda key: en.Rosenbrock(),
    "double well": lambda key: en.DoubleWell(2.0, shape=(2,)),
    "ring": lambda key: en.Ring(),
    "uniform": lambda key: en.Uniform(-2, 2, shape=2),
    "mlp": lambda key: en.MLPEnergy(2, width=4, key=key),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_one_value_of_the_right_shape(name, key):
    energy = ENERGIES[name](key)
    assert energy.variables == ("x",)
    assert energy.supports["x"].shape == (2,)
    value = energy(X2)
    assert value.shape == ()
    assert value.dtype == np.float32
    assert not value.weak_type
    assert float(energy(np.asarray(X2, np.float64))) == float(value)
    assert float(energy(jnp.array([1, 2]))) == float(energy(jnp.array([1.0, 2.0])))
    for batch in (jnp.zeros((5, 2)), jnp.zeros(3), 0.0):
        with pytest.raises(ValueError, match=r"shape \(2,\), got .*jax\.vmap"):
            energy(batch)


@pytest.mark.parametrize("name", ENERGIES)
def test_gradient_by_finite_differences(name, key):
    with jax.enable_x64(True):
        energy = ENERGIES[name](key)
        x, steps = np.array([0.5, -1.5]), 1e-6 * np.concatenate([np.eye(2), -np.eye(2)])
        values = np.asarray(jax.jit(jax.vmap(energy))(x + steps))
        slopes = (values[:2] - values[2:]) / 2e-6
        np.testing.assert_allclose(jax.jit(jax.grad(energy))(x), slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: en.Ring([1.0, 2.0]), "radius of shape"),
        (lambda: en.Ring(-1.0), "radius must be positive"),
        (lambda: en.Ring(scale=0.0), "scale must be positive"),
        (lambda: en.DoubleWell([1.0, 2.0]), "barrier of shape"),
        (lambda: en.Rosenbrock(2, b=[1.0, 2.0]), "b of shape"),
        (lambda: en.Rosenbrock(3, a=np.ones(3)), "a of shape"),
        (lambda: en.Rosenbrock(1), "at least 2"),
        (lambda: en.Funnel(1), "at least 2"),
        (lambda: en.Funnel(scale=-1.0), "scale must be positive"),
        (lambda: en.Uniform(1.0, 0.0), "low < high"),
        (lambda: en.MLPEnergy(0, key=jax.random.key(0)), "in_size= must be at least 1"),
    ],
)
def test_refused_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
