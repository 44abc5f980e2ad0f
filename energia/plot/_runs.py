"""Pictures of runs: ranks of draws, swaps of replicas, the course of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from energia._types import check_count
from energia.plot._curves import panels_of
from energia.plot._figure import COLOURS, GREY, INK, blank, plain
from energia.sampling import Draws
from energia.training import Fit

COLUMNS = 3  # of ranks side by side
SMOOTH = 50  # a mean over this part of the steps
TOGETHER = {  # curves of a training that are read beside one another
    "loss": ("loss", "validation_loss"),
    "energy [nats]": ("positives", "negatives"),
}


def ranks(values: Mapping[str, Any], *, names: Sequence[str] | None = None, bins: int = 20) -> Any:
    r"""Draw how the ranks of each chain's draws are spread among those of all chains.

    The draws of all chains together are numbered by size. Where every chain follows the same law
    each has its share of every rank, and its outline stays at the dashed line; a chain that sits
    too low has too many of the low ranks, one that is stuck has gaps. Draws that follow each other
    are alike, so that outlines are rough by chance where the effective sample size is small.

    Args:
        values: arrays by name, shape (chain, draw) or (chain, draw, \*shape) with a panel an entry:
            `draws`, or `draws.stats`.
        names: which of them; None: all. Together at most 12 panels.
        bins: how many bins of equal size the ranks are counted in, at least 2.

    Returns:
        A `matplotlib.figure.Figure`: `.savefig(path)` writes it. It belongs to no window.

    Raises:
        ValueError: for one chain, unknown names, draws that are not finite, and too many panels.
        ImportError: without Matplotlib.

    References:
        Vehtari et al. (2021), Rank-normalization, folding, and localization: an improved R-hat.

    Example:
        >>> import energia as en, jax
        >>> draws = {"x": jax.random.normal(jax.random.key(0), (4, 100, 2))}
        >>> [axes.get_title() for axes in en.plot.ranks(draws).axes]
        ['x[0]', 'x[1]']
    """
    from scipy.stats import rankdata  # slow to import, and it sets filters of warnings

    bins = check_count(bins, "bins", 2)
    panels = panels_of(values, names, "ranks")
    for name, lines in panels:
        if len(lines) < 2:
            raise ValueError(f"ranks() compares chains, and {name} has {len(lines)} of them")
        if not np.isfinite(lines).all():
            raise ValueError(f"ranks() needs finite draws, and {name} has others")
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(2.4 * columns, 0.4 + 1.5 * rows, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (name, lines) in zip(grid, panels, strict=False):
        order = rankdata(lines).reshape(lines.shape)  # ties share a rank: no chain comes first
        edges = np.linspace(0.5, lines.size + 0.5, bins + 1)
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for index, chain in enumerate(order):
            share = np.histogram(chain, edges)[0] * bins / lines.shape[1]
            colour = COLOURS[index % len(COLOURS)]
            axes.stairs(share, edges, color=colour, linewidth=1.0, baseline=None)
        axes.set_title(name, fontsize=9, color=INK)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None), xticks=[])
        plain(axes)
    figure.supxlabel("rank among all draws", fontsize=9, color=INK)
    figure.supylabel("count / expected", fontsize=9, color=INK)
    return figure


def swaps(draws: Draws) -> Any:
    r"""Draw whether the replicas of parallel tempering travel.

    On the left the mean acceptance of swaps between each pair of neighbours, a mark at the middle
    of the two levels: equal where the ladder was tuned, and near zero where it is broken. On the
    right the round trips of each chain, from the reference to the target and back, over the draws:
    steady where replicas travel all the time.

    Args:
        draws: of a `ParallelTempering`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        TypeError: for anything but `Draws`.
        ValueError: for draws of another sampler.
        ImportError: without Matplotlib.

    References:
        Syed, Bouchard-Côté, Deligiannidis and Doucet (2022), Non-reversible parallel tempering: a
        scalable highly parallel MCMC scheme.

    Example:
        >>> import energia as en, jax
        >>> sampler = en.samplers.ParallelTempering("hmc", num_replicas=4)
        >>> draws = en.sample(en.DoubleWell(4.0), sampler, key=jax.random.key(0))
        >>> [axes.get_ylabel() for axes in en.plot.swaps(draws).axes]
        ['swap acceptance', 'round trips']
    """
    if not isinstance(draws, Draws):
        raise TypeError(f"swaps() takes what en.sample gave, got {draws!r}")
    if "swap_acceptance_rate" not in draws.stats:
        raise ValueError(f"swaps() takes draws of a ParallelTempering, and these are {draws!r}")
    rates = np.asarray(draws.stats["swap_acceptance_rate"], float).mean((0, 1))
    levels = np.asarray(draws.stats["levels"], float)[0, -1]
    trips = np.asarray(draws.stats["round_trips"])
    trips = trips - trips[:, :1]  # they were counted through warm-up
    figure = blank(6.4, 2.4, layout="constrained")
    left, right = figure.subplots(1, 2)
    between = (levels[1:] + levels[:-1]) / 2
    left.plot(between, rates, color=COLOURS[0], linewidth=1, marker="o", markersize=4)
    for level in levels:
        left.axvline(level, ymax=0.03, color=GREY, linewidth=1)
    left.set(ylim=(0, 1.04), xlim=np.sort(levels[[0, -1]]))
    left.set_ylabel("swap acceptance", fontsize=9, color=INK)
    left.set_xlabel("level", fontsize=9, color=INK)
    for index, chain in enumerate(trips):
        steps = np.arange(1, len(chain) + 1)
        right.plot(steps, chain, color=COLOURS[index % len(COLOURS)], linewidth=1)
    right.set(ylim=(0, None), xlim=(1, max(trips.shape[1], 2)))
    right.set_ylabel("round trips", fontsize=9, color=INK)
    right.set_xlabel("draw", fontsize=9, color=INK)
    for axes in (left, right):
        plain(axes)
    return figure


def training(fit: Fit) -> Any:
    """Draw the course of a training: every curve of its history, with a running mean.

    Loss and validation loss share a panel, and so do the mean energies of data ("positives") and of
    samples ("negatives"). Curves that are known at a few steps only are drawn as points.

    Args:
        fit: what `en.fit` gave.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        TypeError: for anything but a `Fit`.
        ValueError: for one of no steps.
        ImportError: without Matplotlib.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> data = jax.random.normal(jax.random.key(0), (500, 2))
        >>> model = en.Gaussian(jnp.ones(2))
        >>> fit = en.fit(model, data, "sm", key=jax.random.key(1), num_steps=100)
        >>> [axes.get_title() for axes in en.plot.training(fit).axes]
        ['loss', 'gradient_norm']
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"training() takes what en.fit gave, got {fit!r}")
    if not fit.num_steps:
        raise ValueError("training() needs at least one step, and this Fit has none")
    kept = {name: tuple(n for n in group if n in fit.history) for name, group in TOGETHER.items()}
    shared = {name for group in kept.values() for name in group}
    panels = {title: group for title, group in kept.items() if group}
    panels |= {name: (name,) for name in fit.history if name not in shared}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(3.4 * columns, 0.4 + 1.6 * rows, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, group) in zip(grid, panels.items(), strict=False):
        for index, name in enumerate(group):
            _curve(axes, np.asarray(fit.history[name], float), COLOURS[index], name)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlim(1, max(fit.num_steps, 2))
        plain(axes)
        if len(group) > 1:
            axes.legend(fontsize=7, frameon=False)
    figure.supxlabel("step", fontsize=9, color=INK)
    return figure


def _curve(axes: Any, values: np.ndarray, colour: str, label: str) -> None:
    """Points of a curve with few numbers; else all steps, pale, under their running mean."""
    there = np.flatnonzero(np.isfinite(values))
    if len(there) < len(values) / 10:
        axes.plot(there + 1, values[there], color=colour, linewidth=1, marker=".", label=label)
        return
    width = max(len(there) // SMOOTH, 1)
    total = np.cumsum(np.concatenate([[0.0], values[there]]))
    mean = (total[width:] - total[:-width]) / width
    axes.plot(there + 1, values[there], color=colour, linewidth=0.5, alpha=0.3)
    axes.plot(there[width - 1 :] + 1, mean, color=colour, linewidth=1.3, label=label)
    if width > 1:  # the first steps are far from the rest, and would leave no room for it
        low, high = np.quantile(values[there], (0.002, 0.998))
        pad = 0.1 * (high - low) or 0.5
        bounds = axes.get_ylim() if len(axes.lines) > 2 else (low, high)
        axes.set_ylim(min(bounds[0], low - pad), max(bounds[1], high + pad))
