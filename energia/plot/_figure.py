"""What all pictures share: a figure that belongs to no window, ink and colours."""

from typing import Any

INK = "#1f2933"
GREY = "#6b7280"
COLOURS = ("#2f6299", "#d1603d", "#3f8f63", "#8a63a8", "#b58a1b", "#6b7280")


def figure_class() -> Any:
    """Matplotlib's class of figures.

    Raises:
        ImportError: without Matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "en.plot needs Matplotlib: python -m pip install 'energia[plot]'"
        ) from error
    return Figure


def blank(width: float, height: float, **layout: Any) -> Any:
    """A figure of this size in inches."""
    return figure_class()(figsize=(width, height), **layout)


def plain(axes: Any) -> None:
    """A frame that stays behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8)
