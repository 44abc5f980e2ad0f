"""Scripts on several devices: virtual ones of this machine, in one process or in two."""

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Sequence

JOINED = """
import sys, jax
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
"""


def _command(texts: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", "\n".join(map(textwrap.dedent, texts))]


def _environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags}


def run(*texts: str, devices: int, arguments: Sequence[str] = ()) -> str:
    """What a script in several parts prints."""
    return subprocess.run(
        [*_command(texts), *arguments],
        env=_environment(devices),
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def run_two(*texts: str, devices: int, arguments: Sequence[str] = ()) -> list[str]:
    """The last line that each of two joined processes prints, of so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [*_command((JOINED, *texts)), address, str(number), *arguments],
            env=_environment(devices),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    lines = []
    try:
        for process in processes:
            printed, _ = process.communicate(timeout=600)
            assert process.returncode == 0
            lines.append(printed.splitlines()[-1])
    finally:
        for process in processes:
            process.kill()
    return lines
