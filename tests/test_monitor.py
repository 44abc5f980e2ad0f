"""Failures of training: named at the step where they began, rolled back; healthy runs go on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import CHAINS, DATA, arrays, assert_equal, assert_equal_fits, train
from sklearn.datasets import load_digits

import energia as en
from energia.objectives import CD, PCD
from energia.samplers import Langevin
from energia.training._monitor import find


class Centre(en.Energy):
    """A Gaussian of unit variance whose mean is learned."""

    mean: jax.Array

    def __call__(self, x):
        return 0.5 * jnp.sum((x - self.mean) ** 2)


CENTRE = Centre(jnp.zeros(2)).constrain(x=en.Real((2,)))
BASE = en.Gaussian(jnp.zeros(2)).freeze()
NETWORK = en.MLPEnergy(2, width=16, depth=2, key=jax.random.key(1)) + BASE

RELU = en.MLPEnergy(2, width=16, depth=2, activation=jax.nn.relu, key=jax.random.key(1))


def chains(**kwargs: Any) -> PCD:
    return PCD(**{"num_steps": 3, "buffer_size": 128, **kwargs})


# --- what is read off a history


def history(**columns: Any) -> dict[str, np.ndarray]:
    steps = max(np.size(values) for values in columns.values())
    columns = {"loss": 0.0, "positives": 0.0, "negatives": 0.0, "spread": 1.0, **columns}
    return {name: np.broadcast_to(values, steps) for name, values in columns.items()}


STEPS = np.arange(3000.0)


@pytest.mark.parametrize(
    ("columns", "began", "text"),
    [
        ({"negatives": 1.01**STEPS}, 805, "energies explode"),
        ({"positives": -(1.01**STEPS)}, 805, "energies explode"),
        ({"loss": 1.01**STEPS}, 805, "energies explode"),
        ({"spread": np.maximum(np.exp(-STEPS / 100), 1e-6)}, 300, "samples collapse"),
        ({"positives": 1.001**STEPS}, 1976, "higher energies"),
        ({"gradient_norm": np.maximum(1000 - STEPS, 0)}, 1000, "gradient is exactly zero"),
    ],
)
def test_what_fails_is_named_where_it_began(columns, began, text):
    whole = history(**columns)
    first = next(
        n for n in range(len(STEPS)) if find({k: v[:n] for k, v in whole.items()}, 2, False)
    )
    failure = find({k: v[:first] for k, v in whole.items()}, 2, False)
    assert failure is not None
    assert text in failure.text
    assert abs(failure.began - began) <= 1 or "explode" not in text
    assert failure.began <= first <= failure.began + 1024
    assert failure.roll_back == ("explode" in text)


NOISE = np.random.default_rng(0).normal(size=3000)


@pytest.mark.parametrize(
    "columns",
    [
        {"loss": -(1.01**STEPS)},  # a loss without a bound below
        {"loss": 1e7 * np.exp(-STEPS / 300), "positives": 1e7 * np.exp(-STEPS / 300)},
        {"negatives": np.where(STEPS % 500 < 3, 1e9, 1.0)},  # outliers
        {"spread": 0.01 * 1.001**STEPS},  # chains that widen
        {"positives": 0.3 + 0.1 * NOISE},  # a bias of the sampler
        {"positives": 100 * np.exp(-STEPS / 2000) + NOISE},  # slow, but it goes down
        {"positives": 5e5 + STEPS, "negatives": 5e5 + STEPS},  # the free constant drifts
    ],
)
def test_what_is_healthy_is_left_alone(columns):
    whole = history(**columns)
    for n in range(0, 3001, 10):
        assert find({k: v[:n] for k, v in whole.items()}, 2, False) is None


# --- failures that are forced


def forced(match: str, model: Any, **kwargs: Any) -> en.Fit:
    with pytest.warns(en.TrainingWarning, match=match):
        result = train(model, **{"num_steps": 3000, "optimizer": optax.adam(1e-3), **kwargs})
    assert str(result.stopped).endswith(f"The parameters are those after {result.num_steps} steps")
    for values in result.history.values():
        assert len(values) == result.num_steps
    return result


def test_a_learning_rate_of_ten_gives_the_model_back():
    settings = {"objective": chains(), "optimizer": optax.adam(10.0)}
    result = forced("from step 1 on the energies explode.*lower learning rate", NETWORK, **settings)
    assert result.num_steps == 0
    assert_equal(result.energy, NETWORK)
    assert_equal(result.ema_energy, NETWORK)


def test_an_explosion_is_rolled_back_to_what_was_good():
    schedule = optax.piecewise_constant_schedule(1e-3, {300: 1e7})
    settings = {"objective": chains(), "optimizer": optax.adam(schedule)}
    result = forced("from step 30. on the energies explode", CENTRE, **settings)
    assert result.num_steps == 256
    assert_equal_fits(result, train(CENTRE, **{**settings, "num_steps": 256}))


def test_an_explosion_without_chains():
    result = forced("energies explode", NETWORK, optimizer=optax.adam(10.0))  # 'dsm'
    assert result.num_steps < 50


@pytest.mark.parametrize("every", [10, 96])
def test_a_run_that_explodes_does_so_again(every, tmp_path):
    schedule = optax.piecewise_constant_schedule(1e-3, {300: 1e7})
    settings = {"objective": chains(), "optimizer": optax.adam(schedule)}
    settings |= {"checkpoint": tmp_path, "checkpoint_every": every}
    first = forced("from step 30. on the energies explode", CENTRE, **settings)
    again = forced("from step 30. on the energies explode", CENTRE, **settings)
    assert_equal_fits(first, again)
    assert first.stopped == again.stopped
    assert 256 <= first.num_steps <= 300


@pytest.mark.slow
def test_steps_of_the_sampler_that_are_far_too_large():
    result = forced(
        "energies explode|not finite", NETWORK, objective=chains(sampler=Langevin(step_size=3.0))
    )
    assert result.num_steps < 100
    assert all(np.isfinite(leaf).all() for leaf in arrays(result.energy))


def test_chains_without_noise_collapse():
    still = chains(sampler=Langevin(step_size=0.2, noise_scale=0.0), reinit_prob=0.0)
    result = forced("samples collapse.*reinit_prob", CENTRE, objective=still)
    assert result.num_steps < 1024
    began = int(str(result.stopped).split()[2])
    assert np.all(result.history["spread"][began:] <= 0.05)
    assert result.history["spread"][began - 1] > 0.05


@pytest.mark.slow
def test_a_network_whose_units_are_switched_off_is_told():
    dead = jax.tree.map(lambda leaf: leaf - 100 if eqx.is_array(leaf) else leaf, RELU)
    result = forced("gradient is exactly zero", dead)
    assert result.num_steps <= 1024
    assert str(result.stopped).startswith("from step 0 on")
    assert len(train(RELU, num_steps=1500).history["loss"]) == 1500


@pytest.mark.slow
def test_training_that_drives_data_and_samples_apart():
    ascent = optax.sgd(-2e-3)
    exact = chains(sampler=Langevin(step_size=0.3), num_steps=10, reinit_prob=0.0)
    result = forced(
        "data have higher energies than the samples", CENTRE, objective=exact, optimizer=ascent
    )
    assert result.num_steps <= 2048
    assert np.mean(np.square(result.energy.energy.mean - DATA.mean(0))) > 1


# --- runs that are healthy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["langevin", "short runs", "rbm", "cd"])
def test_digits_are_learned_without_a_warning(name, key):
    digits = np.asarray(load_digits(return_X_y=True)[0]) / 16.0
    network = en.MLPEnergy(64, width=64, depth=2, key=key).constrain(x=en.Interval(0, 1, 64))
    langevin = Langevin(step_size=0.05)
    model, data, objective = {
        "langevin": (network, digits, chains(sampler=langevin, num_steps=10)),
        "short runs": (network, digits, chains(sampler=langevin, reinit_prob=1.0)),
        "rbm": (en.RBM(64, 32, key=key), (digits > 0.5) * 1.0, chains(num_steps=1)),
        "cd": (en.RBM(64, 32, key=key), (digits > 0.5) * 1.0, CD()),
    }[name]
    result = train(
        model, data, objective, num_steps=1500, batch_size=64, optimizer=optax.adam(1e-3)
    )
    assert (result.num_steps, result.stopped) == (1500, None)


@pytest.mark.slow
def test_data_of_another_scale_are_learned_without_a_warning():
    rows = 3000.0 + 300.0 * DATA
    exact = PCD(sampler=Langevin(step_size=0.1), num_steps=3, buffer_size=128)
    model = en.Gaussian(jnp.zeros(2), covariance=jnp.eye(2))
    result = train(model, rows, exact, num_steps=1500, optimizer=optax.adam(1e-2))
    assert (result.num_steps, result.stopped) == (1500, None)
    assert np.median(result.history["positives"][:5]) > 1e6


@pytest.mark.slow
def test_an_explosion_is_found_wherever_slices_are_cut(monkeypatch):
    from energia.training import _run

    settings = {"objective": CHAINS, "optimizer": optax.adam(3.0)}
    expected = forced("energies explode", NETWORK, **settings)
    monkeypatch.setattr(_run, "SLICE_SECONDS", 0.0)
    result = forced("energies explode", NETWORK, **settings)
    assert_equal_fits(result, expected)
    assert result.stopped == expected.stopped


# --- the spread of samples


def test_the_spread_is_that_of_samples_over_that_of_data(key):
    # one Langevin step without noise on the Gaussian of unit variance shrinks towards its mean
    still = Langevin(step_size=0.75, noise_scale=0.0)
    batch = {"x": jnp.asarray(DATA)}
    told = CD(sampler=still, num_steps=2).loss(CENTRE, None, batch, None, key)[2]
    assert float(told["spread"]) == pytest.approx(0.25**2, rel=1e-4)
    alike = {"x": jnp.ones((8, 2))}
    assert float(CD(sampler=still).loss(CENTRE, None, alike, None, key)[2]["spread"]) == 1


def test_the_spread_leaves_out_what_is_given(key):
    @en.energy(x=en.Real((2,)), y=en.Real())
    def labelled(x, y):
        return 0.5 * jnp.sum(x**2) + 0 * y

    batch = {"x": jnp.asarray(DATA), "y": 1e3 * jnp.arange(256.0)}
    still = Langevin(step_size=0.75, noise_scale=0.0)
    told = CD(sampler=still, given="y").loss(labelled, None, batch, None, key)[2]
    assert float(told["spread"]) == pytest.approx(0.25, rel=1e-4)
