"""Images side by side: samples, and chains over their steps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from energia._types import check_count
from energia.plot._figure import INK, blank

CELL = 0.6  # inches, the longer side of an image
GAP = 0.04  # inches between images
LABEL = 0.18  # inches beneath them, where there are labels


def images(
    x: Any,
    *,
    columns: int | None = None,
    bounds: Sequence[Any] | None = None,
    labels: Any = None,
) -> Any:
    """Draw images in a grid, row by row.

    Args:
        x: shape (images, height, width), or (images, height, width, channels) with 1 channel, or 3
            for red, green and blue.
        columns: how many side by side; None: about as many as there are rows.
        bounds: the values that are black and white, for images that are to be compared; None: the
            lowest and the highest of all.
        labels: what stands beneath each image, one for each; None: nothing.

    Returns:
        A `matplotlib.figure.Figure`: `.savefig(path)` writes it. It belongs to no window.

    Raises:
        ValueError: for what are no images.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en
        >>> data = en.data.digits()
        >>> figure = en.plot.images(data["x"][:12], columns=6, labels=data["y"][:12])
        >>> len(figure.axes[0].texts)
        12
    """
    grid = _images(x, "x")
    if columns is None:
        columns = math.ceil(math.sqrt(len(grid)))
    columns = min(check_count(columns, "columns", 1), len(grid))
    names = [] if labels is None else [str(label) for label in labels]
    if labels is not None and len(names) != len(grid):
        raise ValueError(f"labels= must name {len(grid)} images, got {len(names)}")
    return _grid(grid, columns, bounds, names)


def strips(
    x: Any,
    *,
    num_columns: int = 12,
    num_chains: int = 8,
    bounds: Sequence[Any] | None = None,
    thin: int = 1,
) -> Any:
    """Draw chains of images over their steps: a row a chain, from its first draw to its last.

    Args:
        x: draws, shape (chain, draw, height, width), or with a last axis for channels:
            `draws["x"]`.
        num_columns: how many draws of each, at equal distances.
        num_chains: how many chains, the first ones.
        bounds: the values that are black and white; None: the lowest and the highest of all.
        thin: steps between draws, for the numbers beneath.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for what are no chains of images.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en, jax
        >>> noise = jax.random.normal(jax.random.key(0), (2, 100, 8, 8))
        >>> figure = en.plot.strips(noise, num_columns=5)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1', '26', '51', '75', '100']
    """
    chains = np.asarray(x)
    if chains.ndim not in (4, 5):
        raise ValueError(
            "x must have shape (chain, draw, height, width) or (chain, draw, height, width, "
            f"channels), got {chains.shape}"
        )
    num_columns = check_count(num_columns, "num_columns", 2)
    chains = chains[: check_count(num_chains, "num_chains", 1)]
    if not (len(chains) and chains.shape[1]):
        raise ValueError(f"x has no draws, its shape is {np.shape(x)}")
    count = min(num_columns, chains.shape[1])
    picked = np.round(np.linspace(0, chains.shape[1] - 1, count)).astype(int)
    grid = _images(chains[:, picked].reshape(-1, *chains.shape[2:]), "x")
    steps = (picked + 1) * check_count(thin, "thin", 1)
    labels = [""] * (len(grid) - count) + [str(step) for step in steps]
    return _grid(grid, count, bounds, labels)


def _images(value: Any, what: str) -> np.ndarray:
    """Images with 3 channels or none."""
    array = np.asarray(value, float)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or 0 in array.shape or array.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"{what} must have shape (images, height, width), or with a last axis of 1 or 3 "
            f"channels, got {np.shape(value)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{what} has values that are not finite")
    return array


def _grid(x: np.ndarray, columns: int, bounds: Sequence[Any] | None, labels: list[str]) -> Any:
    """Images row by row; no label or one for each, and room only beneath rows that have some."""
    low, high = (x.min(), x.max()) if bounds is None else map(float, bounds)
    if bounds is not None and not low < high:
        raise ValueError(f"bounds= must be (low, high) with low below high, got {bounds}")
    shades = np.clip((x - low) / ((high - low) or 1.0), 0, 1)
    rows, scale = math.ceil(len(x) / columns), CELL / max(x.shape[1:3])
    height, width = scale * x.shape[1], scale * x.shape[2]  # inches
    named = [any(labels[row * columns : (row + 1) * columns]) for row in range(rows)]
    tops = GAP + np.cumsum([0.0, *(height + GAP + LABEL * name for name in named)])
    lefts = GAP + (width + GAP) * np.arange(columns + 1)
    figure = blank(lefts[-1], tops[-1])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for index, image in enumerate(shades):
        left, top = lefts[index % columns], tops[index // columns]
        extent = (left, left + width, top + height, top)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        if labels and labels[index]:
            style = {"ha": "center", "va": "top", "fontsize": 8, "color": INK}
            axes.text(left + width / 2, top + height + GAP / 2, labels[index], **style)
    axes.set(xlim=(0, lefts[-1]), ylim=(tops[-1], 0))
    return figure
