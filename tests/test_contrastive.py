"""Contrastive divergence: its gradient, and latent variables in both phases."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from enumeration import flat, log_likelihood, states

import energia as en
from energia.objectives import CD, PCD
from energia.samplers import MALA, BlockGibbs, Gibbs, Langevin

GENERATOR = np.random.default_rng(5)
MACHINE = en.RBM.from_parameters(
    GENERATOR.normal(size=(3, 2)), GENERATOR.normal(size=3), GENERATOR.normal(size=2)
)
BITS = {"v": jnp.asarray(GENERATOR.integers(0, 2, (256, 3)), float)}


class Deep(en.Energy):
    """A Boltzmann machine of three layers, which says nothing of its conditionals."""

    first: jax.Array
    second: jax.Array
    bias: jax.Array

    def __call__(self, v, h, g):
        return -v @ self.first @ h - h @ self.second @ g - self.bias @ v

    def _supports(self):
        return {"v": en.Binary(3), "h": en.Binary(2), "g": en.Binary(2)}


DEEP = Deep(*(jnp.asarray(GENERATOR.normal(size=shape), float) for shape in ((3, 2), (2, 2), 3)))


class Coupled(en.Energy):
    """A real number around a mean for each state of a latent variable: a mixture of normals."""

    means: jax.Array
    log_weights: jax.Array

    def __call__(self, x, z):
        return 0.5 * (x - self.means[z]) ** 2 - jax.nn.log_softmax(self.log_weights)[z]

    def _supports(self):
        return {"x": en.Real(), "z": en.Categorical(2)}


class Quadratic(en.Energy):
    """theta x^2 of one real number."""

    theta: jax.Array

    def __call__(self, x):
        return self.theta * x**2


@eqx.filter_jit
def gradient(objective: Any, energy: en.Energy, batch: Any, state: Any, key: jax.Array) -> Any:
    """The gradient of the loss, with the next state and the metrics."""

    def loss(energy: en.Energy) -> Any:
        value, new, metrics = objective.loss(energy, None, batch, state, key)
        return value, (new, metrics)

    return eqx.filter_grad(loss, has_aux=True)(energy)


def test_one_noiseless_langevin_step_worked_by_hand(key):
    objective = CD(sampler=Langevin(step_size=0.05, noise_scale=0.0))
    slope, (_, metrics) = gradient(
        objective, Quadratic(jnp.array(1.0)), {"x": jnp.ones(3)}, None, key
    )
    # x' = 1 - 0.05 · 2 · 1 = 0.9, and d/dtheta of E(1) - E(0.9) is 1 - 0.81
    np.testing.assert_allclose(slope.theta, 0.19, rtol=1e-6)
    np.testing.assert_allclose(metrics["negatives"], 0.81, rtol=1e-6)


def test_the_gradient_is_that_of_fixed_negatives(key):
    energy = en.MLPEnergy(2, width=8, depth=1, key=key)
    batch = {"x": jax.random.normal(key, (5, 2))}
    frozen = PCD(sampler=Langevin(step_size=0.1), num_steps=3, buffer_size=5, reinit_prob=0.0)
    state = frozen.init(energy, batch, key)[1]
    slope, (new, _) = gradient(frozen, energy, batch, state, key)

    def contrast(energy):
        up, down = (jnp.mean(jax.vmap(energy)(x)) for x in (batch["x"], new.buffer.values["x"]))
        return up - down

    expected = eqx.filter_grad(contrast)(energy)
    np.testing.assert_allclose(flat(slope), flat(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_gaussian_s_likelihood_gradient(key):
    """With samples of the model itself the gradient in the mean is that of the likelihood."""
    mean, scale = jnp.array(0.5), 2.0
    energy = en.Gaussian(mean, scale=scale)
    x = jnp.full(20_000, 3.0)
    objective = PCD(sampler=MALA(step_size=4.0), num_steps=30, buffer_size=20_000, reinit_prob=0.0)
    state = objective.init(energy, {"x": mean + scale * jax.random.normal(key, (20_000,))}, key)[1]
    slope = gradient(objective, energy, {"x": x}, state, key)[0]
    # d(-log p)/d mean = -(x - mean) / scale^2, and the samples' error
    error = 1 / scale / np.sqrt(20_000)
    assert float(slope.mean) == pytest.approx(-(3.0 - 0.5) / scale**2, abs=5 * error)


# --- latent variables


@pytest.mark.slow
@pytest.mark.parametrize("energy", [MACHINE, DEEP], ids=["closed form", "chains"])
def test_many_steps_give_the_exact_gradient_of_the_likelihood(energy, key):
    """Positives by the posterior, negatives by long chains: what is left is sampling error."""
    batch = {"v": jnp.tile(BITS["v"], (8, 1))}
    objective = PCD(num_steps=40, num_latent_steps=40, buffer_size=2048, reinit_prob=1.0)
    assert isinstance(objective.kernel(energy), Gibbs)
    state = objective.init(energy, batch, key)[1]
    slopes = [
        flat(gradient(objective, energy, batch, state, k)[0]) for k in jax.random.split(key, 24)
    ]
    exact = flat(eqx.filter_grad(lambda e: -log_likelihood(e, BITS))(energy))
    error = np.std(slopes, 0, ddof=1) / np.sqrt(len(slopes))
    assert np.all(np.abs(np.mean(slopes, 0) - exact) < 5 * error), (np.mean(slopes, 0), exact)
    assert np.all(error < 0.02)


@pytest.mark.slow
def test_latents_with_a_closed_form_cost_no_draws(key):
    """The positive phase of a Boltzmann machine is exact: another key gives the same energy."""
    objective = PCD(num_steps=2, buffer_size=256)
    state = objective.init(MACHINE, BITS, key)[1]
    told = [
        float(gradient(objective, MACHINE, BITS, state, k)[1][1]["positives"])
        for k in jax.random.split(key, 2)
    ]
    free = MACHINE.marginalize("h")
    assert told[0] == told[1]
    assert told[0] == pytest.approx(float(jnp.mean(jax.vmap(free)(BITS["v"]))), rel=1e-5)


@pytest.mark.parametrize(
    ("energy", "latent"),
    [
        (MACHINE, ("h",)),
        (MACHINE + MACHINE.rename(h="g"), ("g", "h")),
        (DEEP, ("h", "g")),
    ],
    ids=["layer", "two layers side by side", "chains"],
)
def test_latents_are_drawn_given_the_data(energy, latent, key):
    rows = {"v": jnp.tile(jnp.array([1.0, 0.0, 1.0]), (20_000, 1))}
    objective = CD(num_latent_steps=30)
    assert set(objective.latent(energy, rows)) == set(latent)
    drawn = jax.jit(lambda key: objective.complete(energy, rows, None, key))(key)
    hidden = states(energy, latent)
    energies = jax.vmap(lambda h: energy.at({"v": rows["v"][0], **h}))(hidden)
    weights = np.asarray(jax.nn.softmax(-energies), np.float64)

    def features(values: Any) -> np.ndarray:
        units = np.concatenate([np.asarray(values[n]) for n in latent], 1)
        return np.stack([np.outer(row, row).ravel() for row in units[:5000]])

    exact = weights @ features(hidden)
    seen = features(drawn)
    error = np.sqrt(exact * (1 - exact) / len(seen))
    assert np.all(np.abs(seen.mean(0) - exact) < 5 * error + 1e-9)


@pytest.mark.parametrize("name", [pytest.param("cd", marks=pytest.mark.slow), "pcd"])
def test_a_boltzmann_machine_learns_by_name(name, key):
    """From data of its own: near the entropy of the data, which no model can beat."""
    generator = np.random.default_rng(6)
    truth = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])[generator.integers(0, 2, 2048)]
    data = np.where(generator.uniform(size=truth.shape) < 0.1, 1 - truth, truth)
    rbm = en.RBM(4, 2, key=key)
    result = en.fit(
        rbm,
        data,
        name,
        key=key,
        num_steps=600,
        batch_size=256,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 600)),
        ema_decay=0.99,
    )
    rows = {"v": jnp.asarray(data, float)}
    _, counts = np.unique(data, axis=0, return_counts=True)
    entropy = -np.sum(counts / 2048 * np.log(counts / 2048))
    start, end = (float(log_likelihood(e, rows)) for e in (rbm, result.ema_energy))
    assert start < -2.7
    assert end > -entropy - (0.02 if name == "pcd" else 0.1)


def test_a_latent_class_of_a_real_variable(key):
    """The mixture of normals as a joint energy: each kind of variable by its own kernel."""
    data = np.concatenate([GENERATOR.normal(-2, 1, 1024), GENERATOR.normal(2, 1, 3072)])
    start = Coupled(jnp.array([-1.0, 1.0]), jnp.zeros(2))
    objective = PCD(num_steps=10, buffer_size=512, reinit_prob=0.01)
    assert isinstance(objective.kernel(start), BlockGibbs)
    named = PCD(
        sampler=BlockGibbs({"z": "gibbs", "x": MALA(step_size=0.7)}),
        num_steps=10,
        buffer_size=512,
        reinit_prob=0.0,
    )
    result = en.fit(
        start,
        data,
        named,
        key=key,
        num_steps=600,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 600)),
        ema_decay=0.99,
    )
    weights = np.asarray(jax.nn.softmax(result.ema_energy.log_weights))
    np.testing.assert_allclose(result.ema_energy.means, [-2, 2], atol=0.25)
    np.testing.assert_allclose(weights, [0.25, 0.75], atol=0.06)


class Scaled(en.Energy):
    """A number below a bound that is given."""

    rate: jax.Array

    def __call__(self, x, s):
        return self.rate * x / s

    def _supports(self):
        return {"x": en.Interval(0, lambda s: s), "s": en.Positive()}


def test_samples_keep_below_the_bound_that_they_are_given(key):
    batch = {"x": jnp.full(512, 0.25), "s": jnp.linspace(0.5, 3.0, 512)}
    objective = CD(sampler=MALA(step_size=0.5), num_steps=50, given="s")
    told = gradient(objective, Scaled(jnp.array(2.0)), batch, None, key)[1][1]
    # given s, x / s has the density of exp(-2 u) on (0, 1)
    mean = 0.5 - np.exp(-2) / (1 - np.exp(-2))
    assert float(told["negatives"]) == pytest.approx(2 * mean, abs=2 * 5 * 0.29 / np.sqrt(512))


def test_a_sampler_by_name_that_does_not_fit(key):
    for objective in (CD(sampler="langevin"), PCD(sampler="hmc")):
        with pytest.raises((TypeError, ValueError), match="'v' is discrete"):
            en.fit(MACHINE, np.zeros((20, 3)), objective, key=key, num_steps=1)
    with pytest.raises(TypeError, match="'h' is discrete"):
        en.fit(DEEP, BITS["v"], CD(latent_sampler="langevin"), key=key, num_steps=1)


def test_a_latent_variable_needs_a_support(key):
    @en.energy
    def pair(x, u):
        return jnp.sum((x - u) ** 2)

    model = pair + en.Gaussian(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"lacks \['u'\].*constrain\(u="):
        en.fit(model, np.zeros((20, 2)), "pcd", key=key, num_steps=1)
    with pytest.raises(ValueError, match=r"marginalize\('u'\).*no closed form"):
        en.fit(model.constrain(u=en.Real(2)), np.zeros((20, 2)), "dsm", key=key, num_steps=1)
    with pytest.raises(ValueError, match=r"lacks \['u'\], which given="):
        en.fit(model, np.zeros((20, 2)), PCD(given="u"), key=key, num_steps=1)


# --- kernels that keep more of a chain than where it is


class Redrawn(en.samplers.MEADS):
    """Begins every training step with another momentum."""

    def renew(self, energy: Any, state: Any, position: Any, key: Any) -> Any:
        return self.init(energy, position, key)


@pytest.mark.parametrize("policy", ["slots", "fifo"])
def test_momenta_are_kept_from_step_to_step(policy: str, key):
    """With them chains reach the law of a stretched model in steps that else are far too few."""
    variances = jnp.array([1.0, 100.0])
    energy = en.Gaussian(jnp.zeros(2), covariance=jnp.diag(variances))
    batch = {"x": jax.random.normal(key, (2000, 2))}  # where chains start

    def second_moments(kernel: Any) -> np.ndarray:
        settings = {"buffer_size": 2000, "buffer_policy": policy, "reinit_prob": 0.0}
        pcd = PCD(sampler=kernel, num_steps=1, **settings)

        @jax.jit
        def train(state: Any, key: jax.Array) -> Any:
            def step(state: Any, key: jax.Array) -> Any:
                return pcd.loss(energy, None, batch, state, key)[1], None

            return jax.lax.scan(step, state, jax.random.split(key, 300))[0]

        state = train(pcd.init(energy, batch, key)[1], key)
        return np.mean(np.asarray(state.buffer.values["x"], float) ** 2, 0)

    numbers = {"step_size": 0.5, "scale": jnp.ones(2), "alpha": 0.1, "delta": 0.05}
    error = 5 * np.sqrt(2 / 2000) * np.asarray(variances)
    assert np.all(np.abs(second_moments(en.samplers.MEADS(**numbers)) - variances) < error)
    assert second_moments(Redrawn(**numbers))[1] < 60
