"""What goes wrong around a run: nothing that was computed is lost, and the message says so."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short_fits import DATA, START, assert_equal_fits, train
from toy_objectives import CountedProbe

import energia as en
from energia.sampling import _storage
from energia.training import _checkpoint

SETTINGS: dict[str, Any] = {"num_steps": 40, "checkpoint_every": 10}


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, *writes: int) -> None:
    """The writes of these numbers find no room."""
    sync, done = os.fsync, []

    def full(file: int) -> None:
        done.append(file)
        if len(done) in writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(_storage.os, "fsync", full)


def test_a_full_disk_ends_no_training(tmp_path, monkeypatch):
    fill_the_disk(monkeypatch, 2, 3)
    text = r"after \d0 steps could not be written .*No space left.*the training goes on"
    with pytest.warns(en.TrainingWarning, match=text) as told:
        result = train(checkpoint=tmp_path, **SETTINGS)
    assert [str(one.message).split()[3] for one in told] == ["20", "30"]
    assert_equal_fits(result, train(num_steps=40))
    saved = _storage.read_npz(tmp_path / _checkpoint.NAME, _checkpoint.FORMAT)[1]
    assert saved["step"] == 40
    assert [path.name for path in tmp_path.iterdir()] == [_checkpoint.NAME]


def test_a_full_disk_leaves_what_was_saved(tmp_path, monkeypatch):
    path = tmp_path / "draws.npz"
    fill_the_disk(monkeypatch, 2)
    _storage.write_npz(path, {"x": np.arange(3)}, {"format": "f"})
    with pytest.raises(OSError, match="No space left") as told:
        _storage.write_npz(path, {"x": np.arange(4)}, {"format": "f"})
    assert "was not written; what stood there before is as it was" in told.value.__notes__[0]
    assert _storage.read_npz(path, "f")[0]["x"].size == 3
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_loading_a_file_runs_no_code(tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(str(sprung))], object)
    path = tmp_path / _checkpoint.NAME
    np.savez(path, __meta__=np.asarray('{"format": "f"}'), x=trap)  # pyright: ignore
    with pytest.raises(ValueError, match=r"is damaged: .*allow_pickle=False"):
        _checkpoint.load(tmp_path, {})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        en.Draws.load(path)
    assert not sprung.exists()
    with np.load(path, allow_pickle=True) as file:
        assert file["x"].shape == (1,)
    assert sprung.exists()


def test_a_checkpoint_of_another_version_is_no_damage(tmp_path):
    path = tmp_path / _checkpoint.NAME
    _storage.write_npz(path, {}, {"format": "energia.checkpoint/1"})
    with pytest.raises(ValueError, match=r"another version of energia: .*checkpoint/1.*expected"):
        _checkpoint.load(tmp_path, {})


@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_a_file_tells_versions_and_keys(tmp_path):
    key = jax.random.key(7)
    train(key=key, checkpoint=tmp_path, **SETTINGS)
    draws = en.sample(START, "mala", key=key, num_warmup=5, num_samples=5)
    draws.save(tmp_path / "draws.npz")
    trained = _storage.read_npz(tmp_path / _checkpoint.NAME, _checkpoint.FORMAT)[1]
    arrays, drawn = _storage.read_npz(tmp_path / "draws.npz", _storage.FORMAT)
    for meta in (trained, drawn):
        assert meta["versions"]["energia"] == en.__version__
        assert meta["versions"]["jax"] == jax.__version__
        assert meta["versions"]["optax"] == optax.__version__
    assert trained["identity"]["key"] == ["threefry2x32", 0, 7]
    np.testing.assert_array_equal(arrays["keys"], draws.chain_keys)
    assert drawn["key_impl"] == str(jax.random.key_impl(key))


def test_state_of_other_libraries_is_refused_with_their_versions(tmp_path):
    train(checkpoint=tmp_path, **SETTINGS)
    path = tmp_path / _checkpoint.NAME
    arrays, meta = _storage.read_npz(path, _checkpoint.FORMAT)
    arrays["train/0"] = np.zeros(99)
    meta["versions"]["optax"] = "0.0.1"
    _storage.write_npz(path, arrays, meta)
    text = rf"other versions of their libraries wrote it \(optax 0.0.1, now {optax.__version__}\)"
    with pytest.raises(ValueError, match=text):
        train(checkpoint=tmp_path, **SETTINGS)


# --- numbers that are none, and errors within a step


def test_a_model_that_is_not_finite_is_refused(compilations):
    model = eqx.tree_at(lambda model: model.mean, START, jnp.array([jnp.nan, 0.0]))
    with compilations() as seen, pytest.raises(ValueError, match=r"1 of the numbers .*Gaussian"):
        train(model)
    assert not any("begin" in name or "advance" in name for name in seen.compiled)


class Edge(en.Energy):
    """Theta rises by one rate a step; at the edge something happens."""

    theta: jax.Array
    raises: bool = eqx.field(static=True)

    def __call__(self, x):
        theta = self.theta
        if self.raises:
            theta = eqx.error_if(theta, theta > 24.5, "theta is beyond the edge")
        # finite, with a gradient that is not
        nothing = jnp.where(theta > 24.5, 0 * jnp.sqrt(jnp.maximum(24.5 - theta, 0.0)), 0.0)
        return nothing - theta + 0 * jnp.sum(x)


EDGE: dict[str, Any] = {"optimizer": optax.sgd(1.0), "objective": CountedProbe(), **SETTINGS}


def test_a_gradient_that_is_not_finite_stops_before_it_is_applied(tmp_path):
    with pytest.warns(en.TrainingWarning, match=r"step 25 was not finite .*gradient_norm nan"):
        result = train(Edge(jnp.array(0.0), raises=False), checkpoint=tmp_path, **EDGE)
    assert result.num_steps == 25
    assert float(result.energy.theta) == 25.0
    assert np.isfinite(result.history["loss"]).all()


def test_an_error_within_a_step_says_where_the_last_checkpoint_stands(tmp_path):
    model = Edge(jnp.array(0.0), raises=True)
    with pytest.raises(Exception, match="theta is beyond the edge") as told:
        train(model, checkpoint=tmp_path, **EDGE)
    assert any("this came up in steps" in note for note in told.value.__notes__)
    assert any(repr(os.fspath(tmp_path)) in note for note in told.value.__notes__)
    saved = _checkpoint.load(tmp_path, {})
    assert saved is not None
    assert saved.step == 20


def test_an_error_before_the_first_checkpoint_speaks_of_none(tmp_path):
    model = Edge(jnp.array(22.0), raises=True)
    with pytest.raises(Exception, match="theta is beyond the edge") as told:
        train(model, checkpoint=tmp_path, **EDGE)
    assert any("this came up in steps" in note for note in told.value.__notes__)
    assert not any("checkpoint" in note for note in told.value.__notes__)
    assert not list(tmp_path.iterdir())


# --- Ctrl-C


@pytest.fixture
def usual():
    """Ctrl-C interrupts; a process in the background is begun with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(fit: en.Fit) -> None:
    """Ctrl-C after 20 steps."""
    if fit.num_steps == 20:
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(checkpoint: Path | None) -> str:
    with pytest.raises(KeyboardInterrupt) as told:
        train(
            num_steps=40,
            checkpoint=checkpoint,
            checkpoint_every=1000,
            callback=press,
            evaluate_every=20,
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return str(told.value)


@pytest.mark.usefixtures("usual")
def test_ctrl_c_leaves_a_checkpoint_of_the_last_step(tmp_path):
    text = interrupted(tmp_path)
    assert text.startswith("the training was interrupted after 20 steps: run the same line again")
    saved = _storage.read_npz(tmp_path / _checkpoint.NAME, _checkpoint.FORMAT)[1]
    assert saved["step"] == 20
    assert_equal_fits(train(num_steps=40, checkpoint=tmp_path), train(num_steps=40))


@pytest.mark.usefixtures("usual")
def test_ctrl_c_without_a_checkpoint_says_what_would_have_helped():
    assert "with checkpoint= the same line" in interrupted(None)


@pytest.mark.usefixtures("usual")
def test_a_second_ctrl_c_does_not_wait():
    def twice(fit: en.Fit) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it waited")

    with pytest.raises(KeyboardInterrupt):
        train(num_steps=40, callback=twice, evaluate_every=20, data=DATA)
