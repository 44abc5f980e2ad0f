"""Pictures of numbers: histograms of scores, traces over steps, reliability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from energia._types import check_count
from energia.evaluate import Calibration
from energia.plot._figure import COLOURS, GREY, INK, blank, plain

PANELS = 12  # of traces; more are no picture


def histograms(
    scores: Mapping[str, Any], *, num_bins: int = 60, label: str = "energy [nats]"
) -> Any:
    """Draw the energies of several data sets over one another, each with an area of one.

    The picture beside `en.evaluate.auroc`: how far what is inside lies from what is outside.

    Args:
        scores: scores by the name of what they are of, vectors: of `en.evaluate.ood_scores`.
        num_bins: bins over the range of all scores together, without the outermost thousandth of
            each, which is counted in the last bins.
        label: what the scores are.

    Returns:
        A `matplotlib.figure.Figure`: `.savefig(path)` writes it. It belongs to no window.

    Raises:
        ValueError: for scores that are no vectors of finite numbers.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en, numpy as np
        >>> inside, outside = np.random.default_rng(0).normal(size=(2, 1000))
        >>> figure = en.plot.histograms({"inside": inside, "outside": outside + 3})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['inside', 'outside']
    """
    num_bins = check_count(num_bins, "num_bins", 2)
    arrays = {str(name): np.asarray(value, float) for name, value in scores.items()}
    if not arrays:
        raise ValueError("histograms() needs scores of at least one data set")
    for name, array in arrays.items():
        if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
            raise ValueError(
                f"the scores of {name!r} must be a vector of finite numbers, got shape "
                f"{array.shape}"
            )
    cuts = np.stack([np.quantile(array, (0.001, 0.999)) for array in arrays.values()])
    low, high = cuts[:, 0].min(), cuts[:, 1].max()
    pad = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - pad, high + pad, num_bins + 1)
    figure = blank(5.0, 2.8, layout="constrained")
    axes = figure.subplots()
    for index, (name, array) in enumerate(arrays.items()):
        colour = COLOURS[index % len(COLOURS)]
        heights = np.histogram(np.clip(array, edges[0], edges[-1]), edges, density=True)[0]
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3, linewidth=0)
        axes.stairs(heights, edges, color=colour, linewidth=1.2, label=name)
    axes.set_xlabel(label, fontsize=9, color=INK)
    axes.set_yticks([])
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    plain(axes)
    axes.spines["left"].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def traces(values: Mapping[str, Any], *, names: Sequence[str] | None = None) -> Any:
    r"""Draw numbers over steps, a panel each: draws, statistics, the history of a training.

    Args:
        values: arrays by name: `draws`, `draws.stats` or `fit.history`. Of shape (steps,), or
            (chain, draw) with a line a chain, or (chain, draw, \*shape) with a panel an entry.
            Steps that have no number (NaN) are left out.
        names: which of them; None: all. Together at most 12 panels.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for unknown names, and too many panels.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en, jax
        >>> draws = {"x": jax.random.normal(jax.random.key(0), (4, 100, 2))}
        >>> figure = en.plot.traces(draws)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['x[0]', 'x[1]']
    """
    panels = panels_of(values, names, "traces")
    figure = blank(6.0, 0.5 + 1.0 * len(panels), layout="constrained")
    rows = figure.subplots(len(panels), 1, sharex=False, squeeze=False)[:, 0]
    for axes, (name, lines) in zip(rows, panels, strict=True):
        for index, line in enumerate(lines):
            there = np.flatnonzero(np.isfinite(line))
            colour = COLOURS[index % len(COLOURS)]
            mark = "." if len(there) < len(line) / 10 else ""
            axes.plot(there + 1, line[there], color=colour, linewidth=0.7, marker=mark)
        axes.set_ylabel(name, fontsize=8, color=INK)
        axes.set_xlim(1, max(lines.shape[1], 2))
        plain(axes)
        axes.tick_params(labelbottom=axes is rows[-1])
    rows[-1].set_xlabel("step" if panels[-1][1].shape[0] == 1 else "draw", fontsize=9, color=INK)
    figure.align_ylabels(rows)
    return figure


def panels_of(
    values: Mapping[str, Any], names: Sequence[str] | None, function: str
) -> list[tuple[str, np.ndarray]]:
    """A label and lines, shape (chain, step), for each entry of the arrays that are named."""
    names = list(values) if names is None else list(names)
    if unknown := [name for name in names if name not in values]:
        raise ValueError(f"names= has {unknown}; there are {sorted(values)}")
    panels = [panel for name in names for panel in _panels(name, np.asarray(values[name], float))]
    if not 1 <= len(panels) <= PANELS:
        raise ValueError(
            f"{function}() draws 1 to {PANELS} panels, and {names} have {len(panels)} entries: "
            "names= chooses, and {name: array[:, :, index]} is one entry"
        )
    return panels


def _panels(name: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A label and lines, shape (chain, step), for each entry."""
    if array.ndim < 2:
        return [(name, array.reshape(1, -1))]
    flat = array.reshape(*array.shape[:2], -1)
    if array.ndim == 2 or flat.shape[2] > PANELS:  # of so many the number is enough
        return [(name, flat[:, :, index]) for index in range(flat.shape[2])]
    places = np.ndindex(array.shape[2:])
    return [
        (f"{name}[{', '.join(map(str, place))}]", flat[:, :, index])
        for index, place in enumerate(places)
    ]


def reliability(calibration: Calibration) -> Any:
    """Draw how often a classifier is right against how sure it is.

    In each bin of confidence a bar reaches up to the accuracy, and from there a hatched one to the
    mean confidence, which a classifier that is as sure as it is right would meet on the diagonal.
    Beneath stands the share of the rows in each bin.

    Args:
        calibration: what `en.evaluate.calibration_error` gave.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        TypeError: for anything else.
        ImportError: without Matplotlib.

    References:
        Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks.

    Example:
        >>> import energia as en, numpy as np
        >>> sure, y = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([0, 1, 1])
        >>> figure = en.plot.reliability(en.evaluate.calibration_error(sure, y))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['accuracy', 'share']
    """
    if not isinstance(calibration, Calibration):
        raise TypeError(
            f"reliability() draws what en.evaluate.calibration_error gave, got {calibration!r}"
        )
    edges, accuracy = calibration.edges, calibration.bin_accuracy
    share = calibration.bin_count / calibration.bin_count.sum()
    figure = blank(3.2, 3.9, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    width = np.diff(edges)
    upper.bar(edges[:-1], accuracy, width, align="edge", color=COLOURS[0], edgecolor="white")
    low, high = np.sort([accuracy, calibration.bin_confidence], axis=0)
    gap = {"color": "none", "edgecolor": COLOURS[1], "hatch": "////", "linewidth": 0.8}
    upper.bar(edges[:-1], high - low, width, bottom=low, align="edge", **gap)
    upper.set_ylabel("accuracy", fontsize=9, color=INK)
    upper.set(ylim=(0, 1), xlim=(0, 1))
    text = f"error {calibration.value:.3g}\naccuracy {calibration.accuracy:.3g}"
    style = {"va": "top", "ha": "left", "fontsize": 8, "color": INK}
    upper.text(0.04, 0.96, text, transform=upper.transAxes, **style)
    lower.bar(edges[:-1], share, width, align="edge", color=GREY, edgecolor="white")
    lower.set_ylabel("share", fontsize=9, color=INK)
    lower.set_xlabel("confidence", fontsize=9, color=INK)
    lower.set_ylim(0, 1 if share.max() > 0.5 else None)
    for axes in (upper, lower):
        plain(axes)
    figure.align_ylabels()
    return figure
