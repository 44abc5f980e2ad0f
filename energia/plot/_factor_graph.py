"""The factor graph of an energy as a picture."""

from typing import Any

import numpy as np

from energia.energies._energy import Energy
from energia.plot._figure import INK, figure_class
from energia.plot._graph import Graph, graph_of
from energia.plot._layout import PAD, Layout

UNIT = 0.8  # inches between layers
HEIGHTS = {"factor": 0.34, "free": 0.5, "observed": 0.5, "marginal": 0.5}  # inches
MARGIN = 0.12  # inches between a name and the border round it
STYLES = {
    "free": {"facecolor": "white", "edgecolor": INK},
    "observed": {"facecolor": "#c9ced6", "edgecolor": INK},
    "marginal": {"facecolor": "white", "edgecolor": "#6b7280", "linestyle": (0, (3, 2))},
    "factor": {"facecolor": "#d8e6f5", "edgecolor": "#2f6299"},
}


def factor_graph(energy: Energy) -> Any:
    r"""Draw which variables each term of an energy holds.

    $E = \sum_a E_a$ is a bipartite graph of variables (circles) and terms (squares). Variables that
    are fixed to a value, and rows of data, are shaded; variables that were summed out have a dashed
    border. A data factor `en.total(likelihood, y=Y)` is a plate "i ≤ N": its rows, and what was
    summed out for each row, stand in it. A variable replaced by a function is drawn as the
    variables of the function. Data stand at the bottom, priors at the top; the same energy gives
    the same picture.

    Args:
        energy: any energy; the picture is made for up to about 15 variables and terms.

    Returns:
        A `matplotlib.figure.Figure`: `.savefig(path)` writes it. It belongs to no window.

    Raises:
        TypeError: when it is no energy.
        ImportError: without Matplotlib.

    References:
        Kschischang, Frey and Loeliger (2001), Factor graphs and the sum-product algorithm.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> @en.energy
        ... def normal(mu, y):
        ...     return 0.5 * (y - mu) ** 2
        >>> prior = en.Gaussian(0.0).rename(x="mu")
        >>> figure = en.plot.factor_graph(prior + en.total(normal, y=jnp.ones(8)))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['i ≤ 8', 'mu', 'Gaussian', 'y$_i$', 'normal']
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"factor_graph() takes an energy, got {energy!r}")
    figure_type = figure_class()
    graph = graph_of(energy)
    heights = np.asarray([HEIGHTS[node.kind] for node in graph.nodes]) / UNIT
    widths = np.asarray([_width(node.label, node.kind) for node in graph.nodes]) / UNIT
    layout = Layout(graph, widths)
    x, y = layout.solve(), layout.levels.astype(float)
    boxes = np.stack([x - widths / 2, y - heights / 2, x + widths / 2, y + heights / 2], 1)
    plates = _plates(graph, boxes)
    extent = np.concatenate([boxes, plates])
    low, high = extent[:, :2].min(0) - 0.15, extent[:, 2:].max(0) + 0.15
    figure = figure_type(figsize=tuple((high - low) * UNIT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.axis("off")
    for name, plate in zip(graph.plates, plates, strict=True):
        _draw(axes, plate, 0.12, {"facecolor": "none", "edgecolor": "#6b7280"}, 1)
        corner = {"ha": "right", "va": "bottom", "fontsize": 8, "color": "#4b5563"}
        axes.text(plate[2] - 0.1, plate[1] + 0.07, name, **corner)
    for factor, variable in graph.edges:
        axes.plot(x[[factor, variable]], y[[factor, variable]], color=INK, linewidth=1, zorder=2)
    for node, box, height in zip(graph.nodes, boxes, heights, strict=True):
        radius = 0.0 if node.kind == "factor" else height / 2
        _draw(axes, box, radius, STYLES[node.kind], 3)
        centre = (box[:2] + box[2:]) / 2
        middle = {"ha": "center", "va": "center_baseline", "fontsize": 10, "color": INK}
        axes.text(centre[0], centre[1], node.label, **middle, zorder=4)
    return figure


def _width(label: str, kind: str) -> float:
    """Inches: a circle or a square where the name fits, else as wide as the name needs."""
    from matplotlib.textpath import TextPath

    text = TextPath((0, 0), label, size=10).get_extents().width / 72
    return max(HEIGHTS[kind], text + 2 * MARGIN)


def _plates(graph: Graph, boxes: np.ndarray) -> np.ndarray:
    """Left, bottom, right and top of each plate, round its nodes and the plates in it."""
    around = np.zeros((len(graph.plates), 4))
    for plate in reversed(range(len(graph.plates))):
        inner = {
            other
            for node in graph.nodes
            if plate in node.plates
            for other in node.plates[node.plates.index(plate) + 1 :]
        }
        held = [box for node, box in zip(graph.nodes, boxes, strict=True) if plate in node.plates]
        held = np.stack([*held, *around[list(inner)]])
        around[plate, :2] = held[:, :2].min(0) - np.asarray([PAD, 0.36])  # room for the label
        around[plate, 2:] = held[:, 2:].max(0) + np.asarray([PAD, 0.16])
    return around


def _draw(axes: Any, box: np.ndarray, radius: float, style: dict[str, Any], order: int) -> None:
    """A box whose corners are quarters of a circle: a circle where the radius is half of it."""
    from matplotlib.patches import Polygon

    left, bottom, right, top = box + radius * np.asarray([1, 1, -1, -1])
    arc = np.linspace(0, np.pi / 2, 25)
    corners = [(right, top), (left, top), (left, bottom), (right, bottom)]
    outline = [
        np.asarray(corner) + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
        for corner, turn in zip(corners, arc + np.arange(4)[:, None] * np.pi / 2, strict=True)
    ]
    axes.add_patch(Polygon(np.concatenate(outline), closed=True, zorder=order, **style))
