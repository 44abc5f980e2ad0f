"""The settings of deep energies: cold chains in their own units, within the range of the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import arrays, train

import energia as en
from energia.objectives import PCD
from energia.samplers import Langevin

NETWORK = en.MLPEnergy(2, width=16, depth=2, key=jax.random.key(1))
ROWS = np.random.default_rng(0).uniform(-1, 1, (256, 2)).astype(np.float32)


@pytest.mark.slow
def test_the_settings_are_those_of_cold_chains_in_units_of_the_energy():
    cold = Langevin(step_size=0.01, noise_scale=0.005, bounds=(-1, 1))
    settings: dict[str, Any] = {"num_steps": 8, "optimizer": optax.adam(1e-3, eps=0.0)}
    usual = PCD(sampler=cold, num_steps=60, energy_regularization=0.01)
    expected = train(NETWORK, ROWS, usual, **settings)
    result = train(800 * NETWORK, ROWS, PCD.deep(), **settings)
    for name in ("positives", "negatives", "loss"):  # the loss, a difference, may be near zero
        scaled, rounding = 800 * expected.history[name], 1e-6 * result.history["positives"].max()
        np.testing.assert_allclose(result.history[name], scaled, rtol=1e-2, atol=rounding)
    moved = zip(arrays(result.energy.energy), arrays(expected.energy), arrays(NETWORK), strict=True)
    for one, two, start in moved:
        np.testing.assert_allclose(one, two, atol=2e-4)
        assert np.max(np.abs(two - start)) > 1e-3


@pytest.mark.slow
def test_the_density_is_that_of_the_energy():
    # of the family exp(-800 w x), within the bounds, the w that the data were drawn with
    class Tilt(en.Energy):
        weight: jax.Array

        def __call__(self, x):
            return self.weight * jnp.sum(x)

    rate, low = 3.0, 0.0
    uniform = np.random.default_rng(3).uniform(size=(8192, 1))
    rows = -np.log1p(-uniform * -np.expm1(-rate)) / rate
    model = 800 * Tilt(jnp.array(0.0)).constrain(x=en.Real((1,)))
    projected = Langevin(step_size=2e-3, bounds=(low, 1.0))
    quick = PCD(sampler=projected, num_steps=100, buffer_size=2048)
    assert jax.tree.structure(PCD.deep(low=low).sampler) == jax.tree.structure(projected)
    settings = {"num_steps": 600, "batch_size": 512, "optimizer": optax.adam(1e-4)}
    result = train(model, rows, quick, ema_decay=0.98, **settings)
    assert 800 * float(result.ema_energy.energy.energy.weight) == pytest.approx(rate, abs=0.5)


@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_chains_stay_within_bounds(key):
    flat = en.Gaussian(jnp.zeros(2), scale=50.0)
    kernel = Langevin(step_size=1e-3, bounds=(jnp.array([-1.0, 0.0]), 1))
    draws = en.sample(
        flat,
        kernel,
        key=key,
        num_chains=200,
        num_warmup=2000,
        num_samples=200,
        thin=20,
        init={"x": 5 * jnp.ones((200, 2))},
        progress=False,
    )["x"]
    assert float(draws[..., 0].min()) == -1  # where the projection puts it
    assert float(draws[..., 1].min()) == 0
    assert float(draws.max()) == 1
    flat_draws = np.asarray(draws).reshape(-1, 2)  # uniform, up to the order of 0.04
    np.testing.assert_allclose(flat_draws.mean(0), [0, 0.5], atol=0.06)
    np.testing.assert_allclose(flat_draws.var(0), [4 / 12, 1 / 12], rtol=0.2)


@pytest.mark.parametrize(
    ("bounds", "error", "text"),
    [
        ((1, 1), ValueError, "low < high"),
        (3.0, TypeError, "a pair"),
        ((0, 1, 2), TypeError, "pair"),
    ],
)
def test_bounds_that_are_none(bounds, error, text):
    with pytest.raises(error, match=text):
        Langevin(bounds=bounds)
