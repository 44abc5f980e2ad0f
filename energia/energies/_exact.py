"""Exact draws: independent draws of some variables given the others, and their normaliser."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from energia._types import Values, as_float
from energia.energies._checks import own_values

if TYPE_CHECKING:
    from energia.energies._energy import Energy


@dataclasses.dataclass(frozen=True)
class Exact:
    r"""Independent draws of the variables that are not given, and their normaliser.

    Args:
        draw: from a key to one value for each variable that is not given, within its support.
        log_partition: $\log \int e^{-E}$ over those variables, a scalar.
        constant: whether it is the same whatever the values of the given variables are, as for a
            normalised conditional density.
    """

    draw: Callable[[jax.Array], Values]
    log_partition: jax.Array
    constant: bool


def factorized(energy: "Energy", values: Mapping[str, Any]) -> Exact | None:
    """Draws of the only variable left, where its entries are independent given the others."""
    free = [name for name in energy.variables if name not in values]
    if len(free) != 1:
        return None
    (name,) = free
    support, factors = energy.supports[name], energy._factorize(name, values)
    if support is None or factors is None:
        return None

    def draw(key: jax.Array) -> Values:
        return {name: factors.draw(key, support)}

    return Exact(draw, -factors.free_energy(), constant=len(energy.variables) == 1)


def of_terms(
    terms: Sequence["Energy"],
    join: Callable[[Sequence["Energy"]], "Energy"],
    values: Mapping[str, Any],
) -> Exact | None:
    """Draws of a sum: what shares no variable is independent of the rest."""
    groups: list[list[Energy]] = []
    number, constant = as_float(0.0), True
    for term in terms:
        own = _free(term, values)
        if not own:
            number = number - term.at(own_values(term, values))
            constant = False
            continue
        joined = [group for group in groups if any(_free(t, values) & own for t in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(t for group in joined for t in group), term])
    parts = [_of_group(group, join, values) for group in groups]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    return _independent(known, number, constant)


def _independent(parts: Sequence[Exact], number: jax.Array, constant: bool) -> Exact:
    def draw(key: jax.Array) -> Values:
        drawn: Values = {}
        for index, part in enumerate(parts):
            drawn |= part.draw(jax.random.fold_in(key, index))
        return drawn

    total = sum((part.log_partition for part in parts), start=number)
    return Exact(draw, total, constant and all(part.constant for part in parts))


def _of_group(
    terms: Sequence["Energy"],
    join: Callable[[Sequence["Energy"]], "Energy"],
    values: Mapping[str, Any],
) -> Exact | None:
    if len(terms) == 1:
        return terms[0]._exact(own_values(terms[0], values))
    if len(set().union(*(_free(term, values) for term in terms))) == 1:
        whole = join(terms)
        return factorized(whole, own_values(whole, values))
    return _ancestral(terms, values)


def _ancestral(terms: Sequence["Energy"], values: Mapping[str, Any]) -> Exact | None:
    """Draws of one term after another, each given what was drawn before.

    Right where every term is the density of what it draws, up to a constant factor: then integrals
    come out one by one, the last first.
    """
    order: list[Energy] = []
    waiting, shapes = list(terms), dict(values)
    number, normalised = as_float(0.0), True
    while waiting:
        for term in waiting:
            own = own_values(term, shapes)
            exact = term._exact(own) if _free(term, shapes) else None
            drawn_before = set(own) - set(values)
            if exact is not None and (exact.constant or not drawn_before):
                break
        else:
            return None
        order.append(term)
        waiting.remove(term)
        number, normalised = number + exact.log_partition, normalised and exact.constant
        # what it draws only matters by its shape here
        shapes |= exact.draw(jax.random.key(0))

    def draw(key: jax.Array) -> Values:
        drawn = dict(values)
        for index, term in enumerate(order):
            exact = term._exact(own_values(term, drawn))
            assert exact is not None
            drawn |= exact.draw(jax.random.fold_in(key, index))
        return {name: value for name, value in drawn.items() if name not in values}

    own = set().union(*(term.variables for term in terms))
    return Exact(draw, number, constant=normalised or not own & set(values))


def chosen(parts: Sequence[Exact], log_weights: jax.Array, constant: bool) -> Exact:
    """Draws of a mixture: of the part that a draw of its share chooses."""
    logits = log_weights + jnp.stack([part.log_partition for part in parts])

    def draw(key: jax.Array) -> Values:
        key_part, key_draw = jax.random.split(key)
        which = jax.random.categorical(key_part, logits)
        drawn = [part.draw(jax.random.fold_in(key_draw, i)) for i, part in enumerate(parts)]
        stacked = {name: jnp.stack([each[name] for each in drawn]) for name in drawn[0]}
        return {name: rows[which] for name, rows in stacked.items()}

    return Exact(draw, jax.nn.logsumexp(logits), constant)


def _free(energy: "Energy", values: Mapping[str, Any]) -> set[str]:
    return {name for name in energy.variables if name not in values}
