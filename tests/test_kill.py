"""Processes are killed with SIGKILL: no run is lost, no file is half written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.sampling import _storage
from energia.training import _checkpoint

RUN = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
import energia as en

folder, out, num_steps = sys.argv[1:]
data = np.random.default_rng(0).normal(1.0, 0.5, (256, 2))
chains = en.objectives.PCD(sampler=en.samplers.MALA(step_size=0.1), num_steps=20, buffer_size=4096)
fit = en.fit(
    en.MLPEnergy(2, width=32, depth=1, key=jax.random.key(1)), data, chains, key=jax.random.key(0),
    num_steps=int(num_steps), batch_size=64, optimizer=optax.adamw(1e-3), ema_decay=0.99,
    checkpoint=folder or None, checkpoint_every=25, progress=False,
)
leaves = jax.tree.leaves((fit.energy.network.layers, fit.ema_energy.network.layers))
arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")}
np.savez(out, **arrays, **fit.history)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One cache of compiled programs for all processes, which then start fast."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_killed_run_started_again_ends_as_if_it_had_not_been(kills, tmp_path, environment):
    num_steps = 1000 * (1 + kills)

    def start(folder: Any, out: Path) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", RUN, str(folder), str(out), str(num_steps)]
        return subprocess.Popen(arguments, env=environment)

    whole, cut = tmp_path / "whole.npz", tmp_path / "cut.npz"
    assert start("", whole).wait(timeout=300) == 0
    folder = tmp_path / "run"
    generator = np.random.default_rng(kills)
    steps = []
    for _ in range(kills):
        before = steps[-1] if steps else 0
        process = start(folder, cut)
        while process.poll() is None and step_of(folder) <= before:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(step_of(folder))
        assert not cut.exists(), "the run was over before it was killed"
    assert steps[0] > 0
    assert steps[-1] < num_steps
    assert start(folder, cut).wait(timeout=300) == 0
    with np.load(whole) as expected, np.load(cut) as found:
        assert set(expected.files) == set(found.files)
        assert expected["loss"].shape == (num_steps,)
        for name in expected.files:
            np.testing.assert_array_equal(expected[name], found[name])


def step_of(folder: Path) -> int:
    """The step of the checkpoint in a folder, which must be whole whenever it is there."""
    path = folder / _checkpoint.NAME
    return _storage.read_npz(path, _checkpoint.FORMAT)[1]["step"] if path.exists() else 0


WRITE = """
import sys
import jax.numpy as jnp, numpy as np
from energia.training import _checkpoint

step = int(sys.argv[2])
while True:
    step += 1
    train = [jnp.full(1_000_000, step, jnp.int32), jnp.int32(step)]
    _checkpoint.save(sys.argv[1], train, {"loss": np.full(step, step)}, step, {})
"""


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_while_writing_the_old_or_the_new_one_is_whole(kills, tmp_path, environment):
    generator = np.random.default_rng(7)
    step = 0
    for _ in range(kills):
        arguments = [sys.executable, "-c", WRITE, str(tmp_path), str(step)]
        process = subprocess.Popen(arguments, env=environment)
        while step_of(tmp_path) < step + 3:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        saved = _checkpoint.load(tmp_path, {})
        assert saved is not None
        assert saved.step > step
        step = saved.step
        for array in (*saved.arrays, saved.history["loss"]):
            assert np.all(array == step)
        assert [path.name for path in tmp_path.iterdir()] == [_checkpoint.NAME]


SAMPLE = """
import sys
import jax, jax.numpy as jnp
import energia as en

path = sys.argv[1]
normal = en.Gaussian(jnp.zeros(2))
draws = en.sample(
    normal, "mala", key=jax.random.key(0), num_warmup=30, num_samples=50, progress=False
)
while True:
    draws.save(path)
    draws = draws.extend(50, progress=False)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_killed_while_sampling_what_was_saved_goes_on_as_if_it_had_not_been(tmp_path, environment):
    path = tmp_path / "draws.npz"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SAMPLE, str(path)], env=environment
    )
    while not path.exists() or _storage.read_npz(path, _storage.FORMAT)[1]["steps"] < 230:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    normal = en.Gaussian(jnp.zeros(2))
    saved = en.Draws.load(path, energy=normal)
    count = saved["x"].shape[1]
    assert count % 50 == 0
    assert count >= 200
    whole = en.sample(normal, "mala", key=jax.random.key(0), num_warmup=30, num_samples=count + 50)
    np.testing.assert_array_equal(saved.extend(50)["x"], whole["x"])
