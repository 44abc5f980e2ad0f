"""Evaluation beside the training: held-out loss, callbacks, early stopping, tables."""

import csv
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import CHAINS, DATA, START, assert_equal, assert_equal_fits, train
from toy_objectives import Probe, ToyNCE

import energia as en
from energia.objectives import MLE

LOSS = "validation_loss"
HELD_OUT = np.random.default_rng(1).normal(1.0, 0.5, (70, 2)).astype(np.float32)


class Slope(en.Energy):
    """Its gradient moves theta up by one rate a step: the model that callbacks look at."""

    theta: jax.Array

    def __call__(self, x):
        return -self.theta + 0 * jnp.sum(x)


def climb(**kwargs: Any) -> en.Fit:
    """theta is the number of steps done."""
    return train(Slope(jnp.array(0.0)), objective=Probe(), optimizer=optax.sgd(1.0), **kwargs)


# --- held-out data


def test_the_validation_loss_is_that_of_the_objective():
    settings = {"objective": MLE(), "validation": HELD_OUT, "evaluate_every": 10}
    result = train(**settings)
    told = np.flatnonzero(~np.isnan(result.history[LOSS]))
    np.testing.assert_array_equal(told, [9, 19, 29, 39])
    for step in told:
        energy = train(objective=MLE(), num_steps=int(step) + 1).energy
        rows = HELD_OUT[:69]  # three batches of 23
        expected = MLE().loss(energy, None, {"x": jnp.asarray(rows)}, None, jax.random.key(0))[0]
        assert result.history[LOSS][step] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [None, pytest.param(CHAINS, marks=pytest.mark.slow), ToyNCE()],
    ids=["dsm", "pcd", "learned"],
)
def test_to_look_changes_nothing(objective):
    looked = train(
        objective=objective,
        validation=HELD_OUT,
        callback=lambda fit: {"steps": fit.num_steps},
        evaluate_every=7,
    )
    plain = train(objective=objective)
    for name in ("energy", "ema_energy", "learned", "ema_learned"):
        assert_equal(getattr(looked, name), getattr(plain, name))
    for name in plain.history:
        np.testing.assert_array_equal(looked.history[name], plain.history[name])
    assert np.isfinite(looked.history[LOSS][6::7]).all()


@pytest.mark.slow
def test_held_out_data_are_augmented_as_the_data_are():
    def augment(datum, key):
        return {"x": datum["bytes"] / 100.0}

    settings = {"objective": MLE(), "evaluate_every": 10, "num_steps": 10}
    numbers = np.random.default_rng(2).integers(0, 255, (64, 2), np.uint8)
    raw = train(
        data={"bytes": numbers}, validation={"bytes": numbers[:32]}, augment=augment, **settings
    )
    direct = train(data=numbers / 100, validation=numbers[:32] / 100, **settings)
    assert raw.history[LOSS][9] == pytest.approx(direct.history[LOSS][9], rel=1e-5)


def test_another_number_compiles_nothing(compilations):
    def look(fit):
        return {"steps": fit.num_steps}

    settings = {"validation": HELD_OUT, "callback": look}
    train(evaluate_every=10, patience=2, **settings)
    with compilations() as seen:
        train(evaluate_every=3, patience=30, num_steps=50, key=jax.random.key(5), **settings)
    assert seen.count == 0, seen.compiled


# --- callbacks


def test_a_callback_sees_what_would_be_returned_and_may_keep_it():
    seen = []
    train(callback=seen.append, evaluate_every=15)
    assert [fit.num_steps for fit in seen] == [15, 30]
    for fit in seen:
        assert_equal_fits(fit, train(num_steps=fit.num_steps))


def test_what_a_callback_gives_joins_the_history():
    result = climb(
        callback=lambda fit: {"square": fit.energy.theta**2} if fit.num_steps > 10 else None,
        evaluate_every=10,
    )
    np.testing.assert_array_equal(
        result.history["square"][[9, 19, 29, 39]], [np.nan, 400, 900, 1600]
    )
    assert np.isnan(result.history["square"]).sum() == 37


def test_a_callback_ends_the_training(tmp_path):
    def until(limit):
        def callback(fit):
            if fit.energy.theta >= limit:
                raise StopIteration("high enough")

        return callback

    settings = {"evaluate_every": 4, "checkpoint": tmp_path}
    result = climb(callback=until(10), **settings)
    assert (result.num_steps, result.stopped, float(result.energy.theta)) == (12, "high enough", 12)
    assert_equal_fits(climb(callback=until(10), **settings), result)
    assert climb(callback=until(20), **settings).num_steps == 20
    assert climb(**settings).num_steps == 40


def test_the_error_of_a_callback_comes_through():
    def callback(fit):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(callback=callback, evaluate_every=10)


# --- early stopping


def u_shaped(fit):
    return {LOSS: (fit.energy.theta - 14.0) ** 2}


def test_early_stopping_keeps_the_best():
    result = climb(callback=u_shaped, evaluate_every=4, patience=3)
    # theta 12 and 16 tie: the first counts
    assert float(result.energy.theta) == 12
    assert result.num_steps == 24
    assert result.stopped == (
        "no lower validation_loss in 3 evaluations: the parameters are those after 12 steps"
    )
    assert result.history["loss"].shape == (24,)
    assert_equal(result.ema_energy, climb(num_steps=12).ema_energy)


def test_the_best_comes_back_where_patience_lasts():
    result = climb(callback=u_shaped, evaluate_every=4, patience=100)
    assert (result.num_steps, result.stopped, float(result.energy.theta)) == (40, None, 12)


def test_early_stopping_on_held_out_data():
    # the training drives the mean away from where the held-out data are
    result = train(
        objective=MLE(),
        validation=HELD_OUT - 0.85,
        evaluate_every=10,
        patience=2,
        num_steps=2000,
    )
    losses = result.history[LOSS]
    assert result.num_steps < 500
    best = int(np.nanargmin(losses)) + 1
    assert result.num_steps == best + 20
    assert_equal(result.energy, train(objective=MLE(), num_steps=best).energy)


@pytest.mark.parametrize("cut", [8, 13, 20, 24])
def test_early_stopping_is_resumed_bit_for_bit(cut, tmp_path):
    settings = {"callback": u_shaped, "evaluate_every": 4, "patience": 3}
    climb(checkpoint=tmp_path, num_steps=cut, checkpoint_every=5, **settings)
    resumed = climb(checkpoint=tmp_path, **settings)
    assert_equal_fits(resumed, climb(**settings))
    assert resumed.stopped == climb(**settings).stopped
    patient = climb(checkpoint=tmp_path, **{**settings, "patience": 5})
    assert_equal_fits(patient, climb(**{**settings, "patience": 5}))


@pytest.mark.parametrize("look", [{"validation": HELD_OUT}, {"callback": lambda fit: {LOSS: 1.0}}])
def test_a_checkpoint_without_early_stopping_is_refused(look, tmp_path):
    settings = {**look, "evaluate_every": 10, "checkpoint": tmp_path}
    train(num_steps=10, **settings)
    with pytest.raises(ValueError, match="written with another early stopping"):
        train(patience=2, **settings)


def test_a_validation_loss_that_is_not_finite_stops():
    class Edge(en.Energy):
        theta: jax.Array

        def __call__(self, x):
            return jnp.where((self.theta > 10) & (x[0] > 5), jnp.nan, -self.theta) + 0 * jnp.sum(x)

    with pytest.warns(en.TrainingWarning, match="validation_loss was not finite after 12 steps"):
        result = train(
            Edge(jnp.array(0.0)),
            objective=Probe(),
            optimizer=optax.sgd(1.0),
            validation=HELD_OUT + 10,
            evaluate_every=4,
        )
    assert float(result.energy.theta) == 12


def test_a_loss_of_the_callback_that_is_not_finite_stops():
    with pytest.warns(en.TrainingWarning, match="validation_loss was not finite after 12 steps"):
        result = climb(
            callback=lambda fit: {LOSS: np.nan if fit.num_steps > 10 else -fit.num_steps},
            evaluate_every=4,
            patience=5,
        )
    assert float(result.energy.theta) == 8


# --- tables


def test_the_history_as_a_table(tmp_path):
    path = tmp_path / "history.csv"
    result = climb(
        callback=lambda fit: {"half": fit.energy.theta / 2},
        evaluate_every=20,
    )
    result.to_csv(path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    for name, values in result.history.items():
        read = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_allclose(read, values, rtol=1e-6)
    assert [row["half"] for row in rows if row["half"]] == ["10.0", "20.0"]


# --- bad input


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"callback": lambda fit: 3.0}, TypeError, "None or a dict of numbers.*3.0"),
        ({"callback": lambda fit: {"a": np.ones(2)}}, TypeError, "dict of numbers"),
        ({"callback": lambda fit: {"loss": 1.0}}, ValueError, r"gives \['loss'\], which"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every= must be at least 1"),
        ({"patience": 3}, ValueError, "waits for a lower validation_loss: give"),
        ({"patience": 0, "validation": DATA}, ValueError, "patience= must be at least 1"),
        ({"patience": 3, "callback": lambda fit: {"a": 1}}, ValueError, r"gives \['a'\]: return"),
        ({"validation": DATA[:, :1]}, ValueError, r"validation= for 'x' must have shape"),
        ({"validation": {"z": DATA}}, ValueError, r"validation= holds 'z'.*the data 'x': float32"),
        ({"validation": DATA * np.nan}, ValueError, "validation= for 'x' has .* not finite"),
    ],
)
def test_bad_input(settings, error, text):
    with pytest.raises((error, Exception), match=text) as raised:
        train(START, **{"evaluate_every": 10, **settings})
    assert isinstance(raised.value, error) or "Type-check" in str(raised.value)
