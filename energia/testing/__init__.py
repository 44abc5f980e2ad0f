"""Conformance checks for energies, samplers and objectives, the library's own and anyone else's.

They need no test framework: each returns nothing, or raises an `AssertionError` that says which law
broke, with the numbers.
"""

from energia.testing._energy import check_energy
from energia.testing._objective import check_objective
from energia.testing._sampler import check_sampler
from energia.testing._targets import Target

__all__ = ["Target", "check_energy", "check_objective", "check_sampler"]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
