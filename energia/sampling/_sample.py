"""The verb `sample`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._mesh import check_mesh
from energia._types import check_count, check_key, parameters_of, strong_tree
from energia.diagnostics import preload
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path, unconstrained
from energia.samplers._sampler import (
    AlongPath,
    GradientBased,
    Kernel,
    ParticleSampler,
    Sampler,
    registry,
)
from energia.samplers.auto import Auto
from energia.sampling import _driver, _starts
from energia.sampling._draws import Draws
from energia.sampling._memory import check_room
from energia.sampling._particles import run_particles


def sample(
    energy: Energy | Path,
    sampler: str | Sampler = "auto",
    *,
    key: jax.Array,
    num_chains: int = 4,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    init: Any = None,
    thin: int = 1,
    collect: Callable[..., Any] | None = None,
    chain_method: str = "auto",
    mesh: jax.sharding.Mesh | None = None,
    progress: bool | None = None,
) -> Draws:
    r"""Draw from $p \propto e^{-E}$ with Markov chains, or with runs of particles.

    Bounded variables are mapped to the reals once, after all algebra; the draws are mapped back.
    Chains start from `init`, or each at the lowest finite energy of 16 draws from the supports
    (unconstrained, Uniform(-2, 2)); replicas and particles from one draw each, to lie
    wide. The same key gives the same draws, however the run is cut.

    Args:
        energy: the energy of all variables to draw; fix data with `condition`. In its place an
            `en.Path`, for samplers along one: the draws are of its last level.
        sampler: a registered name (`en.samplers.names()`) or a configured sampler; 'auto' chooses
            one by the variables, the number of chains and the device.
        key: a typed JAX key.
        num_chains: how many chains, at least 1; R-hat needs 2.
        num_warmup: steps before the first draw; tuning happens here alone. Particle samplers have
            none.
        num_samples: draws to keep a chain, at least 1; of particle samplers the particles of a run.
        init: starts: a dict by variable name, or the value of the only variable; shape
            (num_chains, \*shape), or (\*shape) for all chains. A leading axis of length
            `num_chains` is the axis of chains. A variable of unknown support is real, with the
            shape of its start.
        thin: steps a draw: every thin-th position is kept.
        collect: what to keep of each draw in place of all variables: a function of some of them, by
            its parameters' names, that returns an array, kept under the name 'value', or a dict of
            arrays. So `collect=lambda x: jnp.mean(x)` stores one number a draw, and diagnostics are
            about that number.
        chain_method: 'vectorized' (side by side in one program), 'parallel' (one program a chain,
            on the cores of the CPU) or 'auto', which chooses by kernel and device.
        mesh: devices to share the chains out to, `jax.make_mesh((8,), ("chains",))`: CPU devices,
            GPUs, or those of all processes that `jax.distributed` joins, of which each calls
            `sample` alike and gets all draws. `num_chains` is a multiple of their number. A chain's
            draws depend on its key alone: where chains run one after another ('parallel'), they are
            the same bit by bit on any number of devices of a kind, and without a mesh. None: one
            device.
        progress: show a progress line on standard error; None: where that is a terminal.

    Returns:
        Draws, with statistics and diagnostics; a `ConvergenceWarning` tells what looks wrong.

    Raises:
        TypeError: for an energy, a sampler or a key of the wrong kind, and for a variable that the
            sampler cannot move, before anything compiles.
        ValueError: for counts, names, shapes and values that do not fit, and where no finite start
            is found.
        MemoryError: where the draws would not fit in memory, before the first step.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> draws = en.sample(en.Gaussian(jnp.zeros(2)), "nuts", key=jax.random.key(0))
        >>> draws["x"].shape
        (4, 1000, 2)
    """
    if not isinstance(energy, Energy | Path):
        raise TypeError(f"sample() takes an energy, got {energy!r}: en.energy makes one")
    target = energy.target if isinstance(energy, Path) else energy
    key = check_key(key)
    num_chains = check_count(num_chains, "num_chains", 1)
    kernel, why = registry.resolve(sampler), None
    if isinstance(energy, Path) and not kernel.has(AlongPath):
        raise TypeError(
            f"{type(kernel).__name__} draws from one energy, and {energy!r} is many: sample its "
            "target, path.target, or give a sampler along a path, such as ParallelTempering(...) "
            "or Annealed(...)"
        )
    if isinstance(kernel, Auto):
        kernel, why = kernel.choose(target, num_chains)
    num_warmup = check_count(num_warmup, "num_warmup", 0)
    num_samples = check_count(num_samples, "num_samples", 1)
    thin = check_count(thin, "thin", 1)
    if isinstance(kernel, ParticleSampler):
        if thin > 1:
            raise ValueError(f"thin={thin}: particles are no chain, take fewer of them")
        if mesh is not None:
            raise ValueError(
                f"{type(kernel).__name__} moves all particles together: mesh= shares out chains"
            )
        return _particles(energy, kernel, key, num_chains, num_samples, init, collect)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"sample() needs a sampler that draws, got {kernel!r}")
    _driver.check_length(num_warmup + num_samples * thin)
    preload()
    check_mesh(mesh, num_chains, f"num_chains={num_chains}")
    method = _driver.choose_method(kernel, chain_method, num_chains, mesh)
    given = _starts.given_starts(target, init, num_chains)
    seeds = _starts.chain_seeds(key, num_chains)
    keys = _starts.chain_keys(seeds, key)
    impl = str(jax.random.key_impl(key))
    run, chains = prepare(
        energy, kernel, keys, impl, num_warmup, thin, method, given, seeds, collect, mesh
    )
    draws = Draws(
        energy=target,
        sampler=kernel,
        positions={},
        _stats={},
        steps=0,
        num_warmup=num_warmup,
        thin=thin,
        chain_keys=keys,
        run=run,
        chains=chains,
        why=why,
    )
    return draws._continue(num_samples, progress)


def prepare(
    energy: Energy | Path,
    kernel: Kernel,
    keys: np.ndarray,
    key_impl: str,
    num_warmup: int,
    thin: int,
    method: _driver.Method,
    starts: dict[str, np.ndarray],
    seeds: list[np.random.SeedSequence],
    collect: Any,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[_driver.Run, _driver.Chain]:
    """Check everything, find starts, and set up the chains before their first step."""
    if num_warmup == 0:
        kernel.check_set()
    target, path = _mapped(energy, starts)
    kernel.check(target, target.variables)
    collected = None if collect is None else _collect(collect, target.energy)
    # replicas are to lie wide, not low
    candidates = 1 if kernel.has(AlongPath) else _starts.CANDIDATES
    gradient = kernel.has(GradientBased)
    positions = _starts.draw_starts(target, starts, seeds, gradient, candidates)
    run = _driver.Run(target, num_warmup, thin, 1, method, key_impl, collected, path, mesh)
    kept = _driver.kept_shapes(run, positions)
    chunk = _driver.chunk_draws(kept, len(keys) if run.whole else 1)
    run = dataclasses.replace(run, chunk=chunk)
    kernels, tuning = _driver.tune_init(run, strong_tree(kernel), positions)
    states = _driver.init_states(run, kernels, positions, keys)
    return run, _driver.Chain(states, kernels, tuning)


def _particles(
    energy: Energy | Path,
    sampler: ParticleSampler,
    key: jax.Array,
    num_chains: int,
    num_samples: int,
    init: Any,
    collect: Any,
) -> Draws:
    if isinstance(energy, Energy):
        lacking = [name for name, support in energy.supports.items() if support is None]
        known = {name: s for name, s in sampler.supports().items() if name in lacking}
        energy = energy.constrain(**known) if known else energy
    target = energy.target if isinstance(energy, Path) else energy
    preload()
    count = num_chains * num_samples
    given = _starts.given_starts(target, init, count)
    mapped, path = _mapped(energy, given)
    check_room({n: s for n, s in mapped.energy.supports.items() if s is not None}, count)
    collected = None if collect is None else _collect(collect, mapped.energy)
    seeds = _starts.chain_seeds(key, count)
    positions, stats, keys = run_particles(
        mapped, path, sampler, key, given, seeds, num_chains, collected
    )
    draws = Draws(
        energy=target,
        sampler=sampler,
        positions=positions,
        _stats=stats,
        steps=0,
        num_warmup=0,
        thin=1,
        chain_keys=keys,
        run=None,
        chains=None,
    )
    draws._warn()
    return draws


def _mapped(
    energy: Energy | Path, starts: dict[str, np.ndarray]
) -> tuple[Unconstrained, Path | None]:
    """Target and path in unconstrained coordinates, with every support known."""
    if isinstance(energy, Energy) and not energy.variables:
        raise ValueError(f"{energy._formula()} has every variable fixed: nothing is left to draw")
    if not isinstance(energy, Path):
        target, path = Unconstrained(strong_tree(_starts.with_shapes(energy, starts))), None
    else:
        path = strong_tree(_starts.path_with_shapes(energy, starts))
        target, path = Unconstrained(path.target), unconstrained(path)
    _starts.check_scalar(target.energy)
    return target, path


def _collect(function: Any, energy: Energy) -> _driver.Collect:
    """The function with the names of what it takes, if it fits the energy."""
    if not callable(function):
        raise TypeError(f"collect= takes a function of the variables, got {function!r}")
    names = parameters_of(function, "collect=")
    if unknown := [name for name in names if name not in energy.variables]:
        raise ValueError(
            f"collect= takes {unknown}; the variables of {energy._formula()} are {energy.variables}"
        )
    collect = _driver.Collect(function, names)
    values = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in energy.supports.items() if s}
    kept = eqx.filter_eval_shape(collect, values)
    if not kept or not all(isinstance(name, str) for name in kept):
        raise TypeError(
            f"collect= must return an array, or a dict of arrays by name, got {list(kept)}"
        )
    for name, value in kept.items():
        if jnp.issubdtype(value.dtype, jnp.complexfloating):  # diagnostics would see half of it
            raise TypeError(
                f"collect= gives {name!r} of dtype {value.dtype}: keep its .real and .imag, such "
                "as {'real': z.real, 'imag': z.imag}"
            )
    return collect
