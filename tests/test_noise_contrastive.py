"""Noise-contrastive estimation: worked examples, the normaliser, the asymptotic covariance."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from enumeration import flat, log_likelihood, states
from toy_energies import Exponential, Precision

import energia as en
from energia.objectives import CNCE, NCE, SM

GENERATOR = np.random.default_rng(9)


class Half(en.Energy):
    """x^2 / 2 of one number, times a precision: its log Z is log(2 pi / precision) / 2."""

    precision: jax.Array

    def __call__(self, x):
        return 0.5 * self.precision * x**2

    def _supports(self):
        return {"x": en.Real()}


@eqx.filter_jit
def loss_and_slope(
    objective: Any, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array
) -> Any:
    def loss(both: Any) -> jax.Array:
        return objective.loss(both[0], both[1], batch, state, key)[0]

    return eqx.filter_value_and_grad(loss)((energy, learned))


def test_the_decision_boundary_of_a_worked_example(key):
    """Of exp(-x^2 / 2), without its log Z, against N(0, 4) the odds are even at 2.073."""
    objective = NCE(noise=en.Gaussian(0.0, scale=2.0))
    for x, expected in ((2.0734, 0.0), (-2.0734, 0.0), (0.0, 0.5 * np.log(8 * np.pi))):
        contrast = objective._contrast(Half(jnp.array(1.0)), {"x": jnp.array(x)}, None)
        assert float(contrast.log_ratio(contrast.datum)) == pytest.approx(expected, abs=1e-3)


def test_where_model_data_and_noise_agree_nothing_can_be_told(key):
    energy = en.Gaussian(jnp.zeros(2))
    batch = {"x": jax.random.normal(key, (50, 2))}
    for ratio, expected in ((1, 2 * np.log(2)), (3, np.log(4) + 3 * np.log(4 / 3))):
        objective = NCE(noise=energy, ratio=ratio)
        learned, state = objective.init(energy, batch, key)
        assert float(learned["log_partition"]) == pytest.approx(0, abs=1e-6)
        value, _ = loss_and_slope(objective, energy, learned, batch, state, key)
        assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, en.GaussianMixture([-1.0, 1.0], scales=2.0)], ids=str)
def test_the_normaliser_is_learned(noise, key):
    data = GENERATOR.normal(size=4096) / np.sqrt(3.0)
    result = en.fit(
        Half(jnp.array(1.0)),
        data,
        NCE(noise=noise, ratio=10),
        key=key,
        num_steps=600,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 600)),
        ema_decay=0.99,
    )
    precision = float(result.ema_energy.precision)
    assert precision == pytest.approx(1 / np.var(data), rel=0.06)
    log_partition = float(result.ema_learned["log_partition"])
    assert log_partition == pytest.approx(0.5 * np.log(2 * np.pi / precision), abs=0.03)


def test_the_first_normaliser_is_estimated_from_the_noise(key):
    data = {"x": jnp.asarray(2 * GENERATOR.normal(size=4096), float)}
    learned, state = NCE().init(Half(jnp.array(0.25)), data, key)
    assert state is not None
    assert float(state.factor[0, 0]) == pytest.approx(2, rel=0.05)
    assert float(learned["log_partition"]) == pytest.approx(0.5 * np.log(8 * np.pi), abs=0.02)


class Labelled(en.Energy):
    """Normals of a precision for each label, unnormalised."""

    precisions: jax.Array

    def __call__(self, x, y):
        return 0.5 * self.precisions[y] * x**2

    def _supports(self):
        return {"x": en.Real(), "y": en.Categorical(2)}


@pytest.mark.slow
def test_the_normaliser_of_a_boltzmann_machine(key):
    """Binary data have noise of independent bits."""
    truth = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])[GENERATOR.integers(0, 2, 4096)]
    data = np.where(GENERATOR.uniform(size=truth.shape) < 0.15, 1 - truth, truth)
    result = en.fit(
        en.RBM(4, 2, key=key),
        data,
        NCE(ratio=5),
        key=key,
        num_steps=1000,
        batch_size=256,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1000)),
        ema_decay=0.99,
    )
    rbm, rows = result.ema_energy, {"v": jnp.asarray(data, float)}
    exact = float(jax.nn.logsumexp(-jax.vmap(rbm.at)(states(rbm))))
    assert float(result.ema_learned["log_partition"]) == pytest.approx(exact, abs=0.05)
    _, counts = np.unique(data, axis=0, return_counts=True)
    entropy = -np.sum(counts / 4096 * np.log(counts / 4096))
    assert float(log_likelihood(rbm, rows)) > -entropy - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("objective", [NCE(given="y", ratio=10), CNCE(given="y", ratio=10)])
def test_labels_have_normalisers_of_their_own(objective, key):
    y = np.arange(4096) % 2
    data = {"x": GENERATOR.normal(size=4096) / np.sqrt(np.array([0.5, 4.0])[y]), "y": y}
    result = en.fit(
        Labelled(jnp.ones(2)),
        data,
        objective,
        key=key,
        num_steps=600,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 600)),
        ema_decay=0.99,
    )
    exact = [1 / np.mean(data["x"][y == label] ** 2) for label in (0, 1)]
    np.testing.assert_allclose(result.ema_energy.precisions, exact, rtol=0.12)
    if isinstance(objective, NCE):
        expected = 0.5 * np.log(2 * np.pi / np.asarray(result.ema_energy.precisions))
        np.testing.assert_allclose(result.ema_learned["log_partition"], expected, atol=0.06)


@pytest.mark.parametrize("objective", [NCE(ratio=10), CNCE(ratio=10)], ids=str)
def test_a_bounded_variable_is_contrasted_in_unconstrained_coordinates(objective, key):
    """At the truth the expected gradient is zero, and the normaliser -log(rate)."""
    energy = Exponential(jnp.array(2.0))
    batch = {"x": jax.random.exponential(key, (20_000,)) / 2}
    learned, state = objective.init(energy, batch, key)
    if learned is not None:
        learned = {"log_partition": jnp.array(-np.log(2.0), float)}
    slopes = [
        flat(loss_and_slope(objective, energy, learned, batch, state, k)[1])
        for k in jax.random.split(key, 8)
    ]
    # the data are the same in each, so that this is their error
    assert np.all(np.abs(np.mean(slopes, 0)) < 5 * 0.5 / np.sqrt(20_000))
    away = loss_and_slope(objective, Exponential(jnp.array(2.5)), learned, batch, state, key)[1]
    assert float(away[0].rate) > 0.01


@pytest.mark.slow
def test_close_noise_is_score_matching(key):
    energy = Precision(jnp.array([1.5, 0.4, 0.8]))
    x = jax.random.normal(key, (200_000, 2))
    x = (x - x.mean(0)) / x.std(0)
    matched = SM().loss(energy, None, {"x": x[:50_000]}, None, key)[0]
    scale = 0.2
    objective = CNCE(noise_scale=scale)
    state = objective.init(energy, {"x": x}, key)[1]
    values = []
    for subkey in jax.random.split(key, 16):
        value, _ = loss_and_slope(objective, energy, None, {"x": x}, state, subkey)
        values.append((float(value) - 2 * np.log(2)) * 2 / scale**2)
    error = np.std(values, ddof=1) / 4
    assert error < 0.03
    # the next order in the scale is a few per cent
    assert np.mean(values) == pytest.approx(float(matched), abs=0.08 + 5 * float(error))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_the_asymptotic_covariance(ratio, key):
    """The errors of many estimates have the covariance of Gutmann and Hyvärinen (2012)."""
    entries = np.array([1.5, 0.5, 1.0])
    precision = np.array([[1.5, 0.5], [0.5, 1.0]])
    rows, repeats, spread = 1000, 200, 1.5
    truth = np.append(entries, 0.5 * np.log((2 * np.pi) ** 2 / np.linalg.det(precision)))
    objective = NCE(noise=en.Gaussian(jnp.zeros(2), scale=spread), ratio=ratio)
    root = np.linalg.cholesky(np.linalg.inv(precision))

    def loss(parameters, x, key):
        energy, learned = Precision(parameters[:3]), {"log_partition": parameters[3]}
        return objective.loss(energy, learned, {"x": x}, None, key)[0]

    @jax.jit
    def estimate(key):
        data_key, noise_key = jax.random.split(key)
        x = jax.random.normal(data_key, (rows, 2)) @ root.T

        def newton(_, parameters):
            slope = jax.grad(loss)(parameters, x, noise_key)
            return parameters - jnp.linalg.solve(jax.hessian(loss)(parameters, x, noise_key), slope)

        return jax.lax.fori_loop(0, 4, newton, jnp.asarray(truth, float))

    found = np.asarray(jax.lax.map(estimate, jax.random.split(key, repeats)), np.float64)
    seen = rows * np.mean(np.sum((found - truth) ** 2, 1))

    # expectations over the data by many draws: g = d log p / d parameters
    x = GENERATOR.normal(size=(400_000, 2)) @ root.T
    g = -np.stack([x[:, 0] ** 2 / 2, x[:, 0] * x[:, 1], x[:, 1] ** 2 / 2, np.ones(len(x))], 1)
    log_data = g @ truth
    log_noise = -np.sum(x**2, 1) / (2 * spread**2) - np.log(2 * np.pi * spread**2)
    share = ratio / (np.exp(log_data - log_noise) + ratio)
    inverse = np.linalg.inv((share[:, None] * g).T @ g / len(x))
    mean = (share[:, None] * g).mean(0)
    covariance = inverse - (1 + 1 / ratio) * np.outer(inverse @ mean, inverse @ mean)
    assert seen == pytest.approx(np.trace(covariance), rel=0.2)


def test_what_cannot_be(key):
    data = np.zeros((20, 2))
    model = Precision(jnp.ones(3))
    for objective, text in (
        (NCE(noise=en.Gaussian(jnp.zeros(2)).rename(x="z")), "must be an energy of"),
        (NCE(noise=en.Ring()), "no exact draws"),
    ):
        with pytest.raises(ValueError, match=text):
            en.fit(model, data, objective, key=key, num_steps=1)
    positive = en.Ring().constrain(x=en.Interval(0.0, np.inf, (2,)))
    noise = NCE(noise=en.Gaussian(jnp.zeros(2)))  # its draws would be no values of x
    with pytest.raises(ValueError, match="whose draws would leave its support"):
        en.fit(positive, data + 1, noise, key=key, num_steps=1)
    with pytest.raises(ValueError, match="ratio= must be at least 1"):
        NCE(ratio=0)
    with pytest.raises(ValueError, match="noise_scale= must be positive"):
        CNCE(noise_scale=-1.0)

    @en.energy
    def tilted(x, u):
        return u * jnp.sum(x**2)

    rows = {"x": data, "u": np.ones(20)}
    with pytest.raises(ValueError, match=r"log Z for each state of 'u'.*'cnce'"):
        en.fit(tilted + model, rows, NCE(given="u"), key=key, num_steps=1)
