"""Variables of an energy replaced: by a value, another name, or a function of other variables."""

import keyword
from collections.abc import Callable, Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import as_array, as_float, is_concrete, parameters_of
from energia.energies._checks import check_fixed, check_inside, check_known, checked
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Factors
from energia.energies._trainable import constant
from energia.supports import Interval, Support


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
    label: str = eqx.field(default="", static=True)
    """What the variable was called by whoever fixed it; nothing for a constant of a class."""

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
        return self.energy(**self._inner(self._bind(args, kwargs)))

    def _inner(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the inner energy's variables, of those that the given values determine."""
        inner = {}
        for name in self.energy.variables:
            replacement = self.replacements.get(name, _Name(name))
            if all(source in values for source in replacement.names):
                inner[name] = replacement(values)
        return inner

    def _origin(self, name: str) -> str | None:
        """The inner energy's name of a variable; None where it is only an argument of functions."""
        for inner in self.energy.variables:
            replacement = self.replacements.get(inner, _Name(inner))
            if isinstance(replacement, _Name) and replacement.name == name:
                return inner
        return None

    @property
    def variables(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for name in self.energy.variables:
            replacement = self.replacements.get(name)
            names |= dict.fromkeys((name,) if replacement is None else replacement.names)
        return tuple(names)

    def _supports(self) -> Mapping[str, Support | None]:
        supports: dict[str, Support | None] = {}
        sources = {name: new.names for name, new in self.replacements.items()}
        for name, support in self.energy.supports.items():
            replacement = self.replacements.get(name, _Name(name))
            if isinstance(replacement, _Name):
                if support is not None and support.functional:
                    support = support.renamed(sources)
                supports[replacement.name] = support
        return supports

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        origin = self._origin(name)
        if origin is None:
            return None
        # a bound may depend on what is no variable here, but one of another term
        foreign = {n: value for n, value in values.items() if n not in self.energy.variables}
        return self.energy._support_at(origin, foreign | self._inner(values))

    def _terms(self) -> tuple[Energy, ...]:
        terms = self.energy._terms()
        if len(terms) == 1:
            return (self,)
        parts = []
        for term in terms:
            own = {n: new for n, new in self.replacements.items() if n in term.variables}
            parts.append(Substituted(term, own) if own else term)
        return tuple(parts)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        origin = self._origin(name)
        places = [self.replacements.get(n, _Name(n)).names for n in self.energy.variables]
        if origin is None or sum(name in names for names in places) > 1:  # tied
            return super()._factorize(name, values)
        return self.energy._factorize(origin, self._inner(values))

    def _multilinear(self, names: Collection[str]) -> bool:
        sources = {n: self.replacements.get(n, _Name(n)) for n in self.energy.variables}
        through = [s for s in sources.values() if set(s.names) & set(names)]
        tied = len(through) > len(set(names) & set(self.variables))
        inner = [n for n, source in sources.items() if source in through]
        plain = all(isinstance(source, _Name) for source in through)
        return plain and not tied and self.energy._multilinear(inner)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        inner = self._inner(values)
        outer = {}
        for name in self.energy.variables:
            replacement = self.replacements.get(name, _Name(name))
            if name not in inner and isinstance(replacement, _Name):
                outer[name] = replacement.name
        free = [name for name in self.variables if name not in values]
        # a function of what is free ties it to nothing that could be drawn
        if sorted(outer.values()) != sorted(free) or len(outer) + len(inner) < len(
            self.energy.variables
        ):
            return super()._exact(values)
        whole = self.energy._exact(inner)
        if whole is None:
            return super()._exact(values)

        def draw(key: jax.Array) -> dict[str, jax.Array]:
            return {outer[name]: value for name, value in whole.draw(key).items()}

        return Exact(draw, whole.log_partition, whole.constant or not values)

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        inner = self.energy._subsample(key, batch_size)
        return self if inner is self.energy else Substituted(inner, self.replacements)

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
                case _Value(value=value, label=label):
                    inner[name] = f"{label or name}={_short(value)}"
                case _:
                    sources = (outer.get(source, source) for source in replacement.names)
                    inner[name] = f"{name}=f({', '.join(sources)})"
        return inner


def condition(energy: Energy, values: Mapping[str, Any]) -> Substituted:
    """See `Energy.condition`."""
    check_known(energy, values, "condition")
    supports = energy.supports
    fixed = {name: _fitting(value, supports[name], name) for name, value in values.items()}
    check_fixed(energy, fixed, "condition")
    for name, value in fixed.items():
        if (support := supports[name]) is None or not support.functional:
            continue
        there = energy._support_at(name, fixed)  # its bounds are fixed beside it, or were before
        if isinstance(there, Interval) and all(map(is_concrete, (value, there.low, there.high))):
            check_inside(np.asarray(value), there, f"condition({name}=...)")
    return _replace(energy, {name: _Value(value, name) for name, value in fixed.items()})


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


def replace(energy: Energy, new: Mapping[str, Any]) -> Substituted:
    """Replace variables all at once: by a name (str), a function, or a value (an array)."""

    def kind(value: Any) -> _Replacement:
        if isinstance(value, str):
            return _Name(value)
        return _Function(value) if callable(value) else _Value(value)

    return Substituted(energy, {name: kind(value) for name, value in new.items()})


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
    """The value in the dtype and the shape of its support."""
    what = f"condition({name}=...)"
    if support is None:
        return as_array(value, what)
    array = as_array(value, what) if support.discrete else as_float(value, what)
    if array.shape != support.shape:
        raise ValueError(f"{what} needs shape {support.shape} ({support}), got {array.shape}")
    return checked(array, support, what)


def _short(value: Any) -> str:
    if not is_concrete(value):
        return "·"
    if np.size(value) > 3:
        return f"array{np.shape(value)}"
    with np.printoptions(precision=4):
        return str(np.asarray(value)).replace("\n", "")
