"""Checkpoints of `fit`: resumed bit for bit, whole or not at all, refused where they do not fit."""

import contextlib
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import CHAINS, DATA, Cliff, assert_equal_fits, train
from toy_objectives import CountedProbe, ToyNCE

import energia as en
from energia.objectives import DSM
from energia.sampling import _storage
from energia.training import _checkpoint

OBJECTIVES = {"dsm": DSM(sigma=0.5), "pcd": CHAINS, "learned": ToyNCE(), "counted": CountedProbe()}


def run(folder: Any = None, **kwargs: Any) -> Any:
    settings = {"num_steps": 60, "ema_decay": 0.9, "checkpoint_every": 10, **kwargs}
    return train(checkpoint=folder, **settings)


class Killed(BaseException):
    """Stands for a signal."""


def train_until_killed(folder: Path, saves: int, before: bool = False, **kwargs: Any) -> str:
    """Die at the checkpoint of that number, before or after it is in place.

    Returns:
        The name of the file that the checkpoint was written to at first.
    """
    replace, sources = os.replace, []

    def dying(source, target):
        sources.append(os.path.basename(source))
        if before and len(sources) == saves:
            raise Killed
        replace(source, target)
        if len(sources) == saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_storage.os, "replace", dying)
        with pytest.raises(Killed):
            run(folder, **kwargs)
    return sources[-1]


# --- resume


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_cut_at_several_places_equals_the_whole_one(name, tmp_path):
    objective = OBJECTIVES[name]
    for saves in (1, 2, 2):
        train_until_killed(tmp_path, saves, objective=objective)
    assert_equal_fits(run(tmp_path, objective=objective), run(None, objective=objective))


def test_a_finished_run_returns_at_once(tmp_path, compilations):
    first = run(tmp_path)
    written = (tmp_path / _checkpoint.NAME).stat().st_mtime_ns
    with compilations() as seen:
        again = run(tmp_path)
    assert seen.count == 0, seen.compiled
    assert_equal_fits(again, first)
    assert (tmp_path / _checkpoint.NAME).stat().st_mtime_ns == written


def test_more_steps_go_on(tmp_path):
    run(tmp_path, num_steps=25)
    assert_equal_fits(run(tmp_path, num_steps=60), run())


def test_fewer_steps_than_were_done_are_refused(tmp_path):
    run(tmp_path, num_steps=25)
    with pytest.raises(ValueError, match="at step 25, beyond num_steps=20"):
        run(tmp_path, num_steps=20)


def test_another_spacing_of_checkpoints_changes_nothing(tmp_path):
    run(tmp_path, num_steps=25, checkpoint_every=7)
    assert_equal_fits(run(tmp_path, checkpoint_every=1), run())


def test_a_stream_is_resumed_where_it_was(tmp_path):
    batches = [DATA[32 * i : 32 * (i + 1)] for i in range(7)]
    run(tmp_path, data=batches, num_steps=25)
    assert_equal_fits(run(tmp_path, data=batches), run(None, data=batches))


def test_a_stream_that_ended_may_go_on_with_more(tmp_path):
    def batches(count):
        return (DATA[32 * (i % 8) : 32 * (i % 8 + 1)] for i in range(count))

    with pytest.warns(en.TrainingWarning, match="ended after 30 batches"):
        run(tmp_path, data=batches(30))
    with pytest.warns(en.TrainingWarning, match="ended after 30 batches"):
        assert run(tmp_path, data=batches(30)).num_steps == 30
    assert_equal_fits(run(tmp_path, data=batches(100)), run(None, data=batches(100)))


def test_a_run_that_went_wrong_does_so_again(tmp_path):
    cliff = Cliff(jnp.array(0.0), jnp.array(24.5))
    settings = {"model": cliff, "optimizer": optax.sgd(1.0), "objective": CountedProbe()}
    stopped = "step 25 was not finite.*steps 26"  # the state of the step that failed is not kept
    with pytest.warns(en.TrainingWarning, match=stopped):
        first = run(tmp_path, **settings)
    with pytest.warns(en.TrainingWarning, match=stopped):
        again = run(tmp_path, **settings)
    assert_equal_fits(first, again)
    assert first.num_steps == 25


def test_parameters_in_half_precision(tmp_path):
    model = en.MLPEnergy(2, width=4, depth=1, key=jax.random.key(1))
    half = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_array(leaf) else leaf, model
    )
    run(tmp_path, model=half, num_steps=20)
    resumed = run(tmp_path, model=half, num_steps=40)
    assert_equal_fits(resumed, run(None, model=half, num_steps=40))
    assert resumed.energy.network.layers[0].weight.dtype == jnp.bfloat16


# --- whole or not at all


def test_a_checkpoint_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    train_until_killed(tmp_path, 2, before=True)
    _, meta = _storage.read_npz(tmp_path / _checkpoint.NAME, _checkpoint.FORMAT)
    assert meta["step"] == 10
    assert_equal_fits(run(tmp_path), run())


def test_what_a_killed_process_left_is_removed(tmp_path):
    stale = tmp_path / train_until_killed(tmp_path, 1)
    stale.write_bytes(b"half")
    (tmp_path / ".notes.tmp").write_bytes(b"kept")
    run(tmp_path, num_steps=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.tmp", _checkpoint.NAME]


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "flipped", "another file"])
def test_a_damaged_checkpoint_says_so(damage, tmp_path):
    run(tmp_path, num_steps=10)
    path = tmp_path / _checkpoint.NAME
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF
    damaged = {
        "empty": b"",
        "truncated": bytes(content[: len(content) // 2]),
        "garbage": np.random.default_rng(0).bytes(1000),
        "flipped": bytes(content),
    }
    if damage == "another file":
        np.savez(path, x=np.ones(3))
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"is damaged: .*Delete .*checkpoint\.npz to begin again"):
        run(tmp_path, num_steps=10)


@pytest.mark.slow
def test_no_flipped_byte_gives_another_error(tmp_path):
    run(tmp_path, num_steps=10)
    path = tmp_path / _checkpoint.NAME
    content = path.read_bytes()
    expected = _storage.read_npz(path, _checkpoint.FORMAT)[0]
    generator = np.random.default_rng(1)
    for _ in range(300):
        changed = bytearray(content)
        changed[generator.integers(len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            saved = _checkpoint.load(tmp_path, {})
            assert saved is not None  # the byte was one that nothing reads
            for index, array in enumerate(saved.arrays):
                np.testing.assert_array_equal(array, expected[f"train/{index}"])


# --- what must be the same


def flip(datum, key):
    return {"x": datum["x"][::-1]}


ANOTHER = {
    "model": {"model": en.Gaussian(jnp.ones(2), covariance=jnp.eye(2))},
    "objective": {"objective": DSM(sigma=0.4)},
    "optimizer": {"optimizer": optax.adamw(2e-2)},
    "data": {"data": np.where(np.arange(256)[:, None] == 128, 0, DATA)},
    "key": {"key": jax.random.key(1)},
    "batch_size": {"batch_size": 16},
    "ema_decay": {"ema_decay": 0.5},
    "augment": {"augment": flip},
}


@pytest.mark.parametrize("what", ANOTHER)
def test_a_checkpoint_of_another_run_is_refused(what, tmp_path, compilations):
    run(tmp_path, num_steps=10)
    with (
        compilations() as seen,
        pytest.raises(ValueError, match=f"written with another {what}. Run the same"),
    ):
        run(tmp_path, num_steps=10, **ANOTHER[what])
    assert not any("begin" in name or "advance" in name for name in seen.compiled)


def test_a_checkpoint_of_another_structure_names_all_that_differs(tmp_path):
    run(tmp_path, num_steps=10)
    network = en.MLPEnergy(2, width=4, depth=1, key=jax.random.key(1))
    with pytest.raises(ValueError, match="another model and objective"):
        run(tmp_path, num_steps=10, model=network, objective=CHAINS)
