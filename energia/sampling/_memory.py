"""Whether draws have room, told before a run starts."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COPIES = 2  # the slices of a run, and the whole that they are joined to
CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes of memory that the process can still take; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        numbers = dict(line.split(":") for line in lines)
        free = 1024 * int(numbers["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):  # no Linux: what there is, of which some is taken
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    try:  # a container may have less; of what it takes, cached files make room
        limit, used = (int((CGROUP / f"memory.{n}").read_text()) for n in ("max", "current"))
        stat = (CGROUP / "memory.stat").read_text().splitlines()
        cached = int(dict(line.split() for line in stat)["inactive_file"])
    except (OSError, ValueError, KeyError):  # "max": no limit
        return free
    return min(free, limit - used + cached)


def check_room(row: Mapping[str, Any], count: int) -> None:
    """Raise where so many draws, each of the shapes of a row, do not fit.

    Raises:
        MemoryError: with what is needed, what there is, and what to do.
    """
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in row.values())
    needed, free = COPIES * count * size, available()
    if free is not None and needed > free:
        raise MemoryError(
            f"{count:,} draws of {size:,} bytes each need about {needed / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB are free: keep less of a draw (collect=), every n-th one "
            "(thin=n), or fewer (num_samples=)"
        )
