"""Energies made from functions."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

from energia._types import as_array, parameters_of
from energia.energies._checks import check_supports
from energia.energies._energy import Energy
from energia.supports import Support


class OfFunction(Energy):
    """What energies made from a function share: its parameters are their variables."""

    function: Callable[..., Any]
    names: tuple[str, ...] = eqx.field(static=True)
    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.names

    def _supports(self) -> Mapping[str, Support | None]:
        return dict(self.declared)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class FunctionEnergy(OfFunction):
    """An energy made from a function; see `energy`."""

    of_dict: bool = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[..., Any],
        declared: tuple[tuple[str, Support], ...] = (),
        *,
        of_dict: bool = False,
    ):
        self.function = function
        self.declared = declared
        self.of_dict = of_dict
        names = tuple(name for name, _ in declared)
        self.names = names if of_dict else parameters_of(function, self._name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs) if self.of_dict else None
        try:
            value = self.function(*args, **kwargs) if values is None else self.function(values)
        except Exception as error:  # a user's function raises what it likes, and all goes on
            error.add_note(self._where(error, args, kwargs))
            raise
        if value is None:
            raise TypeError(f"{self._name} returned None: an energy must return its value")
        return as_array(value, self._name)

    def _where(self, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """What to know of an error that the function raised."""
        given = dict(zip(self.names, args, strict=False)) | dict(kwargs)
        told = (
            f"{n} of shape {x.shape}" if hasattr(x, "shape") else f"{n} of type {type(x).__name__}"
            for n, x in given.items()
        )
        note = f"raised by the energy {self._name!r}, called with {', '.join(told)}"
        if isinstance(error, jax.errors.ConcretizationTypeError):
            note += (
                ": JAX traces it, with no numbers in its variables, so that `if`, `while`, bool(), "
                "float() and NumPy's functions cannot look at them: jnp.where(condition, a, b) and "
                "jax.numpy can"
            )
        return note


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


def from_log_density(
    function: Callable[..., Any], supports: Mapping[str, Support] | Support | None = None, /
) -> Energy:
    r"""The energy $E = -\log p$ of a log density, normalised or not, written as any JAX function.

    Args:
        function: returns a scalar, $\log p$ up to a constant. Its parameters are the variables; or
            it takes one dict of values by variable name, where its only parameter is no name in
            `supports`. Arrays inside an Equinox module given as a function are trained.
        supports: the support of each variable by name, of those that are known; or one support,
            for a function of one variable. A function of a dict needs one for each variable.

    Raises:
        TypeError: when what is given is no function or no support.
        ValueError: when a support is given for what is no variable.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> def log_density(tau, theta):
        ...     return -tau - jnp.sum(theta**2) / (2 * tau**2) - 8 * jnp.log(tau)
        >>> E = en.from_log_density(log_density, {"tau": en.Positive(), "theta": en.Real(8)})
        >>> print(E)
        -log_density(tau, theta)  [tau: positive (), theta: real (8,); 0 parameters]
        >>> float(en.from_log_density(lambda values: -values["a"] ** 2, {"a": en.Real()})(3.0))
        9.0
    """
    if not callable(function) or isinstance(function, type | Energy):
        raise TypeError(f"from_log_density() takes a function, got {function!r}")
    name = getattr(function, "__name__", type(function).__name__)
    parameters: tuple[str, ...] = parameters_of(function, name)
    if isinstance(supports, Support):
        if len(parameters) > 1:
            raise ValueError(
                f"from_log_density() got one support for the variables {parameters} of {name}: "
                "give a dict of them by name"
            )
        supports = dict.fromkeys(parameters, supports)
    declared = dict(supports or {})
    of_dict = len(parameters) == 1 and bool(declared) and parameters[0] not in declared
    made = FunctionEnergy(function, tuple(declared.items()), of_dict=of_dict)
    check_supports(made, declared)
    return -made
