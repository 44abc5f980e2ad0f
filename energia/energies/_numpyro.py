"""NumPyro, an optional library: imported where it is first needed, since it takes a second."""

from typing import Any


def numpyro(what: str) -> Any:
    """The package, with its distributions.

    Raises:
        ImportError: when it is not installed; says what for, and how to install it.
    """
    try:
        import numpyro
        import numpyro.distributions
    except ImportError as error:
        raise ImportError(
            f"{what} needs NumPyro, an optional library: pip install 'energia[numpyro]'"
        ) from error
    return numpyro
