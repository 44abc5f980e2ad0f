"""Energies at every noise level: what they compute, and that they learn the smoothed law."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.energies._trainable import count_parameters

KEY = jax.random.key(0)
SIGMAS = jnp.geomspace(4.0, 0.1, 10)


def smoothed(sigma):
    """The mixture of the tests, with noise."""
    scales = np.sqrt(0.5**2 + float(sigma) ** 2) * np.ones(2)
    return en.GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], scales=scales, weights=[0.3, 0.7])


def rows_of(energy, key, count):
    draw = jax.jit(lambda energy, keys: jax.vmap(energy._exact({}).draw)(keys)["x"])
    return draw(energy, jax.random.split(key, count))


# --- values


def test_the_scalar_form_is_the_network_at_the_level():
    energy = en.NoiseConditional(lambda x, sigma: jnp.sum(x) / sigma)
    assert energy.supports == {"x": None, "sigma": en.Positive()}
    assert float(energy(jnp.array([1.0, 2.0]), 2.0)) == 1.5
    assert float(energy.condition(sigma=3.0)(jnp.array([1.0, 2.0]))) == 1.0


def test_the_quadratic_form_is_a_squared_residual():
    energy = en.NoiseConditional(lambda x, sigma: sigma * x, form="quadratic", shape=(2, 2))
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(energy(x, 3.0), 4 * 30 / (2 * 9), rtol=1e-6)


@pytest.mark.parametrize("embedding", ["fourier", "learned"])
def test_the_network_gets_the_embedding(embedding):
    settings = {"embedding": embedding, "embedding_size": 6, "key": KEY}
    seen = en.NoiseConditional(lambda x, level: jnp.sum(level * jnp.arange(6)), **settings)
    assert seen.embedding is not None
    if embedding == "fourier":
        angles = np.array([0.25, 1.0, 4.0]) * np.log(0.3)
        level = np.sqrt(2) * np.concatenate([np.cos(angles), np.sin(angles)])
        assert count_parameters(seen) == 0
    else:
        level = np.asarray(seen.embedding(jnp.asarray(0.3)))
        assert count_parameters(seen) == 6 + 6 + 36 + 6
    np.testing.assert_allclose(seen(1.0, 0.3), level @ np.arange(6), rtol=1e-5)


def test_an_energy_takes_the_level_beside_x():
    network = en.MLPEnergy(3, width=4, key=KEY)
    energy = en.NoiseConditional(network)
    assert energy.supports == {"x": en.Real((2,)), "sigma": en.Positive()}
    expected = network(jnp.array([1.0, 2.0, 0.5]))
    assert float(energy(jnp.array([1.0, 2.0]), 0.5)) == float(expected)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1)])
def test_an_image_has_the_level_as_channels(shape):
    network = en.ConvEnergy((5, 6, 5), widths=(4,), key=KEY)
    energy = en.NoiseConditional(network, embedding="fourier", embedding_size=4, shape=shape)
    assert energy.supports["x"] == en.Real(shape)
    assert energy.embedding is not None
    image = jax.random.normal(KEY, shape)
    level = jnp.broadcast_to(energy.embedding(jnp.asarray(0.3)), (5, 6, 4))
    expected = network(jnp.concatenate([image.reshape(5, 6, 1), level], -1))
    np.testing.assert_allclose(energy(image, 0.3), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("embedding", ["fourier", "learned"])
def test_laws(embedding):
    network = en.MLPEnergy(2 + 4, width=5, key=KEY)
    en.testing.check_energy(
        en.NoiseConditional(network, embedding=embedding, embedding_size=4, key=KEY)
    )


def test_what_does_not_fit():
    mlp = en.MLPEnergy(2, key=KEY)
    with pytest.raises(TypeError, match="network"):
        en.NoiseConditional(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="form= must be one of"):
        en.NoiseConditional(mlp, form="squared")
    with pytest.raises(ValueError, match="embedding= must be one of"):
        en.NoiseConditional(mlp, embedding="sine")
    with pytest.raises(ValueError, match="even for 'fourier', got 3"):
        en.NoiseConditional(mlp, embedding="fourier", embedding_size=3)
    with pytest.raises(TypeError, match="typed JAX key"):
        en.NoiseConditional(mlp, embedding="learned")
    with pytest.raises(ValueError, match="leaves no room for x beside the level, which takes 16"):
        en.NoiseConditional(mlp, embedding="fourier")
    with pytest.raises(ValueError, match=r"x has the shape \(1,\)"):
        en.NoiseConditional(mlp, shape=(2,))
    with pytest.raises(ValueError, match=r"values of shape \(2,\) for form='quadratic', got \(\)"):
        en.NoiseConditional(lambda x, sigma: sigma, form="quadratic", shape=2)
    with pytest.raises(ValueError, match=r"values of shape \(\) .* takes a network whose values"):
        en.NoiseConditional(lambda x, sigma: x, shape=2)
    with pytest.raises(ValueError, match="sigma must be positive"):
        en.NoiseConditional(lambda x, sigma: sigma)(1.0, 0.0)
    with pytest.raises(ValueError, match="one level sigma"):
        en.NoiseConditional(lambda x, sigma: sigma)(1.0, jnp.ones(2))


# --- what is learned


@pytest.fixture(scope="module")
def learned():
    """Learned by denoising score matching, with data to judge it by."""
    data = rows_of(smoothed(0.0), jax.random.key(1), 8192)
    network = en.MLPEnergy(2 + 16, width=32, key=jax.random.key(2))
    objective = en.objectives.DSM(sigma=SIGMAS)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 1200))
    settings = {"num_steps": 1200, "batch_size": 512, "ema_decay": 0.99, "progress": False}
    model = en.NoiseConditional(network, embedding="fourier")
    fit = en.fit(model, data, objective, key=jax.random.key(3), optimizer=optimizer, **settings)
    return fit.ema_energy


def test_the_score_at_each_level_is_that_of_the_smoothed_law(learned, key):
    """In units of 1 / sigma, where true scores reach 1.36: within 0.2 in root mean square."""

    @eqx.filter_jit
    def error(energy, truth, rows, sigma):
        known = jax.vmap(truth.score)(rows)
        found = jax.vmap(lambda x: energy.condition(sigma=sigma).score(x))(rows)
        return sigma * jnp.sqrt(jnp.mean(jnp.sum((found - known) ** 2, -1)))

    laws = [smoothed(sigma) for sigma in SIGMAS]
    rows = [rows_of(law, key, 2000) for law in laws]
    errors = [float(error(learned, *each)) for each in zip(laws, rows, SIGMAS, strict=True)]
    assert max(errors) < 0.2, errors
    wrong = float(error(learned, smoothed(0.5), rows[0], SIGMAS[0]))  # of another law
    assert wrong > 0.5


def test_annealed_langevin_finds_the_weights(learned, key):
    path = en.Path(learned, sigma=jnp.geomspace(4.0, 0.1, 40))
    draws = en.sample(path, "annealed_langevin", key=key, num_chains=4, num_samples=500)
    x = np.asarray(draws["x"]).reshape(-1, 2)
    right = x[x[:, 0] > 0]
    assert abs(len(right) / len(x) - 0.7) < 0.06
    np.testing.assert_allclose(right.mean(0), [2.0, 0.0], atol=0.1)
    np.testing.assert_allclose(right.std(0), np.sqrt(0.5**2 + 0.1**2), atol=0.15)


class Shrinks(eqx.Module):
    """The denoiser whose quadratic form is the energy of N(0, (variance + sigma^2) I)."""

    log_variance: jax.Array

    def __call__(self, x, sigma):
        return x * (1 - sigma / jnp.sqrt(jnp.exp(self.log_variance) + sigma**2))


def test_the_quadratic_form_learns_a_variance(key):
    data = 2.0 * jax.random.normal(key, (4096, 8))
    model = en.NoiseConditional(Shrinks(jnp.zeros(())), form="quadratic", shape=8)
    np.testing.assert_allclose(model(jnp.ones(8), 3.0), 8 / (2 * (1 + 9)), rtol=1e-5)
    objective = en.objectives.DSM(sigma=jnp.array([0.5, 1.0, 2.0]))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 300))
    fit = en.fit(
        model, data, objective, key=key, num_steps=300, batch_size=512, optimizer=optimizer
    )
    found = float(jnp.exp(fit.ema_energy.network.log_variance))
    assert abs(found / np.var(np.asarray(data)) - 1) < 0.05


@pytest.mark.slow
def test_recovery_likelihood_learns_the_mixture(key):
    data = rows_of(smoothed(0.0), jax.random.key(1), 8192)
    network = en.MLPEnergy(2 + 16, width=64, key=jax.random.key(2))
    model = en.NoiseConditional(network, embedding="learned", key=jax.random.key(4))
    objective = en.objectives.DRL(num_levels=6, num_steps=20, sigma_min=0.1, sigma_max=6.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, 2000))
    fit = en.fit(
        model, data, objective, key=key, num_steps=2000, batch_size=256, optimizer=optimizer
    )
    assert fit.sampler is not None
    draws = en.sample(fit.ema_energy, fit.sampler, key=key, num_chains=4, num_samples=1000)
    x = np.asarray(draws["x"]).reshape(-1, 2)
    right = x[x[:, 0] > 0]
    assert abs(len(right) / len(x) - 0.7) < 0.06
    np.testing.assert_allclose(right.mean(0), [2.0, 0.0], atol=0.15)
