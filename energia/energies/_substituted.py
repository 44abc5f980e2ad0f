"""Variables of an energy replaced: by a value, another name, or a function of other variables."""

import keyword
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import as_array, as_float, is_concrete
from energia.energies._checks import check_known
from energia.energies._energy import Energy, parameters_of
from energia.energies._trainable import constant
from energia.supports import Support


class _Name(eqx.Module):
    """A variable replaced by another name."""

    name: str = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return values[self.name]


class _Value(eqx.Module):
    """A variable replaced by a fixed value."""

    value: jax.Array = constant()

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.value


class _Function(eqx.Module):
    """A variable replaced by a function of other variables."""

    function: Callable[..., Any]
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.names = parameters_of(function, getattr(function, "__name__", type(function).__name__))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.function(**{name: values[name] for name in self.names})


_Replacement = _Name | _Value | _Function


class Substituted(Energy):
    """An energy with some variables replaced: by another name, a value, or a function."""

    energy: Energy
    replacements: dict[str, _Replacement]

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs)
        inner = {
            name: self.replacements[name](values) if name in self.replacements else values[name]
            for name in self.energy.variables
        }
        return self.energy(**inner)

    @property
    def variables(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for name in self.energy.variables:
            replacement = self.replacements.get(name)
            names |= dict.fromkeys((name,) if replacement is None else replacement.names)
        return tuple(names)

    def _supports(self) -> Mapping[str, Support | None]:
        supports: dict[str, Support | None] = {}
        for name, support in self.energy.supports.items():
            replacement = self.replacements.get(name)
            if replacement is None:
                supports[name] = support
            elif isinstance(replacement, _Name):
                supports[replacement.name] = support
        return supports

    @property
    def _ordered(self) -> bool:
        return self.energy._ordered

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        return self.energy._formula(self._shown(shown or {}))

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return self.energy._factor(self._shown(shown or {}))

    def _shown(self, outer: Mapping[str, str]) -> dict[str, str]:
        """What stands in the place of the inner energy's variables."""
        inner = {name: outer[name] for name in self.energy.variables if name in outer}
        for name, replacement in self.replacements.items():
            match replacement:
                case _Name(name=new):
                    inner[name] = outer.get(new, new)
                case _Value(value=value):
                    inner[name] = f"{name}={_short(value)}"
                case _:
                    sources = (outer.get(source, source) for source in replacement.names)
                    inner[name] = f"{name}=f({', '.join(sources)})"
        return inner


def condition(energy: Energy, values: Mapping[str, Any]) -> Substituted:
    """See `Energy.condition`."""
    check_known(energy, values, "condition")
    supports = energy.supports
    fixed = {name: _Value(_fitting(value, supports[name], name)) for name, value in values.items()}
    return _replace(energy, fixed)


def rename(energy: Energy, names: Mapping[str, str]) -> Substituted:
    """See `Energy.rename`."""
    check_known(energy, names, "rename")
    new = [names.get(name, name) for name in energy.variables]
    for name in new:
        if not (isinstance(name, str) and name.isidentifier()) or keyword.iskeyword(name):
            raise ValueError(f"rename() needs names that can be parameters, got {name!r}")
        if new.count(name) > 1:
            raise ValueError(
                f"rename() would give two variables of {energy._formula()} the name {name!r}: "
                f"to tie them, use .substitute, to join energies over {name!r}, add them"
            )
    return _replace(energy, {old: _Name(name) for old, name in names.items()})


def substitute(energy: Energy, functions: Mapping[str, Callable[..., Any]]) -> Substituted:
    """See `Energy.substitute`."""
    check_known(energy, functions, "substitute")
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(
                f"substitute({name}=...) takes a function of other variables, got {function!r}: "
                f"condition({name}=...) fixes a value, rename({name}=...) gives another name"
            )
    return _replace(energy, {name: _Function(function) for name, function in functions.items()})


def _replace(energy: Energy, new: dict[str, Any]) -> Substituted:
    """Replace variables, merged with an earlier replacement where no function stands between."""
    if isinstance(energy, Substituted) and not any(
        isinstance(old, _Function) and set(old.names) & set(new)
        for old in energy.replacements.values()
    ):
        merged: dict[str, Any] = {
            name: new.pop(old.name) if isinstance(old, _Name) and old.name in new else old
            for name, old in energy.replacements.items()
        }
        return Substituted(energy.energy, {**merged, **new})
    return Substituted(energy, new)


def _fitting(value: Any, support: Support | None, name: str) -> jax.Array:
    """The value in the dtype of its support, checked against it as far as it can be seen."""
    what = f"condition({name}=...)"
    if support is None:
        return as_array(value, what)
    array = as_array(value, what) if support.discrete else as_float(value, what)
    if array.shape != support.shape:
        raise ValueError(f"{what} needs shape {support.shape} ({support}), got {array.shape}")
    if is_concrete(array):
        numbers = np.asarray(array)
        inside = np.asarray(support.contains(numbers))
        if not inside.all():
            where = tuple(int(i[0]) for i in np.nonzero(~inside)) if array.ndim else ()
            raise ValueError(
                f"{what} got {numbers[where]} at {where or 'its value'}, "
                f"outside its support {support}"
            )
        return as_array(numbers.astype(support.dtype))
    return array.astype(support.dtype)


def _short(value: Any) -> str:
    if not is_concrete(value):
        return "·"
    if np.size(value) > 3:
        return f"array{np.shape(value)}"
    with np.printoptions(precision=4):
        return str(np.asarray(value)).replace("\n", "")
