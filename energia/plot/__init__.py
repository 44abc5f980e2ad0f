"""Pictures of energies; Matplotlib is imported where one is drawn."""

from energia.plot._factor_graph import factor_graph

__all__ = ["factor_graph"]
