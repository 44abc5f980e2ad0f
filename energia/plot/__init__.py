"""Pictures of energies, samples and scores; Matplotlib is imported where one is drawn."""

from energia.plot._curves import histograms, reliability, traces
from energia.plot._factor_graph import factor_graph
from energia.plot._images import images, strips
from energia.plot._landscape import landscape
from energia.plot._runs import ranks, swaps, training

__all__ = [
    "factor_graph",
    "histograms",
    "images",
    "landscape",
    "ranks",
    "reliability",
    "strips",
    "swaps",
    "traces",
    "training",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
