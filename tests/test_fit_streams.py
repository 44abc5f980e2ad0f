"""Batches from files and iterables: the same as from memory, read ahead, with no step lost."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.core import Tracer
from short_fits import CHAINS, DATA, LINE, ROWS, assert_equal_fits, drawn, train
from toy_objectives import Probe, ToyNCE

import energia as en
from energia.training import _loop, _stream

# --- memory-mapped arrays


def in_file(folder: Path, rows: np.ndarray, name: str = "rows.npy") -> Any:
    np.save(folder / name, rows)
    return np.load(folder / name, mmap_mode="r")


@pytest.mark.parametrize(
    "objective",
    [None, CHAINS, pytest.param(ToyNCE(), marks=pytest.mark.slow)],
    ids=["dsm", "pcd", "learned"],
)
def test_a_file_gives_what_memory_gives(objective, tmp_path):
    settings = {"objective": objective, "num_steps": 53}  # epochs of 8 steps
    assert_equal_fits(train(data=in_file(tmp_path, DATA), **settings), train(**settings))


def test_a_run_on_a_file_is_resumed_bit_for_bit(tmp_path):
    data = in_file(tmp_path, DATA)
    train(data=data, checkpoint=tmp_path, num_steps=21)
    assert_equal_fits(train(data=data, checkpoint=tmp_path), train())
    changed = np.where(np.arange(256)[:, None] == 17, 0, DATA)
    with pytest.raises(ValueError, match="written with another data"):
        train(data=in_file(tmp_path, changed, "other.npy"), checkpoint=tmp_path, num_steps=60)


@pytest.mark.slow
def test_files_and_arrays_of_other_kinds_stand_side_by_side(tmp_path):
    def augment(datum, key):
        return {"x": datum["bytes"] / 100.0 + datum["offset"]}

    numbers = np.random.default_rng(2).integers(0, 255, (100, 2), np.uint8)
    offset = np.linspace(0, 1, 100).astype(np.float32)
    settings = {"augment": augment, "batch_size": 30}
    mapped = {"bytes": in_file(tmp_path, numbers), "offset": offset}
    expected = train(data={"bytes": numbers, "offset": offset}, **settings)
    assert_equal_fits(train(data=mapped, **settings), expected)


def test_a_file_is_never_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "SAMPLE_BYTES", 4000)  # of 80,000: 500 rows
    rows = np.random.default_rng(0).normal(size=(10_000, 2)).astype(np.float32)
    sizes = []
    check = _stream.Stream._checked

    def spy(self, batch, what):
        sizes.append({name: len(array) for name, array in batch.items()})
        return check(self, batch, what)

    monkeypatch.setattr(_stream.Stream, "_checked", spy)
    begun = _stream.sample({"x": in_file(tmp_path, rows)})["x"]
    assert begun.shape == (500, 2)
    np.testing.assert_array_equal(begun[[0, -1]], rows[[0, -1]])
    train(data=in_file(tmp_path, rows), objective=CHAINS, num_steps=20)
    assert sizes == [{"x": 32}] * 20


def test_rows_of_a_file_are_checked_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "SAMPLE_BYTES", 800)
    rows = np.where(np.isin(np.arange(256), np.linspace(0, 255, 100).astype(int)), 1.0, np.nan)
    with pytest.raises(ValueError, match=r"batch 0 of the data for 'x' has .* not finite"):
        train(data=in_file(tmp_path, np.stack([rows, rows], 1).astype(np.float32)))


def test_a_file_of_the_wrong_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have shape \(rows, 2\).*got \(256, 1\)"):
        train(data=in_file(tmp_path, DATA[:, :1]))
    pair = {"x": in_file(tmp_path, DATA, "x.npy"), "z": in_file(tmp_path, DATA[:9], "z.npy")}
    with pytest.raises(ValueError, match="as many rows for each variable"):
        train(LINE + LINE.rename(x="z"), data={n: a[:, :1] for n, a in pair.items()})


# --- read ahead


def test_batches_are_read_while_the_device_computes(monkeypatch):
    advance, running, read = _loop.advance, threading.Event(), threading.Event()

    def spy(fixed, carry):
        if isinstance(fixed[2], Tracer):  # fit traces the step before it runs it
            return advance(fixed, carry)
        running.set()
        assert read.wait(timeout=60)  # in vain, unless another thread reads
        return advance(fixed, carry)

    def batches() -> Iterator[np.ndarray]:
        for batch in range(40):
            if batch == 16:  # the first that the first slice does not need
                assert running.wait(timeout=60)
                read.set()
            yield ROWS[:4] + batch

    monkeypatch.setattr(_loop, "advance", spy)
    rows = drawn(train(LINE, batches(), Probe(), num_steps=17))
    np.testing.assert_array_equal(rows[:, 0], np.arange(17))


def test_no_thread_reads_on_after_an_error(monkeypatch):
    """Whoever catches the error may read from the same iterator."""
    advance, reading, done = _loop.advance, threading.Event(), []

    def broken(fixed, carry):
        if isinstance(fixed[2], Tracer):
            return advance(fixed, carry)
        assert reading.wait(timeout=60)
        raise KeyboardInterrupt

    def batches() -> Iterator[np.ndarray]:
        for batch in range(40):
            if batch == 16:
                reading.set()
                time.sleep(0.2)
            done.append(batch)
            yield ROWS[:4] + batch

    monkeypatch.setattr(_loop, "advance", broken)
    with pytest.raises(KeyboardInterrupt):
        train(LINE, batches(), Probe(), num_steps=40)
    read = len(done)
    assert read > 16
    time.sleep(0.3)
    assert len(done) == read


@pytest.mark.slow
def test_what_another_thread_reads_has_the_precision_of_the_run():
    with jax.enable_x64(True):
        line = en.Gaussian(np.zeros(1))
        batches = [ROWS[:4] + batch + 1e-12 for batch in range(40)]
        rows = drawn(train(line, batches, Probe(), num_steps=40))
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows[:, 0], np.arange(40) + 1e-12)


def failing(count: int) -> Iterator[np.ndarray]:
    yield from (ROWS[:4] + batch for batch in range(count))
    raise OSError("the disk is gone")


@pytest.mark.parametrize("count", [0, 1, 5, 16, 21])
def test_an_error_while_reading_loses_no_step(count, tmp_path):
    def whole() -> Iterator[np.ndarray]:
        return (ROWS[:4] + batch for batch in range(60))

    settings = {"objective": Probe(), "optimizer": optax.sgd(1e-3), "checkpoint": tmp_path}
    with pytest.raises(OSError, match="the disk is gone"):
        train(LINE, failing(count), **settings)
    seen = []

    def watched() -> Iterator[np.ndarray]:
        for index, batch in enumerate(whole()):
            seen.append(index)
            yield batch

    resumed = train(LINE, watched(), **settings)
    np.testing.assert_array_equal(drawn(resumed)[:, 0], np.arange(40))
    assert_equal_fits(resumed, train(LINE, whole(), Probe(), optimizer=optax.sgd(1e-3)))
    assert seen == list(range(40))


@pytest.mark.parametrize("count", [1, 5, 16, 21])
def test_a_checkpoint_stands_at_the_step_before_the_error(count, tmp_path):
    settings = {"objective": Probe(), "optimizer": optax.sgd(1e-3), "checkpoint": tmp_path}
    with pytest.raises(OSError, match="the disk is gone"):
        train(LINE, failing(count), **settings)
    with pytest.warns(en.TrainingWarning, match=f"the data ended after {count} batches"):
        result = train(LINE, (ROWS[:4] + batch for batch in range(count)), **settings)
    np.testing.assert_array_equal(drawn(result)[:, 0], np.arange(count))
