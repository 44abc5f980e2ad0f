"""Diffusion recovery likelihood: the ladder, the conditionals, what is learned at each level."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.objectives import DRL
from energia.samplers import MALA
from energia.samplers.reverse_diffusion import Tethered

GENERATOR = np.random.default_rng(10)


class Noised(en.Energy):
    """N(mean, variance) data with noise of level sigma."""

    mean: jax.Array
    variance: jax.Array

    def __call__(self, x, sigma):
        return jnp.sum((x - self.mean) ** 2) / (2 * (self.variance + sigma**2))


@eqx.filter_jit
def slope(objective: Any, energy: en.Energy, batch: Any, key: jax.Array) -> Any:
    learned, _ = objective.init(energy, batch, key)
    return eqx.filter_grad(lambda e: objective.loss(e, learned, batch, None, key)[0])(energy)


def test_the_ladder_is_geometric():
    levels = np.asarray(DRL(num_levels=4, sigma_min=0.1, sigma_max=1.6).levels)
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.4, 0.8, 1.6], rtol=1e-5)


def test_a_conditional_is_the_posterior_of_less_noise(key):
    """Of normal data it is normal, with precisions that add."""
    variance, sigma, scale, centre = 2.0, 0.5, 1.5, jnp.array([1.0, -2.0])
    energy = Noised(jnp.zeros(2), jnp.array(variance)).condition(sigma=sigma)
    target = Tethered(energy, {"x": centre}, jnp.array(scale))
    prior, tether = 1 / (variance + sigma**2), 1 / scale**2
    mean = centre * tether / (prior + tether)
    u = (mean - centre) / scale
    np.testing.assert_allclose(jax.grad(target)(u), 0, atol=1e-5)
    curvature = jax.hessian(target)(u)
    np.testing.assert_allclose(curvature, np.eye(2) * scale**2 * (prior + tether), rtol=1e-4)
    np.testing.assert_allclose(target.place({"x": u})["x"], mean, rtol=1e-5)


def test_the_gradient_vanishes_at_the_truth_of_every_level(key):
    truth = Noised(jnp.array([1.0]), jnp.array(0.5))
    objective = DRL(num_levels=3, sigma_min=0.2, sigma_max=3.0, sampler=MALA(step_size=0.15))
    keys = jax.random.split(key, 16)

    def along(energy: Noised) -> np.ndarray:
        found = []
        for subkey in keys:
            x = 1.0 + np.sqrt(0.5) * jax.random.normal(subkey, (4096, 1))
            gradient = slope(objective, energy, {"x": x}, jax.random.fold_in(subkey, 1))
            found.append([float(gradient.mean[0]), float(gradient.variance)])
        return np.asarray(found)

    at_truth = along(truth)
    error = at_truth.std(0, ddof=1) / np.sqrt(len(keys))
    assert np.all(np.abs(at_truth.mean(0)) < 5 * error), (at_truth.mean(0), error)
    away = along(Noised(jnp.array([1.2]), jnp.array(0.7))).mean(0)
    assert np.all(away > 5 * error)


class Labelled(en.Energy):
    """A mean for each label, under noise."""

    means: jax.Array

    def __call__(self, x, sigma, y):
        return jnp.sum((x - self.means[y]) ** 2) / (2 * (1 + sigma**2))


@pytest.mark.slow
def test_labels_are_conditioned_on(key):
    y = np.arange(2048) % 2
    x = np.array([-2.0, 3.0])[y][:, None] + GENERATOR.normal(size=(2048, 1))
    result = en.fit(
        Labelled(jnp.zeros((2, 1))),
        {"x": x, "y": y},
        DRL(num_levels=3, sigma_max=6.0, sigma_min=0.5, given="y"),
        key=key,
        num_steps=600,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 600)),
        ema_decay=0.99,
    )
    expected = [x[y == label].mean() for label in (0, 1)]
    np.testing.assert_allclose(np.ravel(result.ema_energy.means), expected, atol=0.2)
    assert 0 < result.history["acceptance_rate"].mean() <= 1


def test_what_cannot_be(key):
    data = np.zeros((20, 2))
    with pytest.raises(ValueError, match=r"6 noise levels needs.*'sigma'"):
        en.fit(en.Gaussian(jnp.zeros(2)), data, "drl", key=key, num_steps=1)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        DRL(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="num_levels= must be at least 1"):
        DRL(num_levels=0)
    energy = Noised(jnp.zeros(2), jnp.array(1.0))
    with pytest.raises(ValueError, match="not tuned"):
        en.fit(energy, data, DRL(sampler="mala"), key=key, num_steps=1)


@pytest.mark.slow
def test_the_reverse_chain_generates(key):
    """Of the true energies at every level: draws of the data with the noise of the lowest."""
    truth = Noised(jnp.array([1.0, -1.0]), jnp.array(0.5))
    objective = DRL(num_levels=4, sigma_min=0.2, sigma_max=4.0, sampler=MALA(step_size=0.15))
    x = truth.mean + np.sqrt(0.5) * jax.random.normal(key, (4096, 2))
    learned, _ = objective.init(truth, {"x": x}, key)
    sampler = objective.sampler_for(truth, learned)
    count = 20_000
    starts = {"x": jnp.zeros((count, 2)), "sigma": jnp.zeros(count)}
    drawn, info = eqx.filter_jit(sampler.draw)(truth, starts, key)
    assert drawn["x"].shape == (count, 2)
    assert 0.3 < float(jnp.mean(info["acceptance_rate"])) < 1
    np.testing.assert_allclose(drawn["sigma"], 0.2, rtol=1e-6)
    seen, variance = np.asarray(drawn["x"], np.float64), 0.5 + 0.2**2
    # by independent particles; a chain of 30 steps forgets its start to less than that
    np.testing.assert_allclose(seen.mean(0), [1, -1], atol=5 * np.sqrt(variance / count))
    np.testing.assert_allclose(seen.var(0), variance, rtol=5 * np.sqrt(2 / count))
    assert "finitely many" in sampler.bias()


@pytest.mark.slow
def test_what_was_trained_generates_by_name_alone(key):
    """The sampler knows the supports that a plain energy does not tell."""
    model = Noised(jnp.zeros(2), jnp.array(1.0))
    x = 3.0 + GENERATOR.normal(size=(256, 2))
    fit = en.fit(model, x, DRL(num_levels=2), key=key, num_steps=20)
    assert fit.sampler is not None
    draws = en.sample(fit.energy, fit.sampler, key=key, num_chains=2, num_samples=1000)
    assert draws["x"].shape == (2, 1000, 2)
    np.testing.assert_allclose(draws["sigma"], fit.sampler.levels[0], rtol=1e-6)  # pyright: ignore
