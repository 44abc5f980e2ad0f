"""Data for `fit`: its forms, epochs, augmentation, streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_fits import LINE, ROWS, START, assert_equal, drawn, train
from toy_objectives import Probe

import energia as en
from energia.objectives import PCD
from energia.training._source import Source


def test_an_epoch_draws_without_replacement():
    rows = drawn(train(LINE, ROWS[:8], Probe(), batch_size=4, num_steps=80))
    epochs = rows.reshape(40, 8)
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 40  # each in an order of its own


def test_rows_that_do_not_fill_a_batch_come_in_another_epoch():
    rows = drawn(train(LINE, ROWS, Probe(), batch_size=4, num_steps=80)).reshape(40, 8)
    assert all(len(set(epoch)) == 8 for epoch in rows)
    counts = np.bincount(rows.astype(int).ravel(), minlength=10)
    assert counts.min() > 20, counts


@pytest.mark.parametrize(("rows", "expected"), [(1000, 128), (128, 128), (100, 100)])
def test_batch_size_by_default(rows, expected):
    source = Source(LINE, Probe(), np.zeros((rows, 1)), None, None, jax.random.key(0))
    assert source.batch_size == expected


def test_augment_gets_dicts_and_a_key_for_each_row():
    seen = []

    def augment(datum, key):
        seen.append({name: value.shape for name, value in datum.items()})
        return {"x": datum["x"] + jax.random.uniform(key, (1,))}

    result = train(LINE, ROWS, Probe(), batch_size=10, augment=augment)
    noise = drawn(result) % 1
    assert all(datum == {"x": (1,)} for datum in seen)
    assert len(np.unique(noise)) == noise.size  # another key for each row and step
    assert 0.3 < noise.mean() < 0.7
    assert set(np.floor(drawn(result)).ravel()) == set(range(10))


def test_augment_may_make_the_variables_of_other_data():
    def augment(datum, key):
        flip = jax.random.bernoulli(key)
        image = datum["pixels"].astype(float) / 255
        return {"x": jnp.where(flip, image, image[::-1])[:2]}

    pixels = np.random.default_rng(1).integers(0, 256, (64, 3), np.uint8)
    objective = PCD(sampler=en.samplers.Langevin(step_size=0.01), num_steps=1, buffer_size=64)
    result = train(
        START.constrain(x=en.Interval(0, 1, 2)), {"pixels": pixels}, objective, augment=augment
    )
    assert result.num_steps == 40
    assert result.stopped is None


@pytest.mark.parametrize(
    "data",
    [
        ROWS.ravel().tolist(),
        ROWS.ravel().astype(np.uint8),
        jnp.asarray(ROWS.ravel()),
        {"x": ROWS.ravel()},
    ],
    ids=["list", "bytes", "jax", "dict"],
)
def test_forms_of_data(data):
    expected = train(en.Gaussian(0.0), ROWS.ravel(), batch_size=4)
    assert_equal(train(en.Gaussian(0.0), data, batch_size=4).energy, expected.energy)


# --- streams


def test_a_list_of_batches_begins_again():
    batches = [ROWS[:4] + 10 * batch for batch in range(3)]
    rows = drawn(train(LINE, batches, Probe(), num_steps=50))
    np.testing.assert_array_equal(rows[:, 0], [10 * (step % 3) for step in range(50)])
    np.testing.assert_array_equal(rows[:, 3], rows[:, 0] + 3)


@pytest.mark.parametrize("num_steps", [1, 2, 16, 17])
def test_a_stream_is_read_no_further_than_needed(num_steps):
    read = []

    def batches():
        for batch in range(40):
            read.append(batch)
            yield {"x": ROWS[:4] + batch}

    rows = drawn(train(LINE, batches(), Probe(), num_steps=num_steps))
    np.testing.assert_array_equal(rows[:, 0], np.arange(num_steps))
    assert read == list(range(num_steps))


def test_a_generator_that_ends_stops_the_training():
    batches = (ROWS[:4] + batch for batch in range(23))
    with pytest.warns(en.TrainingWarning, match="ended after 23 batches"):
        result = train(LINE, batches, Probe(), num_steps=50)
    assert result.num_steps == 23
    assert result.history["loss"].shape == (23,)
    np.testing.assert_array_equal(drawn(result)[:, 0], np.arange(23))
    assert "ended" in str(result.stopped)
