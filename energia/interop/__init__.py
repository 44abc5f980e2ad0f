"""Models of other libraries as energies, and energies as models of other libraries.

The libraries are optional: each is imported when a function that needs it is called.
"""

from energia.energies import from_log_density
from energia.interop._from_numpyro import from_numpyro
from energia.interop._to_numpyro import to_numpyro

__all__ = ["from_log_density", "from_numpyro", "to_numpyro"]
