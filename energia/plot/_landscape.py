"""The landscape of an energy over the plane."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from energia._types import Values, check_count
from energia.energies._energy import Energy
from energia.evaluate._rows import over_rows
from energia.plot._figure import COLOURS, INK, blank, plain

LONGEST = 3.2  # inches, the longer side
LEFT, BOTTOM, RIGHT = 0.65, 0.5, 0.75  # inches beside it


def landscape(
    energy: Energy,
    bounds: Sequence[Any],
    *,
    points: Any = None,
    depth: float = 10.0,
    num_points: int = 200,
) -> Any:
    r"""Draw an energy over a part of the plane, dark where it is low.

    Shown is $E - \min E$ up to `depth`, beyond which hardly a draw would lie, with a line at every
    nat up to five: $p$ falls by $e$ from line to line. What is outside of a support is as light as
    what is above.

    Args:
        energy: of one variable of shape (2,), or of two numbers.
        bounds: (low, high) of both axes, or a pair of them, for the first and the second.
        points: drawn over it, shape (points, 2): data, or draws.
        depth: the highest energy above the lowest that is told apart, positive, in nats.
        num_points: along each axis.

    Returns:
        A `matplotlib.figure.Figure`: `.savefig(path)` writes it. It belongs to no window.

    Raises:
        TypeError, ValueError: for an energy that has other variables, or no finite value there.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en
        >>> figure = en.plot.landscape(en.Ring(), (-3, 3), num_points=30)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['x[1]', 'nats above the lowest']
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"landscape() takes an energy, got {energy!r}")
    num_points = check_count(num_points, "num_points", 2)
    if not 0 < depth < math.inf:
        raise ValueError(f"depth= must be a positive number, got {depth}")
    first, second = _ranges(bounds)
    x, y = np.linspace(*first, num_points), np.linspace(*second, num_points)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
    names = energy.variables
    rows = {names[0]: grid} if len(names) == 1 else dict(zip(names, grid.T, strict=False))
    _check_plane(energy)
    values = over_rows(_energy, energy, rows).astype(float)
    values = np.where(_inside(energy, rows), values, np.inf).reshape(num_points, num_points)
    lowest = np.nanmin(values, initial=np.inf)
    if not np.isfinite(lowest):
        raise ValueError(f"{energy._formula()} has no lowest value there: it is {lowest}, or NaN")
    above = np.clip(np.nan_to_num(values - lowest, nan=depth, posinf=depth), 0, depth)
    # two numbers may have different units; the entries of one variable are drawn to scale
    ratio = (second[1] - second[0]) / (first[1] - first[0]) if len(names) == 1 else 1.0
    width, height = LONGEST * min(1, 1 / ratio), LONGEST * min(1, ratio)
    size = LEFT + width + RIGHT, max(BOTTOM + height + 0.1, 1.7)
    figure = blank(*size)
    axes = figure.add_axes((LEFT / size[0], BOTTOM / size[1], width / size[0], height / size[1]))
    beside = (LEFT + width + 0.12) / size[0], 0.1 / size[0]
    levels = np.linspace(0, depth, 65)
    filled = axes.contourf(x, y, above, levels, cmap="Blues_r")
    lines = [level for level in range(1, 6) if level < depth]
    axes.contour(x, y, above, lines, colors=INK, linewidths=0.4, alpha=0.5)
    if points is not None:
        dots = np.asarray(points, float)
        if dots.ndim != 2 or dots.shape[1] != 2:
            raise ValueError(f"points= must have shape (points, 2), got {dots.shape}")
        axes.plot(*dots.T, ".", color=COLOURS[1], markersize=2, alpha=0.6, rasterized=True)
    axes.set(xlim=first, ylim=second)
    shown = names if len(names) == 2 else (f"{names[0]}[0]", f"{names[0]}[1]")
    axes.set_xlabel(shown[0], fontsize=9, color=INK)
    axes.set_ylabel(shown[1], fontsize=9, color=INK)
    plain(axes)
    bottom = BOTTOM if height > 1.4 else 0.1  # its name needs the room
    tall = (size[1] - bottom - 0.1) / size[1]
    bar_axes = figure.add_axes((beside[0], bottom / size[1], beside[1], tall))
    bar = figure.colorbar(filled, cax=bar_axes, ticks=np.linspace(0, depth, 6))
    bar.set_label("nats above the lowest", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return figure


def _ranges(bounds: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    array = np.asarray(bounds, float)
    if array.shape == (2,):
        array = np.stack([array, array])
    if array.shape != (2, 2) or not (array[:, 0] < array[:, 1]).all():
        raise ValueError(
            "bounds= must be (low, high), or a pair of them for the two axes, with low below "
            f"high, got {bounds}"
        )
    (a, b), (c, d) = array.tolist()
    return (a, b), (c, d)


def _check_plane(energy: Energy) -> None:
    shapes = [None if s is None else s.shape for s in energy.supports.values()]
    wanted = {1: (2,), 2: ()}.get(len(shapes))
    if wanted is None or any(shape not in (None, wanted) for shape in shapes):
        raise ValueError(
            f"landscape() draws energies of one variable of shape (2,) or of two numbers, and "
            f"{energy} is none: .condition fixes what is too much, .marginalize sums it out"
        )


def _inside(energy: Energy, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which points lie in the supports, as far as their bounds are numbers."""
    count = len(next(iter(rows.values())))
    inside = np.ones(count, bool)
    for name, support in energy.supports.items():
        if support is not None and not support.functional:
            inside &= np.asarray(support.contains(rows[name])).reshape(count, -1).all(1)
    return inside


def _energy(energy: Energy, row: Values) -> jax.Array:
    return energy._scalar_at(row)
