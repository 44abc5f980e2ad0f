"""The algebra of energies: lazy final nodes, each a pytree whose numbers are array leaves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, as_float, is_concrete, strong
from energia.energies._energy import (
    Energy,
    _call_parameters,
    _check_known,
    _check_supports,
)
from energia.energies._trainable import constant
from energia.supports import Support, join


def _union(energies: Sequence[Energy]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for energy in energies for name in energy.variables))


def _joined_supports(energies: Sequence[Energy], where: str) -> dict[str, Support | None]:
    supports: dict[str, Support | None] = {}
    for energy in energies:
        for name, support in energy.supports.items():
            supports[name] = join(supports.get(name), support, name, where)
    return supports


class _Joined(Energy):
    """Several energies over the union of their variables, joined by name."""

    energies: eqx.AbstractVar[tuple[Energy, ...]]

    def __check_init__(self):
        for energy in self.energies:
            if not isinstance(energy, Energy):
                raise TypeError(f"{self._name} takes energies, got {energy!r}")
        _joined_supports(self.energies, self._formula())

    @property
    def variables(self) -> tuple[str, ...]:
        return _union(self.energies)

    def _supports(self) -> Mapping[str, Support | None]:
        return _joined_supports(self.energies, self._formula())

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if args and len(self.variables) > 1:
            raise TypeError(
                f"{self._formula()} has the variables {self.variables}: pass them by name or with "
                ".at({...}), since the order of a sum's terms should not matter"
            )
        return super()._bind(args, kwargs)

    def _parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[jax.Array]:
        values = self._bind(args, kwargs)
        return [e(**{name: values[name] for name in e.variables}) for e in self.energies]


class Sum(_Joined):
    r"""$\sum_i E_i$: a product of experts. Written `E1 + E2`."""

    energies: tuple[Energy, ...]

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        parts = self._parts(args, kwargs)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _formula(self) -> str:
        text = self.energies[0]._formula()
        for energy in self.energies[1:]:
            term = energy._formula()
            negative = isinstance(energy, Scaled) and term.startswith("-")
            text += f" - {term[1:]}" if negative else f" + {term}"
        return text


class Mixture(_Joined):
    r"""$-\log \sum_i w_i e^{-E_i}$: "or". See `mixture`."""

    energies: tuple[Energy, ...]
    log_weights: jax.Array = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        parts = jnp.stack(self._parts(args, kwargs))
        return -jax.nn.logsumexp(self.log_weights - parts)

    def _formula(self) -> str:
        if is_concrete(self.log_weights) and self.log_weights.ndim == 1:
            weights = [f"{w:.3g}" for w in np.exp(self.log_weights)]
        else:
            weights = ["w"] * len(self.energies)
        parts = [f"{w}: {e._formula()}" for w, e in zip(weights, self.energies, strict=True)]
        return f"mixture({', '.join(parts)})"


class Scaled(Energy):
    r"""$w E$: a weight, or a temperature $T = 1/w$. Written `w * E` and `E / T`."""

    energy: Energy
    weight: jax.Array = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.weight * self.energy(**self._bind(args, kwargs))

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self.energy._bind(args, kwargs)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _formula(self) -> str:
        inner = self.energy._formula()
        if isinstance(self.energy, Sum):
            inner = f"({inner})"
        if not (is_concrete(self.weight) and self.weight.ndim == 0):
            return f"w·{inner}"
        weight = f"{float(self.weight):.4g}"
        return {"1": inner, "-1": f"-{inner}"}.get(weight, f"{weight}·{inner}")


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

    @property
    def names(self) -> tuple[str, ...]:
        function = self.function
        return _call_parameters(type(function) if isinstance(function, eqx.Module) else function)

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

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if args and len(self.variables) > 1 and isinstance(self.energy, _Joined):
            return _Joined._bind(self, args, kwargs)  # pyright: ignore[reportArgumentType]
        return super()._bind(args, kwargs)

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

    def _formula(self) -> str:
        inner = self.energy._formula()
        if isinstance(self.energy, Sum):
            inner = f"({inner})"
        changes = []
        for name, replacement in self.replacements.items():
            match replacement:
                case _Name():
                    changes.append(f"{name}→{replacement.name}")
                case _Value():
                    changes.append(f"{name}={_short(replacement.value)}")
                case _:
                    changes.append(f"{name}=f({', '.join(replacement.names)})")
        return f"{inner}|{', '.join(changes)}"


class Constrained(Energy):
    """An energy with supports attached; its values are unchanged."""

    energy: Energy
    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.energy(*args, **kwargs)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self.energy._bind(args, kwargs)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support | None]:
        return {**self.energy.supports, **dict(self.declared)}

    def _formula(self) -> str:
        return self.energy._formula()


class Frozen(Energy):
    """An energy that `en.fit` never trains."""

    energy: Energy = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.energy(*args, **kwargs)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self.energy._bind(args, kwargs)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _formula(self) -> str:
        return self.energy._formula()


# --- constructors: they keep the algebra flat


def add(*energies: Energy) -> Energy:
    """`E1 + E2 + ...` as one flat sum."""
    terms: list[Energy] = []
    for energy in energies:
        terms.extend(energy.energies if isinstance(energy, Sum) else (energy,))
    return Sum(tuple(terms))


def scale(energy: Energy, weight: jax.Array) -> Energy:
    """`weight * energy`, with nested weights multiplied."""
    if isinstance(energy, Scaled):
        return Scaled(energy.energy, strong(weight * energy.weight))
    return Scaled(energy, weight)


def mixture(energies: Sequence[Energy], weights: Any = None) -> Mixture:
    r"""$-\log \sum_i w_i e^{-E_i}$: "or", where a sum is "and".

    The weights multiply densities as they stand: of unnormalised energies the shares of the
    components in the mixture are $w_i Z_i / \sum_j w_j Z_j$, not $w_i$.

    Args:
        energies: at least one energy; variables join by name.
        weights: a positive number an energy, not necessarily summing to one; equal by default.
            Never trained.

    Raises:
        ValueError: when the weights do not fit the energies or are not positive, or supports clash.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> both = en.mixture([en.Gaussian(-2.0), en.Gaussian(2.0)], weights=[0.3, 0.7])
        >>> print(both)
        mixture(0.3: Gaussian(x), 0.7: Gaussian(x))  [x: real (); 4 parameters]
    """
    energies = tuple(energies)
    if not energies:
        raise ValueError("mixture() needs at least one energy")
    count = len(energies)
    weights = as_float([1 / count] * count if weights is None else weights)
    if weights.shape != (count,):
        raise ValueError(f"mixture() of {count} energies got weights of shape {weights.shape}")
    if is_concrete(weights):
        if not (np.all(np.isfinite(weights)) and np.all(np.asarray(weights) > 0)):
            raise ValueError(f"the weights of a mixture must be positive, got {weights.tolist()}")
        return Mixture(energies, as_float(np.log(np.asarray(weights))))
    return Mixture(energies, jnp.log(weights))


def condition(energy: Energy, values: Mapping[str, Any]) -> Substituted:
    """See `Energy.condition`."""
    _check_known(energy, values, "condition")
    supports = energy.supports
    fixed = {name: _Value(_fitting(value, supports[name], name)) for name, value in values.items()}
    return _replace(energy, fixed)


def rename(energy: Energy, names: Mapping[str, str]) -> Substituted:
    """See `Energy.rename`."""
    _check_known(energy, names, "rename")
    new = [names.get(name, name) for name in energy.variables]
    for name in new:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"rename() needs names that can be parameters, got {name!r}")
        if new.count(name) > 1:
            raise ValueError(
                f"rename() would give two variables of {energy._formula()} the name {name!r}: "
                f"to tie them, use .substitute, to join energies over {name!r}, add them"
            )
    return _replace(energy, {old: _Name(name) for old, name in names.items()})


def substitute(energy: Energy, functions: Mapping[str, Callable[..., Any]]) -> Substituted:
    """See `Energy.substitute`."""
    _check_known(energy, functions, "substitute")
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(
                f"substitute({name}=...) takes a function of other variables, got {function!r}: "
                f"condition({name}=...) fixes a value, rename({name}=...) gives another name"
            )
    return _replace(energy, {name: _Function(function) for name, function in functions.items()})


def constrain(energy: Energy, supports: Mapping[str, Support]) -> Constrained:
    """See `Energy.constrain`."""
    _check_known(energy, supports, "constrain")
    _check_supports(energy, supports)
    if isinstance(energy, Constrained):
        return Constrained(energy.energy, tuple({**dict(energy.declared), **supports}.items()))
    return Constrained(energy, tuple(supports.items()))


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
    if support is None:
        return as_array(value)
    array = as_array(value) if support.discrete else as_float(value)
    if array.shape != support.shape:
        raise ValueError(
            f"condition({name}=...) needs shape {support.shape} ({support}), got {array.shape}"
        )
    if is_concrete(array):
        inside = np.asarray(support.contains(array))
        if not inside.all():
            where = tuple(int(i[0]) for i in np.nonzero(~inside)) if array.ndim else ()
            raise ValueError(
                f"condition({name}=...) got {np.asarray(array)[where]} at {where or 'its value'}, "
                f"outside its support {support}"
            )
        return as_array(np.asarray(array).astype(support.dtype))
    return array.astype(support.dtype)


def _short(value: Any) -> str:
    if not is_concrete(value):
        return "·"
    if np.size(value) > 3:
        return f"array{np.shape(value)}"
    with np.printoptions(precision=4):
        return str(np.asarray(value)).replace("\n", "")
