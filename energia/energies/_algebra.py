"""The algebra of energies: lazy final nodes, each a pytree whose numbers are array leaves."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_float, is_concrete, log, strong
from energia.energies._checks import check_known, check_supports, own_values, positive
from energia.energies._energy import Energy
from energia.energies._exact import Exact, chosen, of_terms
from energia.energies._factors import Factors, logsumexp
from energia.energies._trainable import constant
from energia.supports import Support


def _union(energies: Sequence[Energy]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for energy in energies for name in energy.variables))


def _joined_supports(
    energies: Sequence[Energy], where: Callable[[], str]
) -> dict[str, Support | None]:
    supports: dict[str, Support | None] = {}
    for energy in energies:
        for name, support in energy.supports.items():
            known = supports.get(name)
            if support is None:
                supports.setdefault(name, None)
                continue
            if known is not None and (known != support or support.replaced):
                raise ValueError(
                    f"the supports of {name!r} clash in {where()}: {known!r} and {support!r}. "
                    f"Use .constrain({name}=...) on one side to say which holds"
                )
            supports[name] = support
    return supports


class _Joined(Energy):
    """Several energies over the union of their variables, joined by name."""

    energies: eqx.AbstractVar[tuple[Energy, ...]]

    def __check_init__(self):
        for energy in self.energies:
            if not isinstance(energy, Energy):
                raise TypeError(f"{self._name} takes energies, got {energy!r}")
        _joined_supports(self.energies, self._formula)

    @property
    def variables(self) -> tuple[str, ...]:
        return _union(self.energies)

    def _supports(self) -> Mapping[str, Support | None]:
        return _joined_supports(self.energies, self._formula)

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        for energy in self.energies:
            if energy.supports.get(name) is not None:
                return energy._support_at(name, values)
        return None

    @property
    def _ordered(self) -> bool:
        return False

    def _parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[jax.Array]:
        values = self._bind(args, kwargs)
        parts = [e(**{name: values[name] for name in e.variables}) for e in self.energies]
        for energy, part in zip(self.energies, parts, strict=True):
            if jnp.shape(part) != ():  # the sum of a vector and a scalar would look plausible
                raise TypeError(
                    f"{energy._formula()} must return a scalar, got shape {jnp.shape(part)}"
                )
        return parts


class Sum(_Joined):
    r"""$\sum_i E_i$: a product of experts. Written `E1 + E2`."""

    energies: tuple[Energy, ...]

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        parts = self._parts(args, kwargs)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _terms(self) -> tuple[Energy, ...]:
        return tuple(term for energy in self.energies for term in energy._terms())

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        base, touched = [], []
        for energy in self.energies:
            others = own_values(energy, values)
            if name not in energy.variables:
                base.append(energy.at(others))
            elif energy.supports[name] in (None, self.supports[name]):
                touched.append(_fitted(energy, name, others, self.supports[name]))
        if not touched or None in touched or len({type(factors) for factors in touched}) > 1:
            return super()._factorize(name, values)
        total = functools.reduce(operator.add, touched)
        return eqx.tree_at(lambda factors: factors.base, total, sum(base, start=total.base))

    def _multilinear(self, names: Collection[str]) -> bool:
        return all(energy._multilinear(names) for energy in self.energies)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        supports = self.supports
        terms = [with_supports((term,), supports) for term in self._terms()]
        return of_terms(terms, lambda terms: with_supports(terms, supports), values)

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        keys = jax.random.split(key, len(self.energies))
        pairs = zip(self.energies, keys, strict=True)
        parts = tuple(energy._subsample(subkey, batch_size) for energy, subkey in pairs)
        same = all(map(operator.is_, parts, self.energies))
        return self if same else Sum(parts)

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        text, *terms = [energy._formula(shown) for energy in self.energies]
        for term in terms:
            text += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
        return text

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return f"({self._formula(shown)})"


def _fitted(
    energy: Energy, name: str, values: Mapping[str, Any], support: Support | None
) -> Factors | None:
    """The factors of a variable whose support the energy itself may not know."""
    factors = energy._factorize(name, values)
    if factors is None or support is None or energy.supports[name] is not None:
        return factors
    return factors.fit(support)


class Mixture(_Joined):
    r"""$-\log \sum_i w_i e^{-E_i}$: "or". See `mixture`."""

    energies: tuple[Energy, ...]
    log_weights: jax.Array = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        parts = jnp.stack(self._parts(args, kwargs))
        return -logsumexp(self.log_weights - parts)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        free = {name for name in self.variables if name not in values}
        parts = []
        for energy in self.energies:
            own = own_values(energy, values)
            part = None
            if free == {name for name in energy.variables if name not in own}:
                part = with_supports((energy,), self.supports)._exact(own)
            if part is None:
                return None
            parts.append(part)
        return chosen(parts, self.log_weights, all(part.constant for part in parts))

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        return not_subsampled(self, self.energies, key, batch_size)

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        if is_concrete(self.log_weights) and self.log_weights.ndim == 1:
            weights = [f"{w:.3g}" for w in np.exp(self.log_weights)]
        else:
            weights = ["w"] * len(self.energies)
        parts = [f"{w}: {e._formula(shown)}" for w, e in zip(weights, self.energies, strict=True)]
        return f"mixture({', '.join(parts)})"


class _Wrapped(Energy):
    """One energy with the same variables, and by default the same values and supports."""

    energy: eqx.AbstractVar[Energy]

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.energy(*args, **kwargs)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        return self.energy._support_at(name, values)

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        inner = self.energy._subsample(key, batch_size)
        return self if inner is self.energy else dataclasses.replace(self, energy=inner)

    @property
    def _ordered(self) -> bool:
        return self.energy._ordered

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        return self.energy._formula(shown)

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return self.energy._factor(shown)


def not_subsampled(
    energy: Energy, parts: Iterable[Energy], key: jax.Array, batch_size: int
) -> Energy:
    """The energy itself; raises where a part holds data, since it is no sum of its rows."""
    if any(part._subsample(key, batch_size) is not part for part in parts):
        raise ValueError(
            f"the rows of data in {energy._formula()} cannot be subsampled: the energy is not "
            "linear in their sum, so that no estimate from a few of them would be unbiased"
        )
    return energy


class Scaled(_Wrapped):
    r"""$w E$: a weight, or a temperature $T = 1/w$. Written `w * E` and `E / T`."""

    energy: Energy
    weight: jax.Array = constant()

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.weight * self.energy(**self._bind(args, kwargs))

    def _terms(self) -> tuple[Energy, ...]:
        terms = self.energy._terms()
        return tuple(Scaled(term, self.weight) for term in terms) if len(terms) > 1 else (self,)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        factors = self.energy._factorize(name, values)
        return None if factors is None else factors.scale(self.weight)

    def _multilinear(self, names: Collection[str]) -> bool:
        return self.energy._multilinear(names)

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        inner = self.energy._factor(shown)
        if not (is_concrete(self.weight) and self.weight.ndim == 0):
            return f"w·{inner}"
        weight = f"{float(self.weight):.4g}"
        return {"1": inner, "-1": f"-{inner}"}.get(weight, f"{weight}·{inner}")

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        formula = self._formula(shown)
        return f"({formula})" if formula.startswith("-") else formula


class Constrained(_Wrapped):
    """An energy with supports attached; its values are unchanged."""

    energy: Energy
    declared: tuple[tuple[str, Support], ...] = eqx.field(static=True)

    def _supports(self) -> Mapping[str, Support | None]:
        return {**self.energy.supports, **dict(self.declared)}

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        declared = dict(self.declared)
        if name in declared:
            return declared[name].at(values)
        return self.energy._support_at(name, values)

    def _terms(self) -> tuple[Energy, ...]:
        declared = dict(self.declared)
        parts = [
            (term, tuple((n, declared[n]) for n in term.variables if n in declared))
            for term in self.energy._terms()
        ]
        if len(parts) == 1:
            return (self,)
        return tuple(Constrained(term, own) if own else term for term, own in parts)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        support, known = self.supports[name], self.energy.supports[name]
        if known is not None and support != known:  # other states
            return super()._factorize(name, values)
        factors = _fitted(self.energy, name, values, support)
        return super()._factorize(name, values) if factors is None else factors

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        known = self.energy.supports
        changed = [n for n, s in self.supports.items() if n not in values and s != known[n]]
        return super()._exact(values) if changed else self.energy._exact(values)


class Same(_Wrapped):
    """One energy, treated otherwise: its closed forms stay."""

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        return self.energy._exact(values)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        return self.energy._factorize(name, values)

    def _multilinear(self, names: Collection[str]) -> bool:
        return self.energy._multilinear(names)


class Frozen(Same):
    """An energy that `en.fit` never trains."""

    energy: Energy = constant()

    def _terms(self) -> tuple[Energy, ...]:
        terms = self.energy._terms()
        return tuple(Frozen(term) for term in terms) if len(terms) > 1 else (self,)


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


def mixture(energies: Iterable[Energy], weights: Any = None) -> Mixture:
    r"""$-\log \sum_i w_i e^{-E_i}$: "or", where a sum is "and".

    The weights multiply densities as they stand: of unnormalised energies the shares of the
    components in the mixture are $w_i Z_i / \sum_j w_j Z_j$, not $w_i$.

    Args:
        energies: at least one energy; variables join by name.
        weights: a positive number an energy, not necessarily summing to one; equal by default.
            Never trained.

    Raises:
        TypeError: when what is given is no list of energies.
        ValueError: when the weights do not fit the energies or are not positive, or supports clash.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> both = en.mixture([en.Gaussian(-2.0), en.Gaussian(2.0)], weights=[0.3, 0.7])
        >>> print(both)
        mixture(0.3: Gaussian(x), 0.7: Gaussian(x))  [x: real (); 4 parameters]
    """
    if isinstance(energies, Energy) or not isinstance(energies, Iterable):
        raise TypeError(f"mixture() takes energies in a list, mixture([E1, E2]); got {energies!r}")
    energies = tuple(energies)
    if wrong := [energy for energy in energies if not isinstance(energy, Energy)]:
        raise TypeError(f"mixture() takes energies, got {wrong[0]!r} among them")
    if not energies:
        raise ValueError("mixture() needs at least one energy")
    count = len(energies)
    weights = as_float([1 / count] * count if weights is None else weights, "weights")
    if weights.shape != (count,):
        raise ValueError(
            f"mixture() of {count} energies takes as many weights; got weights of shape "
            f"{weights.shape}"
        )
    return Mixture(energies, log(positive(weights, "the weights of a mixture", (count,))))


def with_supports(terms: Sequence[Energy], supports: Mapping[str, Support | None]) -> Energy:
    """The sum of terms, with supports that it does not know itself."""
    energy = add(*terms) if len(terms) > 1 else terms[0]
    lost = {
        name: support
        for name, known in energy.supports.items()
        if known is None and (support := supports[name]) is not None
    }
    return energy.constrain(**lost) if lost else energy


def constrain(energy: Energy, supports: Mapping[str, Support]) -> Constrained:
    """See `Energy.constrain`."""
    check_known(energy, supports, "constrain")
    check_supports(energy, supports)
    if isinstance(energy, Constrained):
        return Constrained(energy.energy, tuple({**dict(energy.declared), **supports}.items()))
    return Constrained(energy, tuple(supports.items()))
