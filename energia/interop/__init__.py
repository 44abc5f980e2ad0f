"""Models of other libraries as energies, and energies as models of other libraries.

The libraries are optional: each is imported when a function that needs it is called.
"""

from typing import TYPE_CHECKING, Any

from energia.energies import from_log_density
from energia.interop._from_numpyro import from_numpyro
from energia.interop._to_numpyro import to_numpyro

if TYPE_CHECKING:
    from energia.interop._scikit_learn import BernoulliRBM

__all__ = ["BernoulliRBM", "from_log_density", "from_numpyro", "to_numpyro"]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)


def __getattr__(name: str) -> Any:
    # its base classes are scikit-learn's, which importing energia must not load
    if name == "BernoulliRBM":
        from energia.interop._scikit_learn import BernoulliRBM

        return BernoulliRBM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
