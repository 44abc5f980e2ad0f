"""Variables summed out: free energies, in closed form or by enumeration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array
from energia.energies._algebra import Mixture, add, not_subsampled, with_supports
from energia.energies._checks import check_known
from energia.energies._elimination import evaluate, plan
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.supports import Discrete, Support


class Marginal(Energy):
    r"""$-\log \sum_h e^{-E(v, h)}$: the free energy. Written `E.marginalize('h')`."""

    energy: Energy
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        # a NumPy array cannot be indexed by a traced state
        values = {n: as_array(v) for n, v in self._bind(args, kwargs).items()}
        shapes = {
            n: jax.ShapeDtypeStruct(jnp.shape(v), jnp.result_type(v)) for n, v in values.items()
        }
        return evaluate(plan(self.energy, self.names, shapes), values)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name in self.energy.variables if name not in self.names)

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        return self.energy._support_at(name, values)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        whole = self.energy._exact(values)
        if whole is None:
            return super()._exact(values)

        def draw(key: jax.Array) -> dict[str, jax.Array]:
            drawn = whole.draw(key)
            return {name: value for name, value in drawn.items() if name not in self.names}

        return Exact(draw, whole.log_partition, whole.constant)

    def _subsample(self, key: jax.Array, batch_size: int) -> Energy:
        return not_subsampled(self, (self.energy,), key, batch_size)

    @property
    def _ordered(self) -> bool:
        return self.energy._ordered

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        inner = {n: text for n, text in (shown or {}).items() if n not in self.names}
        supports = self.energy.supports
        known = [support for name in self.names if (support := supports[name]) is not None]
        sign = "Σ" if known and all(support.discrete for support in known) else "∫"
        return f"-log {sign}_{{{', '.join(self.names)}}} exp(-{self.energy._factor(inner)})"

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return f"({self._formula(shown)})"


def marginalize(energy: Energy, names: Sequence[str]) -> Energy:
    """See `Energy.marginalize`."""
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise TypeError(
            f"marginalize() takes names one by one, marginalize('a', 'b'); got {wrong[0]!r}"
        )
    names = tuple(dict.fromkeys(names))
    check_known(energy, dict.fromkeys(names), "marginalize")
    supports = energy.supports
    for name in names:
        _check_support(energy, name, supports)
    for name, support in supports.items():
        bounding = [n for n in names if support is not None and n in support.depends]
        if bounding and name not in names:
            raise ValueError(
                f"marginalize() cannot sum over {bounding}: the support of {name!r} depends on it"
            )
    if len(energy.variables) == len(names):
        raise ValueError(
            f"marginalize() would leave no variable of {energy._formula()}: its normaliser is a "
            "number, not an energy"
        )
    return _summed(energy, names)


def _summed(energy: Energy, names: tuple[str, ...]) -> Energy:
    """The marginal; terms and parts that lose every variable are numbers in it."""
    supports = energy.supports
    kept: list[Energy] = []
    groups: list[tuple[list[Energy], set[str]]] = []  # terms joined by the variables they share
    for term in energy._terms():
        own = set(term.variables) & set(names)
        joined = [group for group in groups if group[1] & own]
        if not own:
            kept.append(term)
            continue
        groups = [group for group in groups if not group[1] & own]
        terms = [other for group in joined for other in group[0]]
        groups.append(([*terms, term], own.union(*(group[1] for group in joined))))
    parts = [
        _one_group(with_supports(terms, supports), tuple(n for n in names if n in own))
        for terms, own in groups
    ]
    return add(*kept, *parts) if len(kept) + len(parts) > 1 else parts[0]


def _one_group(energy: Energy, names: tuple[str, ...]) -> Energy:
    if isinstance(energy, Mixture):
        return _of_mixture(energy, names)
    if isinstance(energy, Marginal):  # one elimination, in whatever order suits
        energy, names = energy.energy, (*energy.names, *names)
    supports = energy.supports
    others = {n: s for n, s in supports.items() if n not in names}
    if all(support is not None for support in others.values()):
        shapes = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in others.items() if s}
        plan(energy, names, shapes)  # raises what cannot be done
    return Marginal(energy, names)


def _of_mixture(energy: Mixture, names: tuple[str, ...]) -> Energy:
    """A mixture of the marginals; a part that lacks a variable has it free, and so many times."""
    parts, extra = [], []
    for part in energy.energies:
        own = tuple(name for name in names if name in part.variables)
        free = [energy.supports[name] for name in names if name not in own]
        lost = {n: s for n in own if part.supports[n] is None and (s := energy.supports[n])}
        count = 0.0
        for name, support in zip([n for n in names if n not in own], free, strict=True):
            if not isinstance(support, Discrete):
                raise ValueError(
                    f"marginalize({name!r}): {part._formula()} of the mixture lacks it, and it is "
                    f"{support}: its volume is infinite"
                )
            count += math.log(len(support.states)) * math.prod(support.shape)
        whole = part.constrain(**lost) if lost else part
        parts.append(_summed(whole, own) if own else whole)
        extra.append(count)
    return Mixture(tuple(parts), energy.log_weights + np.asarray(extra, energy.log_weights.dtype))


def _check_support(energy: Energy, name: str, supports: Mapping[str, Support | None]) -> None:
    if supports[name] is None:
        raise ValueError(
            f"marginalize({name!r}): its support in {energy._formula()} is unknown; say which "
            f"values it takes: .constrain({name}=en.Categorical(...)) or the like"
        )
