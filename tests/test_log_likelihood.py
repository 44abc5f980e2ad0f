"""Likelihoods of data against NumPy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from test_log_partition import enumerated, rbm_of

import energia as en
from energia.evaluate import log_likelihood, log_partition


def rows_of(rbm: en.RBM, count: int = 40) -> np.ndarray:
    return (np.random.default_rng(3).uniform(size=(count, len(rbm.visible_bias))) < 0.5) * 1.0


def by_numpy(rbm: en.RBM, rows: np.ndarray) -> np.ndarray:
    weights, visible, hidden = (
        np.asarray(a, float) for a in (rbm.weights, rbm.visible_bias, rbm.hidden_bias)
    )
    free = rows @ visible + np.logaddexp(0, hidden + rows @ weights).sum(1)
    return free - enumerated(rbm)


def test_boltzmann_machine():
    rbm = rbm_of(0)
    rows = rows_of(rbm)
    result = log_likelihood(rbm, rows)
    expected = by_numpy(rbm, rows)
    np.testing.assert_allclose(result.per_datum, expected, rtol=1e-5)
    assert result.log_partition.method == "exact"
    assert result.value == pytest.approx(expected.mean(), rel=1e-5)
    assert float(result) == result.value
    assert result.stderr == pytest.approx(expected.std(ddof=1) / math.sqrt(len(rows)), rel=1e-4)
    assert result.bits_per_dimension == pytest.approx(-expected.mean() / 12 / math.log(2), rel=1e-5)
    assert result.lower == pytest.approx(result.upper)
    assert "40 rows" in repr(result)
    for same in ({"v": rows}, rows > 0.5):
        np.testing.assert_array_equal(log_likelihood(rbm, same).per_datum, result.per_datum)


def test_both_layers_are_data():
    rbm = rbm_of(0)
    rows = rows_of(rbm)
    both = {"v": rows, "h": rows[:, :8]}
    result = log_likelihood(rbm, both)
    energies = [float(rbm(v=v, h=h)) for v, h in zip(rows, rows[:, :8], strict=True)]
    expected = -np.array(energies) - enumerated(rbm)
    np.testing.assert_allclose(result.per_datum, expected, rtol=1e-5)
    assert result.bits_per_dimension == pytest.approx(-expected.mean() / 20 / math.log(2), rel=1e-5)


def test_the_smaller_layer_is_enumerated():
    rbm = rbm_of(5, num_visible=30, num_hidden=10, scale=0.3)
    result = log_likelihood(rbm, rows_of(rbm))
    assert result.log_partition.method == "exact"
    assert result.log_partition.value == pytest.approx(enumerated(rbm), rel=1e-6)


def test_both_sides(key):
    rbm = rbm_of(1)
    rows = rows_of(rbm)
    result = log_likelihood(rbm, rows, "bracket", key=key, num_steps=300)
    exact = by_numpy(rbm, rows).mean()
    assert result.log_partition.method == "bracket"
    assert result.lower < exact < result.upper
    assert abs(result.value - exact) < 4 * result.log_partition.stderr
    spread = by_numpy(rbm, rows).std(ddof=1) / math.sqrt(len(rows))
    error = math.hypot(spread, result.log_partition.stderr)
    assert result.stderr == pytest.approx(error, rel=1e-3)


def test_log_z_is_given():
    rbm = rbm_of(0)
    rows = rows_of(rbm)
    estimate = log_partition(rbm)
    for given in (estimate, estimate.value):
        result = log_likelihood(rbm, rows, log_partition=given)
        np.testing.assert_allclose(result.per_datum, by_numpy(rbm, rows), rtol=1e-5)
    with pytest.raises(ValueError, match="log_partition= must be finite"):
        log_likelihood(rbm, rows, log_partition=math.nan)


def test_a_density():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    result = log_likelihood(en.Gaussian(jnp.zeros(3)), rows)
    expected = -0.5 * (rows**2).sum(1) - 1.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(result.per_datum, expected, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    rbm = rbm_of(0)
    for data, message in (
        (np.zeros((3, 11)), r"must have shape \(rows, 12\)"),
        (np.zeros(12), r"must have shape \(rows, 12\)"),
        (np.zeros((0, 12)), "at least 1"),
        (np.full((3, 12), 0.5), "outside its support"),
        ({"w": np.zeros((3, 12))}, r"data has \['w'\]"),
        ({"v": np.zeros((3, 12)), "h": np.zeros((2, 8))}, "as many rows"),
    ):
        with pytest.raises(ValueError, match=message):
            log_likelihood(rbm, data)
    with pytest.raises(ValueError, match="method= must be one of"):
        log_likelihood(rbm, np.zeros((3, 12)), "guess")
    unknown = en.energy(lambda y: y**2)
    with pytest.raises(ValueError, match="the support of 'y' is unknown"):
        log_likelihood(unknown, np.zeros(3))
    free = en.energy(x=en.Real(), z=en.Real())(lambda x, z: x**2 * z**2 + z**4)
    with pytest.raises(ValueError, match="no closed form is known"):
        log_likelihood(free, np.zeros(3))


@pytest.mark.slow
def test_digits(key):
    """64-16 on scikit-learn's digits: above -18.46 test, of one run of its BernoulliRBM."""
    stored: Any = load_digits()
    digits = (stored.data > 8) * 1.0
    train, test = digits[:1437], digits[1437:]
    rbm = en.RBM(64, 16, data=train, key=key)
    base = log_likelihood(rbm, test).value  # independent pixels, near enough: -24.15
    assert base == pytest.approx(-24.15, abs=0.3)
    fit = en.fit(
        rbm,
        train,
        en.objectives.PCD(num_steps=5, buffer_size=512, reinit_prob=0.0),
        key=key,
        num_steps=2500,
        batch_size=256,
        optimizer=optax.adamw(optax.cosine_decay_schedule(0.02, 2500), weight_decay=0.03),
    )
    result = log_likelihood(fit.energy, test)
    assert result.log_partition.method == "exact"
    assert result.value > -18.46
    plain = fit.energy.with_offsets(v=0, h=0)
    assert by_numpy(plain, test).mean() == pytest.approx(result.value, abs=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::energia.evaluate.EvaluationWarning")  # few levels
def test_the_machine_of_2008(data_file):
    """CD25(500) of Salakhutdinov and Murray: log Z 451.28 (450.97 to 451.52), here 451.16."""
    stored = np.load(data_file("rbm_mnist_cd25_500.npz"))
    rbm = en.RBM.from_parameters(stored["W"], stored["visible_bias"], stored["hidden_bias"])
    rows = np.unpackbits(stored["test_packed"], axis=1)
    result = log_likelihood(rbm, rows, "ais", key=jax.random.key(0), num_chains=64, num_steps=2000)
    assert result.value + result.log_partition.value == pytest.approx(364.92593, abs=2e-3)
    assert abs(result.log_partition.value - 451.2) < 0.4 + 2 * result.log_partition.stderr
