"""Runs of particle samplers: a run a chain, a particle a draw."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, strong_tree
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.samplers._sampler import GradientBased, ParticleSampler
from energia.sampling import _starts
from energia.sampling._driver import Collect


def run_particles(
    target: Unconstrained,
    path: Path | None,
    sampler: ParticleSampler,
    key: jax.Array,
    given: Mapping[str, np.ndarray],
    seeds: list[np.random.SeedSequence],
    num_chains: int,
    collect: Collect | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Draws by variable and statistics, of shape (chain, draw, ...), and the keys of the runs."""
    sampler = strong_tree(sampler)
    # particles are to lie wide, not low
    gradient = sampler.has(GradientBased)
    positions = _starts.draw_starts(target, given, seeds, gradient, candidates=1)
    moved = sampler.along(target if path is None else path, positions)
    rows = {n: x.reshape(num_chains, -1, *x.shape[1:]) for n, x in positions.items()}
    keys = _starts.chain_keys(seeds[:num_chains], key)
    impl = str(jax.random.key_impl(key))
    kept, stats = _run(target, moved, sampler, rows, keys, collect, impl)
    kept, stats = jax.tree.map(np.asarray, (kept, stats))
    names = target.variables if collect is None else tuple(kept)  # JAX sorts them
    return {name: kept[name] for name in names}, stats, keys


@eqx.filter_jit
def _run(
    target: Unconstrained,
    moved: Energy | Path,
    sampler: ParticleSampler,
    positions: Mapping[str, Any],
    keys: Any,
    collect: Callable[[Values], Values] | None,
    impl: str,
) -> tuple[Values, Values]:
    def one(run: tuple[Values, Any]) -> tuple[Values, Values]:
        positions, key = run
        positions, info = sampler.draw(moved, positions, jax.random.wrap_key_data(key, impl=impl))
        values, _ = jax.vmap(target.constrain)(positions)
        stats = {"lp": -jax.vmap(target.energy.at)(values)}
        for name, number in info.items():  # a number of the run stands at each of its draws
            if not name.startswith("_"):
                stats[name] = jnp.broadcast_to(number, stats["lp"].shape)
        return values if collect is None else jax.vmap(collect)(values), stats

    # one after another: their loops may differ in length
    return jax.lax.map(one, (dict(positions), keys))
