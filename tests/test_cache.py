"""Compiled programs on disk: found by the next process, and only where asked for."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import energia as en

SCRIPT = """
    import sys
    import jax, jax.numpy as jnp
    (jnp.ones(3) + 1).block_until_ready()  # something is compiled before
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
    )
    import energia as en
    print(en.cache_compilations(sys.argv[1]))
    en.sample(en.Gaussian(0.0), "mala", key=jax.random.key(0), num_warmup=20, num_samples=20)
    print(len(hits))
"""


def test_next_process_finds_programs(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), str(folder)]
    # the tests may run with a cache of their own
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    seen = []
    for _ in range(2):
        done = subprocess.run(
            command, check=True, timeout=120, capture_output=True, text=True, env=plain
        )
        where, hits = done.stdout.split()
        assert Path(where) == folder
        seen.append(int(hits))
    assert seen[0] == 0
    assert seen[1] > 0
    assert any(folder.iterdir())


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        en.cache_compilations(tmp_path / "file" / "below")
