"""The verb `fit`: what it trains, what it leaves, what it returns."""

import inspect
import re
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import (
    CHAINS,
    DATA,
    LINE,
    ROWS,
    START,
    Cliff,
    arrays,
    assert_equal,
    assert_equal_fits,
    moved,
    train,
)
from toy_objectives import CountedProbe, Probe, ToyNCE

import energia as en
from energia.objectives import DSM, PCD
from energia.training import _run

# --- what is trained


def test_a_network_that_stands_twice_stays_one(key):
    network = en.MLPEnergy(2, width=8, depth=1, key=key)
    result = train(network + network.rename(x="z"), {"x": DATA, "z": DATA[::-1]})
    one, two = result.energy.energies
    assert_equal(one, two.energy)
    assert_equal(result.ema_energy.energies[0], result.ema_energy.energies[1].energy)
    assert moved(one.network.layers[0], network.network.layers[0])


class Masked(en.Energy):
    scale: Any
    mask: Any = en.constant()

    def __call__(self, x):
        return jnp.sum(self.mask * (x * self.scale) ** 2)


@en.energy(x=en.Real((2,)))
def pulled(x, y):
    return jnp.sum((x - y) ** 2)


def test_only_the_model_moves_under_weight_decay(key):
    prior = en.Gaussian(jnp.ones(2), scale=2.0)
    model = en.MLPEnergy(2, width=8, depth=1, key=key)
    parts = en.mixture([en.Gaussian(jnp.ones(2)), en.Gaussian(-jnp.ones(2))], weights=[0.3, 0.7])
    masked = Masked(jnp.ones(2), jnp.array([1.0, 0.5]))
    energy = prior.freeze() + 0.5 * model + parts + masked + pulled.condition(y=3.0)
    result = train(energy, optimizer=optax.adamw(1e-2, weight_decay=0.5))
    for learned in (result.energy, result.ema_energy):
        frozen, scaled, mixture, masks, conditioned = learned.energies
        assert_equal(frozen.energy, prior)
        assert float(scaled.weight) == 0.5
        np.testing.assert_array_equal(mixture.log_weights, parts.log_weights)
        np.testing.assert_array_equal(masks.mask, masked.mask)
        assert float(conditioned.replacements["y"].value) == 3.0
        assert moved(masks.scale, masked.scale)
        assert moved(mixture.energies, parts.energies)
        weights = eqx.filter(scaled.energy, eqx.is_inexact_array)
        assert moved(weights, eqx.filter(model, eqx.is_inexact_array))


@pytest.mark.parametrize("scale", [1.0, np.ones(2), np.float64(1), jnp.ones(2)])
def test_floats_and_numpy_arrays_are_trained(scale):
    model = Masked(scale, np.ones(2))
    result = train(model)
    assert isinstance(result.energy.scale, jax.Array)
    assert result.energy.scale.shape == np.shape(scale)
    assert np.all(np.asarray(result.energy.scale) != 1)
    assert jax.tree.structure(result.energy) == jax.tree.structure(model)
    np.testing.assert_array_equal(result.energy.mask, np.ones(2))


def test_what_the_user_gave_is_neither_changed_nor_donated():
    model = en.Gaussian(jnp.zeros(2), covariance=jnp.eye(2))
    data, objective = jnp.asarray(DATA), ToyNCE()
    before = arrays((model, data, objective))
    for _ in range(2):
        train(model, data, objective)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((model, data, objective)))
        for old, new in zip(before, arrays((model, data, objective)), strict=True):
            np.testing.assert_array_equal(old, new)
    assert np.isfinite(model(jnp.ones(2)))


def test_data_may_be_changed_after_fit_returns():
    data = DATA.copy()
    first = train(data=data)
    data[:] = np.nan
    assert_equal(first.energy, train().energy)


def test_the_result_has_the_structure_of_the_model():
    result = train()
    assert jax.tree.structure(result.energy) == jax.tree.structure(START)
    assert jax.tree.structure(result.ema_energy) == jax.tree.structure(START)
    assert moved(result.energy, START)
    assert (result.learned, result.ema_learned, result.sampler) == (None, None, None)
    assert "40 steps" in repr(result)


def test_the_history_holds_a_number_for_each_step():
    history = train(objective=CHAINS).history
    told = {"loss", "gradient_norm", "positives", "negatives", "spread", "acceptance_rate"}
    assert set(history) == told
    for name, values in history.items():
        assert isinstance(values, np.ndarray), name
        assert values.shape == (40,)
        assert np.isfinite(values).all()
    difference = history["positives"] - history["negatives"]
    np.testing.assert_allclose(history["loss"], difference, atol=1e-4)


def test_the_gradient_norm_is_that_of_the_gradient():
    before = train(num_steps=1, optimizer=optax.sgd(1.0))
    step = [new - old for new, old in zip(arrays(before.energy), arrays(START), strict=True)]
    expected = np.sqrt(sum(np.sum(leaf**2) for leaf in step))
    assert before.history["gradient_norm"][0] == pytest.approx(expected, rel=1e-5)


def test_the_moving_average():
    result = train(ema_decay=0.0)
    assert_equal(result.ema_energy, result.energy)
    average = arrays(START)
    for step in range(4):
        decay = min(0.3, (1 + step) / (10 + step))
        now = arrays(train(num_steps=step + 1, ema_decay=0.3).energy)
        average = [decay * a + (1 - decay) * b for a, b in zip(average, now, strict=True)]
    for mine, theirs in zip(
        average, arrays(train(num_steps=4, ema_decay=0.3).ema_energy), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


# --- what is learned beside the energy


def test_learned_is_trained_but_for_its_constants():
    result = train(objective=ToyNCE())
    assert result.learned.activation is jnp.square
    assert float(result.learned.one) == float(result.ema_learned.one) == 1
    assert float(result.learned.log_partition) != 0
    assert float(result.ema_learned.log_partition) != float(result.learned.log_partition)


@pytest.mark.parametrize("rates", [(0.0, 1e-2), (1e-2, 0.0)])
def test_an_optimiser_for_each_part(rates):
    optimizers = {"learned": optax.sgd(rates[1]), "energy": optax.sgd(rates[0])}
    result = train(objective=ToyNCE(), optimizer=optimizers)
    assert moved(result.energy, START) == (rates[0] > 0)
    assert (float(result.learned.log_partition) != 0) == (rates[1] > 0)


# --- slices, and programs


@pytest.mark.parametrize("objective", [DSM(sigma=0.5), CHAINS], ids=["dsm", "pcd"])
def test_the_result_does_not_depend_on_where_slices_are_cut(objective, monkeypatch):
    settings = {
        "objective": objective,
        "optimizer": optax.adamw(1e-2),
        "num_steps": 100,
        "augment": shift,
    }
    expected = train(**settings)
    for seconds, first in ((0.0, 1), (0.0, 7), (100.0, 64)):
        monkeypatch.setattr(_run, "SLICE_SECONDS", seconds)
        monkeypatch.setattr(_run, "FIRST_STEPS", first)
        result = train(**settings)
        assert_equal_fits(result, expected)


def shift(datum, key):
    return {"x": datum["x"] + 0.01 * jax.random.normal(key, datum["x"].shape)}


def test_streams_do_not_depend_on_where_slices_are_cut(monkeypatch):
    batches = [DATA[32 * i : 32 * (i + 1)] for i in range(5)]
    expected = train(data=batches, num_steps=45)
    monkeypatch.setattr(_run, "SLICE_SECONDS", 0.0)
    assert_equal(train(data=batches, num_steps=45).energy, expected.energy)


@pytest.mark.parametrize("name", ["dsm", "pcd"])
def test_another_fit_compiles_nothing(name, compilations, key):
    def objective(sigma, step_size, num_steps):
        if name == "dsm":
            return DSM(sigma=sigma)
        kernel = en.samplers.Langevin(step_size=step_size)
        return PCD(sampler=kernel, num_steps=num_steps, buffer_size=64, reinit_prob=sigma / 10)

    train(objective=objective(0.5, 0.1, 2), optimizer=optax.adam(1e-3))
    model = en.Gaussian(jnp.ones(2), covariance=2 * jnp.eye(2))
    data, other = 3 * DATA, objective(0.3, 0.05, 3)
    with compilations() as seen:
        result = train(
            model, data, other, optimizer=optax.adam(1e-3), num_steps=1500, key=key, ema_decay=0.5
        )
        jax.block_until_ready(result.energy)
    assert seen.count == 0, seen.compiled
    assert result.num_steps == 1500


def test_an_objective_whose_state_is_weakly_typed_compiles_once(compilations):
    train(LINE, ROWS, CountedProbe(), batch_size=4, num_steps=20)
    with compilations() as seen:
        result = train(LINE, ROWS, CountedProbe(), batch_size=4, num_steps=40)
    assert seen.count == 0, seen.compiled
    np.testing.assert_array_equal(result.history["steps"], np.arange(1, 41))


RATE = 0.0


def make_schedule():
    def schedule(count):
        return RATE

    return schedule


def test_a_schedule_that_reads_a_global_is_taken_as_it_is_now(monkeypatch):
    assert_equal(train(optimizer=optax.sgd(make_schedule())).energy, START)
    monkeypatch.setitem(globals(), "RATE", 1e-2)
    assert moved(train(optimizer=optax.sgd(make_schedule())).energy, START)


# --- numbers that are not finite


@pytest.mark.parametrize("step", [0, 1, 20, 37])
def test_a_step_that_is_not_finite_keeps_the_last_good_state(step):
    cliff = Cliff(jnp.array(0.0), jnp.array(step - 0.5))
    settings = {"objective": Probe(), "optimizer": optax.sgd(1.0)}
    with pytest.warns(
        en.TrainingWarning, match=f"step {step} was not finite.*loss nan.*lower learn"
    ):
        result = train(cliff, **settings)
    assert result.num_steps == step
    assert float(result.energy.theta) == step
    assert all(values.shape == (step,) for values in result.history.values())
    assert np.isfinite(result.history["loss"]).all()
    assert f"step {step}" in str(result.stopped)
    if step:
        good = train(cliff, **settings, num_steps=step)
        assert good.stopped is None
        assert_equal((good.energy, good.ema_energy), (result.energy, result.ema_energy))


def test_a_huge_learning_rate_stops_and_keeps_finite_parameters():
    with pytest.warns(en.TrainingWarning, match="not finite"):
        result = train(optimizer=optax.sgd(1e30))
    assert result.num_steps < 40
    for leaf in arrays((result.energy, result.ema_energy)):
        assert np.isfinite(leaf).all()


def test_the_warning_points_at_the_line_that_called_fit():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit = inspect.unwrap(en.fit)  # without the type checker of the tests, a frame more
        fit(Cliff(jnp.array(1.0), jnp.array(0.0)), DATA, Probe(), key=jax.random.key(0))
    assert [warning.filename for warning in seen] == [__file__]


# --- gradient accumulation


def test_multi_steps_averages_gradients_over_batches():
    rows = np.tile(DATA[:64], (4, 1))  # so that a large batch is four small ones
    batches = [rows[i : i + 16] for i in range(0, 64, 16)]
    exact = en.objectives.MLE()
    large = train(data=[rows[:64]], objective=exact, num_steps=10, ema_decay=0.0)
    accumulated = optax.MultiSteps(optax.adamw(1e-2), every_k_schedule=4)
    small = train(data=batches, objective=exact, num_steps=40, optimizer=accumulated, ema_decay=0.0)
    for one, two in zip(arrays(small.energy), arrays(large.energy), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    held = train(data=batches, objective=exact, num_steps=3, optimizer=accumulated)
    assert_equal(held.energy, START)


def test_multi_steps_compiles_once_keeps_ties_and_is_resumed(tmp_path, compilations, key):
    def accumulated():
        return optax.MultiSteps(optax.adamw(1e-2), every_k_schedule=3)

    network = en.MLPEnergy(2, width=8, depth=1, key=key)
    settings: dict[str, Any] = {
        "model": network + network.rename(x="z"),
        "data": {"x": DATA, "z": DATA[::-1]},
        "checkpoint_every": 10,
    }
    whole = train(**settings, optimizer=accumulated())
    with compilations() as seen:
        train(**settings, optimizer=accumulated(), num_steps=20, checkpoint=tmp_path)
    assert seen.count == 0, seen.compiled
    resumed = train(**settings, optimizer=accumulated(), checkpoint=tmp_path)
    assert_equal_fits(resumed, whole)
    one, two = resumed.energy.energies
    assert_equal(one, two.energy)


# --- progress


def test_the_progress_line_without_a_terminal_has_no_control_characters(capsys):
    result = train(objective=CHAINS, validation=DATA[:64], evaluate_every=20, progress=True)
    lines = capsys.readouterr().err.split("\n")
    assert lines[-1] == ""
    assert all(line.isprintable() for line in lines)
    words = r"^PCD  100%  40/40  .* steps/s  in .*  loss \S+  gap \S+  gradient \S+  acceptance \S+"
    assert re.match(words + r"  validation_loss (\S+)$", lines[-2])
    told = float(lines[-2].split()[-1])
    assert told == pytest.approx(result.history["validation_loss"][-1], 1e-3)


def test_the_progress_line_tells_means_of_the_last_slice(capsys):
    result = train(progress=True, num_steps=16)
    line = capsys.readouterr().err
    told = dict(re.findall(r"(loss|gradient) (\S+)", line))
    assert "gap" not in line
    assert float(told["loss"]) == pytest.approx(np.mean(result.history["loss"]), 1e-3)
    assert float(told["gradient"]) == pytest.approx(np.mean(result.history["gradient_norm"]), 1e-3)
