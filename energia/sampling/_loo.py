"""The data factors of an energy, and the log-likelihood of each row at each draw."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from energia._types import is_concrete
from energia.energies._algebra import Constrained, Frozen, Scaled
from energia.energies._energy import Energy
from energia.energies._marginal import Marginal
from energia.energies._substituted import Substituted
from energia.energies._total import Total
from energia.sampling._predictive import push_forward


class DataFactor(NamedTuple):
    """A term that is a sum over rows, and what its likelihood is called."""

    term: Energy
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' or '.join(map(repr, self.names))}: {self.term._formula()}"


def data_factors(energy: Energy) -> list[DataFactor]:
    """The terms of an energy that are sums over rows, also behind new names, values, functions."""
    found = []
    for term in energy._terms():
        if (total := _total(term)) is not None:
            names = (*_names(total.energy), *total.rows)
            found.append(DataFactor(term, tuple(dict.fromkeys(names))))
    return found


def choose(energy: Energy | None, likelihood: str | Energy | None) -> DataFactor:
    """The data factor that is meant: given itself, by its name, or the only one there is."""
    if isinstance(likelihood, Energy):
        given = data_factors(likelihood)
        if len(given) != 1:
            raise ValueError(
                "loo() takes one data factor, en.total(likelihood, y=...), got "
                f"{likelihood._formula()}"
            )
        return given[0]
    if energy is None:
        raise ValueError(
            "these draws were loaded without their energy: give loo() the data factor itself, "
            "en.total(likelihood, y=...), or Draws.load(path, energy=E)"
        )
    there = data_factors(energy)
    if likelihood is not None:
        there = [factor for factor in there if likelihood in factor.names]
    if len(there) != 1:
        raise ValueError(_not_one(energy, likelihood, there))
    return there[0]


def _not_one(energy: Energy, likelihood: str | None, there: Sequence[DataFactor]) -> str:
    if not (known := data_factors(energy)):
        return (
            f"{energy._formula()} has no data factor: leave-one-out needs a likelihood of rows, "
            "en.total(likelihood, y=...), as a term of the energy"
        )
    listed = "; ".join(map(str, known))
    if likelihood is None:
        return f"loo() needs the name of one data factor: there are {listed}"
    if not there:
        return f"there is no data factor {likelihood!r}: there are {listed}"
    return (
        f"{len(there)} data factors are called {likelihood!r} ({listed}): give the one that is "
        "meant itself, en.total(...)"
    )


def log_likelihood(factor: DataFactor, positions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Minus the energy of each row at each draw, shape (chain, draw, row).

    Raises:
        ValueError: when the factor has other variables than the draws, carries a weight, or is not
            finite somewhere.
    """
    check_weight(factor.term)
    if unknown := [n for n in factor.term.variables if n not in positions]:
        raise ValueError(
            f"{factor.term._formula()} is a function of {unknown}; the draws have {list(positions)}"
        )
    values = {n: positions[n] for n in factor.term.variables}
    made = push_forward(_Pointwise(factor.term), values, positions, None)["rows"]
    if not (good := np.isfinite(made)).all():
        chain, draw, row = (int(axis[0]) for axis in np.nonzero(~good))
        raise ValueError(
            f"the log-likelihood of row {row} is {made[chain, draw, row]} at draw {draw} of "
            f"chain {chain}: leave-one-out needs it finite"
        )
    return made.astype(np.float64)


class _Pointwise(eqx.Module):
    term: Energy

    def __call__(self, values: dict[str, Any]) -> dict[str, jax.Array]:
        return {"rows": -_per_row(self.term, values)}


def _total(term: Energy) -> Total | None:
    """The sum over rows that a term is, with other names for its variables or a weight."""
    match term:
        case Total():
            return term
        case Substituted() | Scaled() | Constrained() | Frozen():
            return _total(term.energy)
        case _:
            return None


def _per_row(term: Energy, values: Mapping[str, Any]) -> jax.Array:
    match term:
        case Total():
            return term.per_row(values)
        case Substituted():
            return _per_row(term.energy, term._inner(values))
        case Scaled() | Constrained() | Frozen():
            return _per_row(term.energy, values)
        case _:
            raise TypeError(f"{term._formula()} is no sum over rows")


def check_weight(term: Energy) -> None:
    """Raise where a data factor has a weight: its rows then have no normalised density."""
    match term:
        case Scaled(weight=weight) | Total(weight=weight) if not (
            is_concrete(weight) and np.all(np.asarray(weight) == 1)
        ):
            raise ValueError(
                f"{term._formula()} weights its rows by {float(weight):.4g}, and a power of a "
                "density is no density: leave-one-out needs draws of the posterior at weight 1"
            )
        case Substituted() | Scaled() | Constrained() | Frozen():
            check_weight(term.energy)


def _names(energy: Energy) -> list[str]:
    """What the likelihood of a row is called: the names of the energies that it is made of."""
    match energy:
        case Substituted() | Scaled() | Constrained() | Frozen() | Marginal():
            return _names(energy.energy)
    terms = energy._terms()
    return [name for term in terms for name in _names(term)] if len(terms) > 1 else [energy._name]
