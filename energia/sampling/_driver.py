"""One compiled body for warm-up and sampling, with traced counts."""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from energia._mesh import fetch, hosts, over
from energia._types import Values, as_array, put
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.samplers._sampler import AllChains, Kernel, VariableLength

Method = Literal["vectorized", "parallel", "together"]

CHUNK_BYTES = 2**26
CHUNK_DRAWS = 1024
FIRST_SLICE = 64
SLICE_SECONDS = 0.5
MAX_STEPS = 2**31 - 2  # steps are counted in 32 bits; the key of the one after them starts a chain


def _count(value: Any) -> jax.Array:
    return put(np.asarray(value, np.int32))


class Collect(eqx.Module):
    """A function of the variables whose value is kept in place of the positions."""

    function: Callable[..., Any]
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, values: Values) -> Values:
        kept = self.function(**{name: values[name] for name in self.names})
        kept = kept if isinstance(kept, dict) else {"value": kept}
        return {name: as_array(value, f"collect= gives {name!r}") for name, value in kept.items()}


class Run(eqx.Module):
    """What does not change along a run. The counts are traced: another length compiles nothing.

    Kernels move on `path`, in unconstrained coordinates, where there is one.
    """

    target: Unconstrained
    num_warmup: jax.Array = eqx.field(converter=_count)
    thin: jax.Array = eqx.field(converter=_count)
    chunk: int = eqx.field(static=True)
    method: Method = eqx.field(static=True)
    key_impl: str = eqx.field(static=True)
    collect: Collect | None = None
    path: Path | None = None
    mesh: Mesh | None = eqx.field(static=True, default=None)

    @property
    def whole(self) -> bool:
        """Whether one program advances all chains."""
        return self.method != "parallel" or self.mesh is not None

    @property
    def moved(self) -> Any:
        """What kernels are given: the target, or the path, which only some of them take."""
        return self.target if self.path is None else self.path

    def keep(self, position: Values) -> tuple[Values, jax.Array | None]:
        """What is kept of a position of the chain, and the log determinant of the map to it."""
        values, log_det = self.target.constrain(position)
        return values if self.collect is None else self.collect(values), log_det


class Chain(eqx.Module):
    """What changes: the kernel's state, and the kernel with its tuning."""

    state: Any
    kernel: Kernel
    tuning: Any


@eqx.filter_jit
def init_states(run: Run, kernels: Kernel, positions: Mapping[str, Any], keys: Any) -> Any:
    """The states of all chains."""

    def init(kernel, position, key):
        key = jax.random.wrap_key_data(key, impl=run.key_impl)
        return kernel.init(run.moved, position, jax.random.fold_in(key, MAX_STEPS + 1))

    axes = (None, 0, 0) if run.method == "together" else (eqx.if_array(0), 0, 0)
    return eqx.filter_vmap(init, in_axes=axes)(kernels, positions, keys)


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: tuple[Run, Any, Any, Any], chain: Chain) -> Any:
    """Steps start to stop of one chain or of all, and what they left to keep."""
    run, keys, start, stop = fixed
    arrays, static = eqx.partition(chain, eqx.is_array)

    def steps(keys: jax.Array, arrays: Any) -> Any:
        chain, buffer = _steps(run, keys, eqx.combine(arrays, static), start, stop)
        return eqx.filter(chain, eqx.is_array), buffer

    def one_after_another(keys: jax.Array, arrays: Any) -> Any:
        return jax.lax.map(lambda one: steps(*one), (keys, arrays))

    advance: Callable[[jax.Array, Any], Any] = steps
    if run.method == "vectorized":
        advance = jax.vmap(steps)
    elif run.mesh is not None:  # so that no chain waits for the longest step of another
        advance = one_after_another
    if run.mesh is not None:
        rows = over(run.mesh)
        advance = jax.shard_map(
            advance, mesh=run.mesh, in_specs=rows, out_specs=rows, check_vma=False
        )
    arrays, buffer = advance(keys, arrays)
    return eqx.combine(arrays, static), buffer


def _steps(run: Run, key_data: jax.Array, chain: Chain, start: jax.Array, stop: jax.Array) -> Any:
    """The loop over steps.

    The key of step t is fold_in(chain key, t), t absolute, so that the draws do not depend on where
    a run is cut.

    A draw's slot in the buffer is written at each of its thinned steps and the last one stays.
    Warm-up needs no branch: it writes slot 0, which the first draw overwrites.
    """
    key = jax.random.wrap_key_data(key_data, impl=run.key_impl)
    together = run.method == "together"
    num_warmup, thin = run.num_warmup, run.thin
    over_chains = jax.vmap if together else lambda function: function
    first_draw = jnp.maximum(start - num_warmup, 0) // thin

    def observe(state: Any, info: dict[str, jax.Array], t: jax.Array) -> dict[str, Any]:
        stats = {name: value for name, value in info.items() if not name.startswith("_")}
        kept = (t >= num_warmup) & ((t - num_warmup + 1) % thin == 0)

        def at_kept(evaluate: Callable[[Any], Any]) -> Any:
            """What is not known for nothing: evaluated for what is kept alone."""
            shapes = jax.eval_shape(evaluate, state.position)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.cond(kept, lambda: evaluate(state.position), lambda: zeros)

        if "lp" not in stats:
            stats["lp"] = -at_kept(over_chains(run.target.at))
        if run.collect is None:  # mapped to their supports all at once, when the loop is over
            return {"position": state.position, "stats": stats}
        collected, log_det = at_kept(over_chains(run.keep))
        if log_det is not None:
            stats["lp"] = stats["lp"] - log_det
        return {"position": collected, "stats": stats}

    def write(rows: jax.Array, row: jax.Array, t: jax.Array) -> jax.Array:
        since = jnp.maximum(t - num_warmup, 0)
        slot = since // thin - first_draw
        if row.dtype == jnp.bool_:  # a divergence between two kept draws is not forgotten
            begins = (since % thin == 0) | (t < num_warmup)
            row = row | (rows[slot] & ~begins)
        return rows.at[slot].set(row)

    def step(chain: Chain, t: jax.Array) -> tuple[Chain, Any]:
        keys = over_chains(lambda key: jax.random.fold_in(key, t))(key)
        state, info = over_chains(lambda s, k: chain.kernel.step(run.moved, s, k))(
            chain.state, keys
        )
        kernel, tuning = chain.kernel, chain.tuning
        if tuning is not None:
            seen = (state, info) if together else jax.tree.map(lambda a: a[None], (state, info))
            arrays, static = eqx.partition((kernel, tuning), eqx.is_array)
            arrays = jax.lax.cond(
                t < num_warmup,
                lambda: eqx.filter(kernel.tune(tuning, seen[0], seen[1], t), eqx.is_array),
                lambda: arrays,
            )
            kernel, tuning = eqx.combine(arrays, static)
        return Chain(state, kernel, tuning), observe(state, info, t)

    arrays, static = eqx.partition(chain, eqx.is_array)

    def body(t: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
        chain, seen = step(eqx.combine(loop[0], static), t)
        buffer = jax.tree.map(lambda rows, row: write(rows, row, t), loop[1], seen)
        return eqx.filter(chain, eqx.is_array), buffer

    seen = eqx.filter_eval_shape(lambda: step(chain, start)[1])
    buffer = jax.tree.map(lambda row: jnp.zeros((run.chunk, *row.shape), row.dtype), seen)
    arrays, buffer = jax.lax.fori_loop(start, stop, body, (arrays, buffer))
    if run.collect is None:
        buffer["position"], log_det = jax.vmap(over_chains(run.keep))(buffer["position"])
        if log_det is not None:
            buffer["stats"]["lp"] = buffer["stats"]["lp"] - log_det
    return eqx.combine(arrays, static), buffer


# --- the host's side


def choose_method(
    kernel: Kernel, chain_method: str, num_chains: int, mesh: Mesh | None = None
) -> Method:
    """How chains run: side by side in one program, or one program a chain on the CPU's cores."""
    known = ("auto", "vectorized", "parallel")
    if chain_method not in known:
        raise ValueError(f"chain_method= must be one of {known}, got {chain_method!r}")
    if kernel.has(AllChains):
        if chain_method == "parallel":
            raise ValueError(
                f"{type(kernel).__name__} is tuned on all chains together: "
                "chain_method='parallel' cannot run it, leave 'auto'"
            )
        if mesh is not None:
            raise ValueError(
                f"{type(kernel).__name__} is tuned on all chains together: mesh= cannot share them "
                "out, leave it away"
            )
        return "together"
    if chain_method != "auto":
        return "vectorized" if chain_method == "vectorized" else "parallel"
    on_cpu = jax.default_backend() == "cpu"
    waits = kernel.has(VariableLength)
    return "parallel" if on_cpu and (waits or num_chains == 1) else "vectorized"


def check_length(steps: int) -> None:
    """Raise where a run has more steps than can be counted."""
    if steps > MAX_STEPS:
        raise ValueError(
            f"a chain of {steps} steps (num_warmup + num_samples * thin) is too long: at most "
            f"{MAX_STEPS}"
        )


def tune_init(run: Run, kernel: Kernel, positions: dict[str, np.ndarray]) -> tuple[Kernel, Any]:
    """Kernels and tuning before the first step, a leading axis over chains that have their own."""
    num_warmup = int(run.num_warmup)
    if run.method == "together":
        return kernel.tune_init(run.moved, positions, num_warmup) if num_warmup else (kernel, None)
    pairs = []
    for chain in range(len(next(iter(positions.values())))):
        own = {name: value[chain : chain + 1] for name, value in positions.items()}
        pairs.append(kernel.tune_init(run.moved, own, num_warmup) if num_warmup else (kernel, None))
    return _stack(pairs)


def kept_shapes(run: Run, positions: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of one draw, from positions of all chains."""
    row = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in positions.items()}
    if run.collect is None:
        return row
    return eqx.filter_eval_shape(lambda run, x: run.keep(x)[0], run, row)


def chunk_draws(kept: Mapping[str, jax.ShapeDtypeStruct], copies: int) -> int:
    """How many draws one program buffers: a power of two, bounded in number and in memory."""
    bytes_a_draw = copies * sum(row.size * row.dtype.itemsize for row in kept.values())
    fitting = max(CHUNK_BYTES // max(bytes_a_draw, 1), 16)
    return min(CHUNK_DRAWS, 2 ** (fitting.bit_length() - 1))


def advance(
    run: Run,
    keys: np.ndarray,
    chains: Chain,
    begin: int,
    end: int,
    report: Callable[[int], None],
) -> tuple[Chain, dict[str, Any]]:
    """Steps begin to end of all chains: the chains, and arrays (chain, draw, ...) as NumPy's."""
    go = functools.partial(_slices, run, begin=begin, end=end)
    if run.whole:
        place = None if run.mesh is None else NamedSharding(run.mesh, over(run.mesh))
        chains, seen = go(jax.device_put(keys, place), _on_device(chains, place), report=report)
        if run.method == "together":
            seen = jax.tree.map(lambda rows: np.moveaxis(rows, 1, 0), seen)
        return _on_host(chains), seen
    count = len(keys)
    singles = [_on_device(_pick(chains, chain)) for chain in range(count)]
    # compiles once, here, so that the threads find it done
    singles[0], _ = _advance((run, keys[0], np.int32(0), np.int32(0)), singles[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ended = threading.Event()

    def watched(steps: int) -> None:
        if ended.is_set():
            raise CancelledError
        report(steps)

    def one(chain: int) -> tuple[Chain, dict[str, Any]]:
        return go(keys[chain], singles[chain], report=watched)

    with ThreadPoolExecutor(min(count, cores or 1)) as pool:
        # settings made by a context manager (jax.enable_x64, say) hold in this thread alone
        if pool.submit(lambda: jax.config.values).result() != jax.config.values:
            results = [one(chain) for chain in range(count)]
        else:
            tasks = [pool.submit(one, chain) for chain in range(count)]
            try:
                for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                    task.result()  # raises what a chain raised
                results = [task.result() for task in tasks]
            except BaseException:
                ended.set()  # the other chains end with their slice
                raise
    stack = functools.partial(jax.tree.map, lambda *rows: np.stack(rows))
    return _stack(_on_host(chain) for chain, _ in results), stack(*(seen for _, seen in results))


def _slices(
    run: Run,
    keys: Any,
    chain: Chain,
    *,
    begin: int,
    end: int,
    report: Callable[[int], None],
) -> tuple[Chain, dict[str, Any]]:
    """The run in slices of about half a second, so that it can be watched and interrupted."""
    num_warmup, thin = int(run.num_warmup), int(run.thin)
    axis = 1 if run.whole and run.method != "together" else 0
    pieces: list[Any] = []
    t, size = begin, FIRST_SLICE
    while t < end:
        drawn = max(t - num_warmup, 0) // thin
        if hosts(run.mesh) > 1:  # all take the same slices, whatever their clocks say
            size = run.chunk
        stop = min(t + size, end, num_warmup + (drawn + run.chunk) * thin)
        if stop > num_warmup:  # a slice ends at a kept draw
            stop = min(num_warmup + -(-(stop - num_warmup) // thin) * thin, end)
        began = time.perf_counter()
        chain, seen = _advance((run, keys, np.int32(t), np.int32(stop)), chain)
        new = (max(stop - num_warmup, 0) // thin) - drawn
        if new:
            rows = (slice(None),) * axis + (slice(0, new),)
            pieces.append(jax.tree.map(lambda a, rows=rows: fetch(a)[rows].copy(), seen))
        else:
            jax.block_until_ready(seen)
        seconds = max(time.perf_counter() - began, 1e-6)
        size = max(int((stop - t) * SLICE_SECONDS / seconds), 1)
        report(stop - t)
        t = stop
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis), *pieces)
    return chain, joined


def _pick(chains: Chain, index: int) -> Chain:
    arrays, static = eqx.partition(chains, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: np.asarray(leaf)[index, ...], arrays), static)


def _stack(trees: Iterable[Any]) -> Any:
    parts = [eqx.partition(tree, eqx.is_array) for tree in trees]
    arrays = jax.tree.map(lambda *rows: np.stack(rows), *(arrays for arrays, _ in parts))
    return eqx.combine(arrays, parts[0][1])


def _on_device(tree: Any, sharding: NamedSharding | None = None) -> Any:
    """Fresh device arrays, safe to donate."""
    arrays, static = eqx.partition(tree, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    # copied, as the device may share NumPy's memory; all at once, as each call has its price
    leaves = jax.device_put([np.array(leaf) for leaf in leaves], sharding)
    return eqx.combine(jax.tree.unflatten(structure, leaves), static)


def _on_host(tree: Any) -> Any:
    arrays, static = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: np.array(fetch(leaf)), arrays), static)
