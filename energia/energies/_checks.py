"""Checks of what an energy is given, with errors that say what was expected and what came."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, as_float, check_broadcast, is_concrete
from energia.supports import Interval, Simplex, Support

if TYPE_CHECKING:
    from energia.energies._energy import Energy


def check_names(energy: "Energy", values: Mapping[str, Any]) -> None:
    """Raise unless there is a value for each variable, and no other."""
    variables = energy.variables
    if len(values) == len(variables) and all(name in values for name in variables):
        return
    missing = [name for name in variables if name not in values]
    unknown = [name for name in values if name not in variables]
    problems = [f"misses {missing}"] * bool(missing) + [f"does not know {unknown}"] * bool(unknown)
    raise TypeError(
        f"{energy._formula()} has the variables {variables}; it {' and '.join(problems)}"
    )


def bound(energy: "Energy", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values by variable name, from what a call of an energy was given."""
    variables = energy.variables
    if len(args) > len(variables):
        raise TypeError(
            f"{energy._name} has {len(variables)} variables {variables}, "
            f"got {len(args)} values by position"
        )
    if args and len(variables) > 1 and not energy._ordered:
        raise TypeError(
            f"{energy._formula()} has the variables {variables}: pass them by name or with "
            ".at({...}), since the order of a sum's terms should not matter"
        )
    values = dict(zip(variables, args, strict=False))
    if twice := [name for name in kwargs if name in values]:
        raise TypeError(f"{energy._name} got {twice} both by position and by name")
    values |= kwargs
    check_names(energy, values)
    return values


def own_values(energy: "Energy", values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an energy's variables, of those that are given."""
    return {name: values[name] for name in energy.variables if name in values}


def check_known(energy: "Energy", names: Mapping[str, Any], what: str) -> None:
    """Raise unless the names are variables, and at least one."""
    if not names:
        raise ValueError(f"{what}() needs at least one variable of {energy.variables}")
    variables = energy.variables
    if unknown := [name for name in names if name not in variables]:
        raise ValueError(
            f"{what}() got {unknown}; the variables of {energy._formula()} are {variables}"
        )


def check_supports(energy: "Energy", supports: Mapping[str, Support]) -> None:
    """Raise unless the names are variables and what they are given are supports."""
    variables = energy.variables
    for name, support in supports.items():
        if name not in variables:
            raise ValueError(
                f"a support is given for {name!r}; "
                f"the variables of {energy._formula()} are {variables}"
            )
        if not isinstance(support, Support):
            hint = ": write en.Real()" if isinstance(support, type) else ""
            raise TypeError(f"{name}= must be a support such as en.Real(), got {support!r}{hint}")


def real_scalar(value: Any, what: str) -> jax.Array:
    """A weight or a temperature as a floating-point scalar, finite as far as it can be seen."""
    with np.errstate(over="ignore"):  # a number too large becomes infinite, and is refused below
        value = as_float(value, f"{what} of an energy")
    if value.shape != ():
        raise TypeError(
            f"{what} of an energy must be a scalar, got an array of shape {value.shape}: "
            "use jax.vmap for a batch of them"
        )
    if is_concrete(value) and not np.isfinite(value):
        raise ValueError(f"{what} of an energy must be finite, got {value}")
    return value


def one_value(energy: "Energy", value: Any, shape: tuple[int, ...]) -> jax.Array:
    """The value of an energy's real variable as a float array; any shape but its own raises.

    Arithmetic would broadcast a batch and sum over it in silence.
    """
    value = as_float(value, energy._name)
    if value.shape != shape:
        raise ValueError(
            f"{energy._formula()} takes one value of shape {shape}, got {value.shape}: "
            "batches are made with jax.vmap"
        )
    return value


def positive(value: Any, name: str, shape: tuple[int, ...] = ()) -> jax.Array:
    """Positive, finite numbers that broadcast to a shape; by default one number."""
    value = broadcastable(value, name, shape)
    if is_concrete(value):
        numbers = np.asarray(value)
        if not (np.all(numbers > 0) and np.all(np.isfinite(numbers))):
            raise ValueError(f"{name} must be positive and finite, got {numbers.tolist()}")
    return value


def broadcastable(value: Any, name: str, shape: tuple[int, ...]) -> jax.Array:
    """A float array that broadcasts to a shape without widening it."""
    value = as_float(value, name)
    check_broadcast(value.shape, shape, name)
    return value


def check_inside(array: np.ndarray, support: Support, label: str) -> None:
    """Raise unless data lie in a support, to which leading axes may be added."""
    inside = np.asarray(support.contains(array))
    if isinstance(support, Interval):  # its ends are no draws, but they are common in data
        low, high = support.ends(array.dtype)
        inside = np.asarray(inside | (array == low) | (array == high))
    of = ", whose entries are positive and sum to 1" if isinstance(support, Simplex) else ""
    check_all(np.asarray(inside), array, label, f"outside its support {support}{of}")


def checked(array: jax.Array, support: Support, what: str) -> jax.Array:
    """Data in the dtype of their support, checked against it as far as they can be seen."""
    if not is_concrete(array):
        return array.astype(support.dtype)
    if not support.functional:
        # whole numbers are looked for before the cast, which would make them
        check_inside(np.asarray(array), support, what)
    return as_array(np.asarray(array).astype(support.dtype))


def check_fixed(energy: "Energy", fixed: Mapping[str, Any], what: str) -> None:
    """Raise where a variable is fixed within bounds that a variable which stays would move.

    The variable that stays would have to keep to the values that leave the fixed one inside, which
    no support says.
    """
    for name in fixed:
        support = energy.supports[name]
        staying = [] if support is None else [n for n in support.depends if n not in fixed]
        if staying:
            raise ValueError(
                f"{what}({name}=...): its support {support} depends on {staying}, so that the "
                f"value would bound {staying} in turn: fix them beside it or before, or say "
                f".constrain({name}=...) with a support of numbers, and .constrain({staying[0]}"
                "=...) with the values that are left"
            )


def check_rows(energy: "Energy", name: str, rows: Mapping[str, Any], label: str) -> None:
    """Raise unless rows of a variable whose bounds are functions lie within them, ends included."""
    support = energy.supports[name]
    assert support is not None

    def inside(row: dict[str, Any]) -> jax.Array:
        there = energy._support_at(name, row)
        assert isinstance(there, Interval)
        low, high = there.ends(row[name].dtype)
        return (row[name] >= low) & (row[name] <= high)

    own = {other: jnp.asarray(rows[other]) for other in (name, *support.depends)}
    good = np.asarray(jax.vmap(inside)(own))
    check_all(good, np.asarray(rows[name]), label, f"outside its support {support}")


def check_all(good: np.ndarray, array: np.ndarray, label: str, problem: str) -> None:
    """Raise where an entry is not good, with the first of them and where it stands."""
    if good.all():
        return
    where = tuple(int(i[0]) for i in np.nonzero(~good)) if good.ndim else ()
    shown = array[where]
    count = int(np.sum(~good))
    values = "1 value" if count == 1 else f"{count} values"
    at = f" at index {where}" if where else ""
    raise ValueError(f"{label} has {values} {problem}; the first is {shown}{at}")


def not_scalar(energy: "Energy", result: Any, values: Mapping[str, Any]) -> str:
    """What is wrong with an energy whose result is no scalar."""
    shapes = {name: tuple(np.shape(value)) for name, value in values.items()}
    return (
        f"{energy._formula()} must return a scalar, got shape {tuple(result.shape)} from "
        f"variables of shape {shapes}: sum over the entries (an energy takes one configuration; "
        "batches are made with jax.vmap)"
    )
