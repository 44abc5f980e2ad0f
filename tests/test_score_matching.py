"""Score matching, exact and sliced, against its closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import flat
from toy_energies import Exponential

import energia as en
from energia.objectives import SM, SSM

GENERATOR = np.random.default_rng(7)
ROOT = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.6]])
DATA = np.array([1.0, -2.0, 0.5]) + GENERATOR.normal(size=(500, 3)) @ ROOT.T
MEAN, COVARIANCE = DATA.mean(0), np.cov(DATA.T, bias=True)
EVERY_FORM = [
    SM(),
    SSM(),
    SSM(projections="gaussian", num_projections=2),
    SSM(variance_reduction=False),
    SSM(variance_reduction=False, projections="gaussian", num_projections=3),
]


@eqx.filter_jit
def loss_and_slope(objective: Any, energy: en.Energy, batch: Any, key: jax.Array) -> Any:
    def loss(energy: en.Energy) -> jax.Array:
        return objective.loss(energy, None, batch, None, key)[0]

    return eqx.filter_value_and_grad(loss)(energy)


def full(energy: en.Energy, x: Any) -> jax.Array:
    """The loss of one row from the whole Hessian."""
    return 0.5 * jnp.sum(jax.grad(energy)(x) ** 2) - jnp.trace(jax.hessian(energy)(x))


def test_the_loss_and_its_gradient_at_the_optimum_of_a_gaussian(key):
    """Least at the data's own mean and covariance, where it is -tr(C^-1)/2."""
    energy = en.Gaussian(MEAN, covariance=COVARIANCE)
    value, slope = loss_and_slope(SM(), energy, {"x": jnp.asarray(DATA, float)}, key)
    expected = -np.trace(np.linalg.inv(COVARIANCE)) / 2
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.all(np.abs(flat(slope)) < 1e-4 * abs(expected))


def test_whitened_data_have_minus_half_the_dimension(key):
    whitened = (DATA - MEAN) @ np.linalg.inv(np.linalg.cholesky(COVARIANCE)).T
    batch = {"x": jnp.asarray(whitened, float)}
    # the Hessian is diagonal, so that one projection has no variance either
    for objective in (SM(), SSM()):
        value, _ = loss_and_slope(objective, en.Gaussian(jnp.zeros(3)), batch, key)
        assert float(value) == pytest.approx(-1.5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", EVERY_FORM, ids=str)
def test_every_form_has_the_expectation_of_the_whole_hessian(objective, key):
    energy = en.Gaussian(MEAN + 0.3, covariance=COVARIANCE + 0.2 * np.eye(3))
    batch = {"x": jnp.asarray(np.tile(DATA, (8, 1)), float)}
    keys = jax.random.split(key, 32)
    pairs = [loss_and_slope(objective, energy, batch, k) for k in keys]
    seen = np.array([[float(value), *flat(slope)] for value, slope in pairs])

    def exact(energy):
        return jnp.mean(jax.vmap(lambda x: full(energy, x))(batch["x"]))

    value, slope = eqx.filter_value_and_grad(exact)(energy)
    expected = np.array([float(value), *flat(slope)])
    error = seen.std(0, ddof=1) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(0) - expected) < 5 * error + 1e-4 * np.abs(expected).max())


def test_variance_reduction_reduces_the_variance(key):
    energy = en.Gaussian(MEAN, covariance=COVARIANCE)
    batch = {"x": jnp.asarray(DATA, float)}
    spread = []
    for objective in (SSM(), SSM(variance_reduction=False)):
        values = [
            float(loss_and_slope(objective, energy, batch, k)[0]) for k in jax.random.split(key, 64)
        ]
        spread.append(np.std(values))
    assert spread[0] < 0.8 * spread[1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_trace_of_more_entries_than_are_held_at_once(backend, key, monkeypatch):
    """One after another, and side by side as on an accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    energy = en.MLPEnergy(37, width=8, depth=2, key=key)
    batch = {"x": jax.random.normal(key, (3, 37))}

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def value_and_slope(energy):
        return SM().loss(energy, None, batch, None, key)[0]

    value, slope = value_and_slope(energy)

    def exact(energy):
        return jnp.mean(jax.vmap(lambda x: full(energy, x))(batch["x"]))

    expected, expected_slope = eqx.filter_value_and_grad(exact)(energy)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(flat(slope), flat(expected_slope), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", [SM(), SSM()], ids=str)
def test_no_whole_hessian_is_held(objective, key):
    energy = en.MLPEnergy(37, width=8, depth=2, key=key)
    batch = {"x": jax.random.normal(key, (3, 37))}
    arrays, static = eqx.partition(energy, eqx.is_array)

    def loss(arrays):
        return objective.loss(eqx.combine(arrays, static), None, batch, None, key)[0]

    text = str(jax.make_jaxpr(jax.grad(loss))(arrays))
    assert "37" in text
    assert "37,37]" not in text


def test_a_bounded_variable_is_matched_in_unconstrained_coordinates(key):
    x = GENERATOR.exponential(0.5, size=200)
    # with z = log x: E = r e^z - z, least where the mean of (r x - 1) x - x vanishes
    best = 2 * x.mean() / np.mean(x**2)
    batch = {"x": jnp.asarray(x, float)}
    value, slope = loss_and_slope(SM(), Exponential(jnp.asarray(best, float)), batch, key)
    assert abs(float(slope.rate)) < 1e-5
    assert float(value) == pytest.approx(np.mean((best * x - 1) ** 2 / 2 - best * x), rel=1e-5)


class Labelled(en.Energy):
    """Unit normals around a mean for each label."""

    means: jax.Array

    def __call__(self, x, y):
        return 0.5 * jnp.sum((x - self.means[y]) ** 2)


@pytest.mark.parametrize("objective", [SM(given="y"), SSM(given="y")], ids=str)
def test_labels_are_conditioned_on(objective, key):
    y = np.arange(200) % 2
    x = np.array([-2.0, 3.0])[y][:, None] + GENERATOR.normal(size=(200, 1))
    means = np.stack([x[y == label].mean(0) for label in (0, 1)])
    batch = {"x": jnp.asarray(x, float), "y": jnp.asarray(y)}
    _, slope = loss_and_slope(objective, Labelled(jnp.asarray(means, float)), batch, key)
    np.testing.assert_allclose(slope.means, 0, atol=1e-5)


def test_latent_variables_are_summed_out(key):
    joint = Labelled(jnp.array([[-1.0], [1.0]])).constrain(y=en.Categorical(2), x=en.Real((1,)))
    batch = {"x": jnp.asarray(GENERATOR.normal(size=(20, 1)), float)}
    mixture = en.GaussianMixture(jnp.array([[-1.0], [1.0]]), scales=1.0)
    one, two = (loss_and_slope(SM(), energy, batch, key)[0] for energy in (joint, mixture))
    assert float(one) == pytest.approx(float(two), rel=1e-5)


def test_what_cannot_be(key):
    settings: list[dict[str, Any]] = [{"num_projections": 0}, {"projections": "sphere"}]
    for bad in settings:
        with pytest.raises(ValueError, match=r"num_projections=|projections="):
            SSM(**bad)
    rbm = en.RBM(3, 2, key=key)
    with pytest.raises(TypeError, match="'v' is discrete"):
        en.fit(rbm, np.zeros((20, 3)), "sm", key=key, num_steps=1)
