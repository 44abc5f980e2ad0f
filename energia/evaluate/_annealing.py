"""The one compiled loop of annealing: many chains along a path, with weights.

It serves annealed importance sampling, its reverse, sequential Monte Carlo, the pilot run that
tunes kernels and spaces levels, and a chain that stays at a level: what differs is data.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from energia._mesh import fetch, gathered, hosts, over, own
from energia._types import Values, as_array, as_float, float_dtype, strong_tree
from energia.evaluate._bridge import Bridge
from energia.samplers._sampler import Kernel

NODES = 512  # levels of a pilot run at most
SCHEDULE = 2**14  # levels of a run, below which another number compiles nothing
HALVINGS = 40
FIRST_SLICE = 64
SLICE_SECONDS = 0.5


class Plan(eqx.Module):
    """What a run does, as data of fixed shapes.

    Args:
        levels: s level by level, shape (capacity,).
        nodes: for each level the row of the table whose kernel moves there, shape (capacity,).
        num_levels: how many there are.
        moves: steps of the kernel a level.
        resample_below: chains are resampled where the effective number of weights, by their number,
            is below this: 0 never, 2 always.
        pilot: whether levels are spaced, and the kernel is tuned, on the way.
        conditional_ess: of a pilot run, from one level to the next, in (0, 1).
        mesh: devices that share the chains. Where all chains are looked at together, each gathers
            them and finds the same.
    """

    levels: jax.Array
    nodes: jax.Array
    num_levels: jax.Array
    moves: jax.Array
    resample_below: jax.Array
    pilot: jax.Array
    conditional_ess: jax.Array
    mesh: Mesh | None = eqx.field(static=True, default=None)


class Carry(NamedTuple):
    """What a run carries from tick to tick; a tick is one step of the kernel of every chain."""

    tick: Any
    s: Any
    states: Any
    log_weights: Any
    log_partition: Any
    ancestors: Any
    kernel: Any
    tuning: Any
    table: Any
    spacing: Any
    acceptance: Any


class Run(NamedTuple):
    """What a run ends with.

    Attributes:
        positions: of all chains, with a leading axis over them.
        log_weights: since chains were last resampled, plus all before: their mean is that of Z.
        ancestors: for each chain the start that it descends from.
        acceptance: the mean acceptance rate of a step, not a number where a kernel has none.
        table: by level the kernel's numbers; of a pilot run.
        spacing: s level by level; of a pilot run.
        num_levels: levels that were gone through.
        reached: whether the last of them was the end of the path.
    """

    positions: Values
    log_weights: np.ndarray
    ancestors: np.ndarray
    acceptance: float
    table: Any
    spacing: np.ndarray
    num_levels: int
    reached: bool


def plan(
    levels: np.ndarray,
    nodes: np.ndarray | None = None,
    *,
    moves: int = 1,
    resample_below: float = 0.0,
    pilot: bool = False,
    conditional_ess: float = 0.5,
    mesh: Mesh | None = None,
) -> Plan:
    """A plan through these levels; of a pilot run, through as many as it takes."""
    count = len(levels)
    capacity = max(SCHEDULE, 2 ** max(count - 1, 1).bit_length())
    real = float_dtype()
    padded = np.ones(capacity, real), np.zeros(capacity, np.int32)
    padded[0][:count] = levels
    if nodes is not None:
        padded[1][:count] = nodes
    num_levels = NODES if pilot else count
    numbers = (*padded, np.int32(num_levels), np.int32(moves), real.type(resample_below))
    return Plan(*map(as_array, (*numbers, np.bool_(pilot), real.type(conditional_ess))), mesh=mesh)


def run(
    bridge: Bridge,
    kernel: Kernel,
    tuning: Any,
    table: Any,
    plan: Plan,
    positions: Values,
    start: float,
    key: jax.Array,
) -> Run:
    """Go along a plan from given positions at s = `start`.

    Args:
        bridge: the path.
        kernel: with no number unset.
        tuning: the state of its tuning before the first step; a pilot run begins there anew at each
            level.
        table: rows of the kernel's numbers, as a pilot run leaves them; None: the kernel's own.
        plan: what to do.
        positions: of all chains, with a leading axis over them.
        start: s where they are.
        key: a typed key.
    """
    kernel, tuning = strong_tree((kernel, tuning))
    if table is None:
        table = jax.tree.map(
            lambda leaf: np.zeros((NODES, *leaf.shape), leaf.dtype) + np.asarray(leaf),
            eqx.filter(kernel, eqx.is_array),
        )
    fixed = (bridge, kernel, tuning, plan, key)
    carry = _begin(fixed, table, positions, as_float(start))
    ticks = int(plan.num_levels) * int(plan.moves)
    begin, size = 0, FIRST_SLICE
    while begin < ticks:  # in slices, so that it can be interrupted
        if hosts(plan.mesh) > 1:  # all take the same slices, whatever their clocks say
            size = FIRST_SLICE
        end = min(begin + size, ticks)
        began = time.perf_counter()
        carry = _advance(fixed, carry, as_array(np.int32(end)))
        if int(carry.tick) < end:  # a pilot run has arrived
            break
        seconds = max(time.perf_counter() - began, 1e-6)
        size = max(int((end - begin) * SLICE_SECONDS / seconds), 1)
        begin = end
    if plan.mesh is not None:
        carry = jax.tree.map(fetch, carry)
    levels = int(carry.tick) // int(plan.moves)
    weights = np.asarray(carry.log_weights, np.float64) + float(carry.log_partition)
    return Run(
        {name: carry.states.position[name] for name in bridge.variables},
        weights,
        np.asarray(carry.ancestors),
        float(np.mean(carry.acceptance, dtype=float)) / int(carry.tick),
        carry.table,
        np.asarray(carry.spacing)[:levels],
        levels,
        float(carry.s) >= 1.0,
    )


@eqx.filter_jit
def _begin(fixed: Any, table: Any, positions: Values, start: jax.Array) -> Carry:
    bridge, kernel, tuning, plan, key = fixed
    count = len(next(iter(positions.values())))
    keys = jax.random.split(jax.random.fold_in(key, 2**31 - 1), count)

    def init(position: Values, key: jax.Array) -> Any:
        key_hidden, key = jax.random.split(key)
        hidden = bridge.hidden(position, start, kernel, key_hidden)
        return kernel.init(bridge.moving(start, hidden), position, key)

    zeros = jnp.zeros(count, start.dtype)
    whole = Carry(
        tick=jnp.int32(0),
        s=start,
        states=(positions, keys),
        log_weights=zeros,
        log_partition=jnp.zeros((), start.dtype),
        ancestors=jnp.arange(count, dtype=jnp.int32),
        kernel=eqx.filter(kernel, eqx.is_array),
        tuning=eqx.filter(tuning, eqx.is_array),
        table=jax.tree.map(jnp.asarray, table),
        spacing=jnp.zeros(NODES, start.dtype),
        acceptance=zeros,
    )
    return _on_devices(
        lambda carry: carry._replace(states=jax.vmap(init)(*carry.states)), plan.mesh
    )(whole)


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: Any, carry: Carry, stop: jax.Array) -> Carry:
    plan: Plan = fixed[3]

    def unfinished(carry: Carry) -> jax.Array:
        arrived = plan.pilot & (carry.tick % plan.moves == 0) & (carry.s >= 1)
        return (carry.tick < stop) & ~arrived

    def loop(carry: Carry) -> Carry:
        return jax.lax.while_loop(unfinished, lambda carry: _tick(fixed, carry), carry)

    return _on_devices(loop, plan.mesh)(carry)


def _on_devices(function: Callable[[Carry], Carry], mesh: Mesh | None) -> Callable[[Carry], Carry]:
    """The function on each device's share of the chains; what is no chain's is the same on all."""
    if mesh is None:
        return function
    shared = ("states", "log_weights", "ancestors", "acceptance")
    rows, whole = over(mesh), PartitionSpec()
    specs = Carry(**{name: rows if name in shared else whole for name in Carry._fields})
    return jax.shard_map(function, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)


def _tick(fixed: Any, carry: Carry) -> Carry:
    bridge, kernel, tuning, plan, key = fixed
    mesh = plan.mesh
    count = len(carry.log_weights) * (1 if mesh is None else mesh.size)
    static = eqx.filter(kernel, eqx.is_array, inverse=True)
    still = eqx.filter(tuning, eqx.is_array, inverse=True)
    level, move = carry.tick // plan.moves, carry.tick % plan.moves
    arrives = move == 0
    position = carry.states.position
    keys = jax.random.split(jax.random.fold_in(key, carry.tick), 3)
    hidden_keys, move_keys = (own(jax.random.split(each, count), mesh) for each in keys[1:])

    s = jax.lax.cond(
        arrives & plan.pilot,
        lambda: _next(bridge, position, carry.s, plan.conditional_ess, mesh),
        lambda: jnp.where(arrives, plan.levels[level], carry.s),
    )
    rise = jax.vmap(lambda x: bridge.rise(x, carry.s, s))(position)
    lost = (carry.log_weights == -jnp.inf) | ~arrives
    log_weights = carry.log_weights - jnp.where(lost, 0.0, rise)

    def scarce() -> jax.Array:
        share = jax.nn.softmax(gathered(log_weights, mesh))
        return plan.resample_below * count * jnp.sum(share**2) > 1

    few = jax.lax.cond(arrives & (plan.resample_below > 0), scarce, lambda: jnp.zeros((), bool))
    # drawn before chains are resampled, and so from the very products that weights are made of
    hidden = jax.vmap(lambda x, key: bridge.hidden(x, s, kernel, key))(position, hidden_keys)
    weighted = (position, hidden), carry.ancestors, log_weights, carry.log_partition
    (position, hidden), ancestors, log_weights, log_partition = jax.lax.cond(
        few, lambda: _resampled(*weighted, keys[0], mesh), lambda: weighted
    )

    rows = jax.tree.map(lambda rows: rows[plan.nodes[level]], carry.table)
    arrays = jax.tree.map(lambda own, row: jnp.where(plan.pilot, own, row), carry.kernel, rows)
    kernel = eqx.combine(arrays, static)
    begun = eqx.filter(tuning, eqx.is_array)
    now = jax.tree.map(lambda new, old: jnp.where(arrives, new, old), begun, carry.tuning)
    if jax.tree.leaves(now):  # at a level the kernel begins anew, with its tuning
        origin = eqx.filter(fixed[1], eqx.is_array)
        again = arrives & plan.pilot
        arrays = jax.tree.map(lambda own, new: jnp.where(again, new, own), arrays, origin)
        kernel = eqx.combine(arrays, static)

    def move_one(state: Any, position: Values, hidden: Values, key: jax.Array) -> Any:
        key_renew, key_step = jax.random.split(key)
        energy = bridge.moving(s, hidden)
        state = kernel.renew(energy, state, position, key_renew)
        return kernel.step(energy, state, key_step)

    states, info = jax.vmap(move_one)(carry.states, position, hidden, move_keys)
    arrays, now = jax.lax.cond(
        plan.pilot,
        lambda: eqx.filter(
            kernel.tune(eqx.combine(now, still), *gathered((states, info), mesh), move),
            eqx.is_array,
        ),
        lambda: (arrays, now),
    )
    row = jnp.minimum(level, NODES - 1)
    table = jax.tree.map(
        lambda rows, new: rows.at[row].set(jnp.where(plan.pilot, new, rows[row])),
        carry.table,
        arrays,
    )
    rate = info.get("acceptance_rate", jnp.full_like(log_weights, jnp.nan))
    return Carry(
        tick=carry.tick + 1,
        s=s,
        states=states,
        log_weights=log_weights,
        log_partition=log_partition,
        ancestors=ancestors,
        kernel=arrays,
        tuning=now,
        table=table,
        spacing=carry.spacing.at[row].set(s),
        acceptance=carry.acceptance + jnp.mean(rate.reshape(len(rate), -1).astype(s.dtype), 1),
    )


def _next(
    bridge: Bridge, position: Values, s: jax.Array, wanted: jax.Array, mesh: Mesh | None
) -> jax.Array:
    """The farthest level at which weights from this one keep the effective number that is wanted.

    References:
        Zhou, Johansen and Aston (2016), Toward automatic model comparison: an adaptive sequential
        Monte Carlo approach (conditional effective sample size).
    """

    def kept(new: jax.Array) -> jax.Array:
        log_weights = gathered(-jax.vmap(lambda x: bridge.rise(x, s, new))(position), mesh)
        total = jax.nn.logsumexp(log_weights)
        log_ess = 2 * total - jax.nn.logsumexp(2 * log_weights)
        return log_ess >= jnp.log(wanted * len(log_weights))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        good = kept(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    one = jnp.ones_like(s)
    _, high = jax.lax.fori_loop(0, HALVINGS, halve, (s, one))
    return jnp.where(kept(one), one, high)


def _resampled(
    position: Any,
    ancestors: jax.Array,
    log_weights: jax.Array,
    log_partition: jax.Array,
    key: jax.Array,
    mesh: Mesh | None,
) -> Any:
    """Chains in proportion to their weights, by systematic resampling; the mean weight is kept."""
    position, ancestors, log_weights = gathered((position, ancestors, log_weights), mesh)
    count = len(log_weights)
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    places = (jnp.arange(count) + jax.random.uniform(key)) / count * edges[-1]
    chosen = jnp.minimum(jnp.searchsorted(edges, places), count - 1)
    mean = jax.nn.logsumexp(log_weights) - jnp.log(count)
    position = jax.tree.map(lambda rows: rows[chosen], position)
    moved = own((position, ancestors[chosen], jnp.zeros_like(log_weights)), mesh)
    return *moved, log_partition + mean
