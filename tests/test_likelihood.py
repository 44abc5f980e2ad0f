"""Exact maximum likelihood against enumeration, and what it makes of small models."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import flat, log_likelihood, states

import energia as en
from energia.objectives import MLE

GENERATOR = np.random.default_rng(8)
RBM = en.RBM.from_parameters(
    GENERATOR.normal(size=(4, 2)), GENERATOR.normal(size=4), GENERATOR.normal(size=2)
)
BITS = {"v": jnp.asarray(GENERATOR.integers(0, 2, (50, 4)), float)}
SPINS = {"x": jnp.asarray(2 * GENERATOR.integers(0, 2, (30, 2, 3)) - 1, float)}
STATES = {"x": jnp.asarray(GENERATOR.integers(0, 3, (30, 2, 2)))}


@eqx.filter_jit
def loss_and_slope(objective: Any, energy: en.Energy, batch: Any) -> Any:
    def loss(energy: en.Energy) -> jax.Array:
        return objective.loss(energy, None, batch, None, jax.random.key(0))[0]

    return eqx.filter_value_and_grad(loss)(energy)


@pytest.mark.parametrize(
    ("energy", "batch"),
    [
        (RBM, BITS),
        (RBM / 2.0, BITS),
        (en.Ising((2, 3), coupling=0.4, field=0.2, periodic=False), SPINS),
        (en.Potts((2, 2), 3, coupling=0.5, field=jnp.array([0.1, 0.0, -0.3])), STATES),
    ],
    ids=["rbm", "tempered rbm", "ising", "potts"],
)
def test_the_loss_is_the_exact_negative_log_likelihood(energy, batch):
    value, slope = loss_and_slope(MLE(), energy, batch)
    expected, expected_slope = eqx.filter_value_and_grad(lambda e: -log_likelihood(e, batch))(
        energy
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    # a weight of a composite is never trained
    np.testing.assert_allclose(flat(slope), flat(expected_slope), atol=2e-5)


def test_the_gradient_of_a_gaussian_in_its_mean():
    energy = en.Gaussian(0.5, scale=2.0)
    value, slope = loss_and_slope(MLE(), energy, {"x": jnp.array([3.0])})
    assert float(slope.mean) == pytest.approx(-(3.0 - 0.5) / 4)
    assert float(value) == pytest.approx(0.5 * np.log(2 * np.pi * 4) + 2.5**2 / 8, rel=1e-6)


class Conditional(en.Energy):
    """Three bits that a number tilts: its normaliser depends on the number."""

    slope: jax.Array

    def __call__(self, x, u):
        return -u * jnp.sum(self.slope * x) - 0.3 * x[0] * x[1]

    def _supports(self):
        return {"x": en.Binary(3)}


def test_each_row_has_the_normaliser_of_what_it_is_given():
    energy = Conditional(jnp.array([0.5, -1.0, 2.0]))
    batch = {
        "x": jnp.asarray(GENERATOR.integers(0, 2, (20, 3)), float),
        "u": jnp.asarray(GENERATOR.normal(size=20), float),
    }
    value, _ = loss_and_slope(MLE(given="u"), energy, batch)
    every = states(energy, ("x",))["x"]

    def surprise(x, u):
        normaliser = jax.nn.logsumexp(jax.vmap(lambda s: -energy(s, u))(every))
        return energy(x, u) + normaliser

    expected = jnp.mean(jax.vmap(surprise)(batch["x"], batch["u"]))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


class Unknown(en.Energy):
    """Does not say which values it takes."""

    weights: jax.Array

    def __call__(self, x):
        return jnp.sum(self.weights * x**2)


def test_a_normaliser_that_is_out_of_reach(key):
    model = en.Ising((6, 6), coupling=0.1)
    with pytest.raises(ValueError, match=r"MLE needs the normaliser of Ising\(x\).*68,719,476,736"):
        en.fit(model, np.ones((20, 6, 6)), "mle", key=key, num_steps=1)
    with pytest.raises(ValueError, match=r"MLE needs.*no closed form.*'x' is real.*'dsm'"):
        en.fit(en.Ring(), np.zeros((20, 2)), "mle", key=key, num_steps=1)

    with pytest.raises(ValueError, match="its support is unknown"):
        en.fit(Unknown(jnp.ones(2)), np.zeros((20, 2)), "mle", key=key, num_steps=1)
