"""Steps a second of several sides, in turn."""

import time
from collections.abc import Callable, Mapping


def steps_a_second(
    sides: Mapping[str, Callable[[int], object]],
    short: int,
    steps: int | Mapping[str, int],
    repeats: int,
) -> dict[str, list[float]]:
    """By side the rate of each repeat; a first call compiles.

    The cost of a call that is not of its steps (starting, ending), as of `short` steps, is taken
    off. `steps` are those of every side, or of each.
    """
    for run in sides.values():
        run(short)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            more = steps if isinstance(steps, int) else steps[side]
            times = []
            for count in (short, more + short):
                began = time.perf_counter()
                run(count)
                times.append(time.perf_counter() - began)
            rates[side].append(more / (times[1] - times[0]))
    return rates
