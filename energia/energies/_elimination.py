"""Elimination of variables: the order, and the sums over states in chunks of bounded memory."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from energia.energies._algebra import with_supports
from energia.energies._checks import own_values
from energia.energies._energy import Energy
from energia.energies._factors import logsumexp
from energia.energies._free_energy import FreeEnergy, has_closed_form
from energia.supports import Discrete, Natural, Support

LARGEST = 2**20  # states enumerated at once
CHUNK = 2**12  # states whose energies are held at once


class _Enumerated(NamedTuple):
    """A step: the terms that hold a variable, which is enumerated for each state of `rest`."""

    name: str
    rest: tuple[str, ...]


class Plan(NamedTuple):
    terms: list[Energy]
    enumerated: list[_Enumerated]
    supports: dict[str, Discrete]


def plan(energy: Energy, names: Sequence[str], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Plan:
    """How to eliminate variables: closed forms first, the largest first, then small tables first.

    Raises:
        ValueError: when there is no way.
    """
    supports = energy.supports
    terms = list(energy._terms())
    left = sorted(names, key=lambda name: -_log_states(supports[name]))
    for name in list(left):
        support = supports[name]
        if isinstance(support, Discrete) and math.prod(support.shape) == 1:
            continue  # one entry: a table serves as well
        touched = [term for term in terms if name in term.variables]
        joint = with_supports(touched, supports)
        around = {n: shapes[n] if n in shapes else _shape(supports[n]) for n in joint.variables}
        if has_closed_form(joint, name, around):
            terms = [term for term in terms if name not in term.variables]
            terms.append(FreeEnergy(joint, name))
            left.remove(name)
    for name in left:
        support = supports[name]
        if isinstance(support, Natural):
            raise ValueError(
                f"marginalize({name!r}): {name!r} is {support}, and has no largest value to sum up "
                f"to: give it one, .constrain({name}=en.Categorical(100)) for counts below 100"
            )
        if not isinstance(support, Discrete):
            raise ValueError(
                f"marginalize({name!r}): {name!r} is {supports[name]}, and no closed form is known "
                f"for it in {energy._formula()}: draw it beside the others with en.sample, whose "
                "draws of the others are then draws of their marginal"
            )
    finite = {name: s for name in left if isinstance(s := supports[name], Discrete)}
    return Plan(terms, _order(energy, terms, finite), finite)


def _order(
    energy: Energy, terms: list[Energy], supports: Mapping[str, Discrete]
) -> list[_Enumerated]:
    """Greedy elimination: always the variable whose joint table is smallest."""
    scopes = [frozenset(term.variables) & frozenset(supports) for term in terms]
    left, steps = list(supports), []
    while left:
        buckets = {name: frozenset().union(*(s for s in scopes if name in s)) for name in left}
        sizes = {name: sum(_log_states(supports[n]) for n in buckets[name]) for name in left}
        name = min(left, key=lambda name: sizes[name])
        bucket = buckets[name]
        if sizes[name] > math.log(LARGEST) + 1e-9:
            raise ValueError(_too_large(energy, name, bucket, supports))
        rest = tuple(n for n in supports if n in bucket and n != name)
        steps.append(_Enumerated(name, rest))
        scopes = [scope for scope in scopes if name not in scope] + [frozenset(rest)]
        left.remove(name)
    return steps


def _log_states(support: Support | None) -> float:
    if not isinstance(support, Discrete):
        return math.inf
    return math.log(len(support.states)) * math.prod(support.shape)


def _shape(support: Support | None) -> jax.ShapeDtypeStruct:
    assert support is not None
    return jax.ShapeDtypeStruct(support.shape, support.dtype)


def _too_large(
    energy: Energy, name: str, bucket: Iterable[str], supports: Mapping[str, Discrete]
) -> str:
    listed = ", ".join(f"{n!r} ({supports[n]})" for n in supports if n in bucket)
    digits = sum(_log_states(supports[n]) for n in bucket) / math.log(10)
    exact = math.prod(supports[n].num_states for n in bucket)
    count = f"{exact:,}" if digits < 15 else f"about 10^{digits:.0f}"
    return (
        f"marginalize({name!r}) would enumerate {count} states of {listed} in "
        f"{energy._formula()}; at most {LARGEST:,} are. No closed form is known: write the energy "
        "as a sum of terms that each hold few of the variables (labels of rows: the energy of one "
        f"row, en.total(E.marginalize({name!r}), y=Y)), give its class a closed form "
        f"(_factorize), or draw {name!r} beside the others with 'gibbs'"
    )


# --- the sums


class _Table(NamedTuple):
    """A function of finite variables: energies with an axis for each."""

    names: tuple[str, ...]
    energies: jax.Array


def evaluate(plan: Plan, values: Mapping[str, Any]) -> jax.Array:
    """The free energy at the values of the variables that stay."""
    supports, parts = plan.supports, list[Energy | _Table]()
    total: list[jax.Array] = []
    for term in plan.terms:
        (parts if set(term.variables) & set(supports) else total).append(
            term if set(term.variables) & set(supports) else term.at(own_values(term, values))  # pyright: ignore
        )
    order = list(plan.enumerated)
    while order:
        name, rest = order.pop(0)
        bucket = [part for part in parts if name in _names(part)]
        parts = [part for part in parts if name not in _names(part)]
        group = [name]
        # what comes next, and is in these parts alone, goes with it: the joint table is the same
        while order and order[0][0] in rest and not any(order[0][0] in _names(p) for p in parts):
            name, rest = order.pop(0)
            group.append(name)
        table = _sum_out(bucket, tuple(group), rest, supports, values)
        if rest:
            parts.append(table)
        else:
            total.append(table.energies)
    return sum(total[1:], start=total[0])


def _sum_out(
    bucket: list[Energy | _Table],
    group: tuple[str, ...],
    rest: tuple[str, ...],
    supports: Mapping[str, Discrete],
    values: Mapping[str, Any],
) -> _Table:
    """The table over `rest` that summing variables out of some parts leaves."""
    names = (*rest, *group)
    sizes = [supports[n].num_states for n in names]
    kept, summed = sizes[: len(rest)], sizes[len(rest) :]
    states = math.prod(summed)
    if math.prod(sizes) <= CHUNK:
        joint = jnp.zeros(())
        for part in bucket:
            own = tuple(n for n in names if n in _names(part))
            table = part if isinstance(part, _Table) else _tabulate(part, own, supports, values)
            joint = joint + _spread(table, names)
        return _Table(rest, -logsumexp(-joint.reshape(*kept, states), axis=-1))

    def energy(where: jax.Array, index: jax.Array) -> jax.Array:
        """The energy at one state of `rest` and one of what is summed out, each as one number."""
        indices = dict(zip(rest, jnp.unravel_index(where, kept), strict=True)) if rest else {}
        indices |= zip(group, jnp.unravel_index(index, summed), strict=True)
        return sum((_at(part, indices, supports, values) for part in bucket), jnp.zeros(()))

    def row(where: jax.Array) -> jax.Array:
        return _stream(lambda index: energy(where, index), states)

    count = math.prod(kept)
    rows = jax.lax.map(
        jax.checkpoint(row),
        jnp.arange(count, dtype=jnp.int32),
        batch_size=min(max(CHUNK // states, 1), count),
    )
    return _Table(rest, rows.reshape(kept))


def _stream(energy: Callable[[jax.Array], jax.Array], count: int) -> jax.Array:
    """-log of the sum of exp(-energy(i)) over i below `count`, holding a chunk at once."""
    size = min(CHUNK, count)
    starts = jnp.arange(0, count, size, dtype=jnp.int32)

    @jax.checkpoint
    def chunk(start: jax.Array) -> jax.Array:
        index = start + jnp.arange(size, dtype=jnp.int32)
        energies = jax.vmap(energy)(jnp.minimum(index, count - 1))
        return logsumexp(jnp.where(index < count, -energies, -jnp.inf))

    return -logsumexp(jax.lax.map(chunk, starts))


def _tabulate(
    energy: Energy,
    names: tuple[str, ...],
    supports: Mapping[str, Discrete],
    values: Mapping[str, Any],
) -> _Table:
    """The energies of all states; what depends on one variable alone is computed once for each."""

    def fill(names: tuple[str, ...], known: dict[str, Any]) -> jax.Array:
        if not names:
            return energy.at(known)
        support = supports[names[0]]
        states = jax.vmap(support.state)(jnp.arange(support.num_states, dtype=jnp.int32))
        return jax.vmap(lambda state: fill(names[1:], {**known, names[0]: state}))(states)

    return _Table(names, fill(names, own_values(energy, values)))


def _at(
    part: Energy | _Table,
    indices: Mapping[str, jax.Array],
    supports: Mapping[str, Discrete],
    values: Mapping[str, Any],
) -> jax.Array:
    """The energy of a part where finite variables are in these states."""
    if isinstance(part, _Table):
        return part.energies[tuple(indices[name] for name in part.names)]
    states = {n: supports[n].state(index) for n, index in indices.items() if n in part.variables}
    return part.at({**own_values(part, values), **states})


def _spread(table: _Table, names: tuple[str, ...]) -> jax.Array:
    """The table with an axis for each of these names, of which it holds some, in its own order."""
    order = sorted(range(len(table.names)), key=lambda axis: names.index(table.names[axis]))
    energies = jnp.transpose(table.energies, order)
    missing = [axis for axis, name in enumerate(names) if name not in table.names]
    return jnp.expand_dims(energies, missing)


def _names(part: Energy | _Table) -> tuple[str, ...]:
    return part.names if isinstance(part, _Table) else part.variables
