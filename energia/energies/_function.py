"""Energies made from functions."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

from energia._types import as_array, parameters_of
from energia.energies._checks import check_supports
from energia.energies._energy import Energy
from energia.supports import Support


class FunctionEnergy(Energy):
    """An energy made from a function; see `energy`."""

    function: Callable[..., Any]
    names: tuple[str, ...] = eqx.field(static=True)
    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)

    def __init__(
        self, function: Callable[..., Any], declared: tuple[tuple[str, Support], ...] = ()
    ):
        self.function = function
        self.names = parameters_of(function, self._name)
        self.declared = declared

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        value = self.function(*args, **kwargs)
        if value is None:
            raise TypeError(f"{self._name} returned None: an energy must return its value")
        return as_array(value, self._name)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.names

    def _supports(self) -> Mapping[str, Support | None]:
        return dict(self.declared)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


def energy(function: Callable[..., Any] | None = None, /, **supports: Support) -> Any:
    """Make an energy from a function of named variables; a decorator.

    Args:
        function: a function that returns a scalar. Parameters with a default are no variables.
        **supports: the support of a variable, by name; unknown where none is given.

    Returns:
        An `Energy`, or a decorator that makes one.

    Raises:
        TypeError: when the function takes `*args` or `**kwargs`, or a support is none.
        ValueError: when a support is given for what is no variable.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> @en.energy(tau=en.Positive(), theta=en.Real((8,)))
        ... def prior(theta, tau):
        ...     return jnp.sum(theta**2) / (2 * tau**2) + 8 * jnp.log(tau)
        >>> prior.variables
        ('theta', 'tau')
        >>> float(prior(theta=jnp.zeros(8), tau=1.0))
        0.0
    """
    if function is None:
        return lambda function: energy(function, **supports)
    if not callable(function) or isinstance(function, type | Energy):
        raise TypeError(f"energy() takes a function, got {function!r}")
    made = FunctionEnergy(function)
    check_supports(made, supports)
    return FunctionEnergy(function, tuple(supports.items()))
