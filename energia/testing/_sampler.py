"""The laws of samplers: the protocol, and the density that the draws follow."""

import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, check_key, strong_tree
from energia.diagnostics import ConvergenceWarning, mean_ess
from energia.energies._unconstrained import Unconstrained
from energia.samplers import AllChains, Biased, DiscreteSpace, GradientBased, Kernel, Sampler
from energia.samplers._sampler import registry
from energia.sampling import Draws, _starts, sample
from energia.testing import _targets
from energia.testing._law import avals, differences, law, other_numbers, unequal
from energia.testing._targets import Target

CHAINS = 256
DRAWS = 200
THINS = (1, 8, 64)
WARMUP = 500
MIN_ESS = 10_000
MAX_Z = 5.0
KEY = 25


def check_sampler(
    sampler: str | Sampler,
    *,
    targets: Sequence[Target] | None = None,
    key: jax.Array | None = None,
) -> None:
    r"""Check that a sampler keeps the protocol, and that its draws follow the density.

    The protocol: pure functions of arrays whose structure does not change, compiled once for all
    numbers, tuned where numbers are unset. The statistics: on each target first and second moments
    lie within 5 standard errors, computed from the effective sample size of the draws, which must
    reach 10,000 for each: enough to reject a variance that is 7 % off. The draws are made by
    `en.sample`, 256 chains of 200, and thinned until there are so many.

    Args:
        sampler: a registered name or a configured sampler.
        targets: energies with their exact moments. By default a Gaussian of correlation 0.95, a
            mixture, and a joint density with every kind of bound; for a kernel marked
            `DiscreteSpace` those that it moves of a joint density of binary, spin and categorical
            variables, an Ising model beside a Boltzmann machine, and labels beside continuous
            variables. None for one marked `Biased`, which follows another law.
        key: a typed JAX key.

    Raises:
        AssertionError: with the law that broke and the numbers that broke it.
        TypeError: when `sampler` is no Markov kernel.
        ValueError: when it moves the variables of none of the default targets, and none is given.

    References:
        Geyer (1992), Practical Markov chain Monte Carlo. Vehtari et al. (2021), Rank-normalization,
        folding, and localization: an improved R-hat.

    Example:
        >>> import energia as en
        >>> en.testing.check_sampler(en.samplers.Langevin(step_size=0.1))
    """
    kernel = registry.resolve(sampler)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"check_sampler() takes a Markov kernel, got {kernel!r}")
    key = jax.random.key(KEY) if key is None else check_key(key)
    defaults = _defaults(kernel)
    wanted = () if kernel.has(Biased) else defaults
    wanted = tuple(wanted if targets is None else targets)
    if not (wanted or defaults):
        raise ValueError(
            f"{kernel} moves the variables of none of the default targets: give targets=["
            "en.testing.Target(...)]"
        )
    example = (wanted or defaults)[0]
    _check_config(kernel)
    _check_protocol(kernel, example, key)
    _check_runs(kernel, example, key)
    for index, target in enumerate(wanted):
        _check_moments(kernel, target, jax.random.fold_in(key, index))


def _defaults(kernel: Kernel) -> tuple[Target, ...]:
    """The default targets whose variables a kernel moves."""
    if not kernel.has(DiscreteSpace):
        return _targets.continuous()

    def moved(target: Target) -> bool:
        energy = Unconstrained(target.energy)
        try:
            kernel.check(energy, energy.variables)
        except TypeError:
            return False
        return True

    return tuple(filter(moved, (_targets.mixed(), *_targets.discrete())))


# --- the protocol


def _check_config(kernel: Kernel) -> None:
    name = type(kernel).__name__
    with law(name, "its numbers are array leaves") as require:
        require(not _plain(kernel), f"{_plain(kernel)} are no arrays: another number compiles anew")
    with law(name, "flattening and replace() without changes lose nothing") as require:
        leaves, structure = jax.tree.flatten(kernel)
        again = jax.tree.unflatten(structure, leaves)
        require(eqx.tree_equal(kernel, again), f"{again} against {kernel}")
        require(eqx.tree_equal(kernel, kernel.replace()), f"{kernel.replace()} against {kernel}")


def _check_protocol(kernel: Kernel, target: Target, key: jax.Array) -> None:
    name = type(kernel).__name__
    energy, position = _start(kernel, target, key)
    if missing := kernel.unset():
        with law(name, "init() raises a ValueError that names its unset numbers") as require:
            message = ""
            try:
                jax.eval_shape(lambda: kernel.init(energy, position, key))
            except ValueError as error:
                message = str(error)
            require(all(field in message for field in missing), f"{missing} in {message!r}")
    together = 4 if isinstance(kernel, AllChains) else 1
    batch = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * together), position)
    with law(name, "tune_init() fills every unset number with an array") as require:
        tuned, tuning = strong_tree(kernel).tune_init(energy, batch, 100)
        require(type(tuned) is type(kernel), f"it gives a {type(tuned).__name__}")
        require(not tuned.unset(), f"{tuned.unset()} are unset")
        require(not _plain((tuned, tuning)), f"{_plain((tuned, tuning))} are no arrays")
    state, info = _check_transitions(tuned, energy, position, key)
    with law(name, "tune() keeps the structure that tune_init() gave") as require:
        rows = jax.tree.map(lambda leaf: jnp.stack([leaf] * together), (state, info))
        after = eqx.filter_eval_shape(tuned.tune, tuning, *rows, jnp.asarray(0))
        found = differences(avals((tuned, tuning)), avals(after))
        require(not found, found)


def _check_transitions(
    kernel: Kernel, energy: Unconstrained, position: Values, key: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """The laws of `init` and `step`; returns what one step gave."""
    name = type(kernel).__name__
    traces = []

    def transition(kernel: Kernel, energy: Unconstrained, key: jax.Array) -> Any:
        traces.append(1)
        key_init, key_step = jax.random.split(key)
        first = kernel.init(energy, position, key_init)
        return first, *kernel.step(energy, first, key_step)

    run = eqx.filter_jit(transition)
    with law(name, "init() and step() compile, with the energy as an argument"):
        first, state, info = run(kernel, energy, key)
    with law(name, "init() starts at the position that it is given") as require:
        found = differences(avals(position), avals(first.position))
        found = found or unequal(position, first.position)
        require(not found, found)
    with law(name, "a state is a pytree of arrays that step() keeps in structure") as require:
        others = [leaf for leaf in jax.tree.leaves(first) if not eqx.is_array(leaf)]
        require(not others, f"{others} are no arrays")
        found = differences(avals(first), avals(state))
        require(not found, found)
        bad = [n for n, x in state.position.items() if not np.isfinite(np.asarray(x)).all()]
        require(not bad, f"the position of {bad} is not finite after one step")
    _check_info(name, energy, state, info)
    with law(name, "the same key gives the same transition") as require:
        found = unequal((first, state, info), run(kernel, energy, key))
        if not found and _traced_otherwise(transition, kernel, energy, key):
            again = eqx.filter_jit(lambda *given: transition(*given))(kernel, energy, key)  # pyright: ignore
            found = unequal((first, state, info), again)
        require(not found, f"{found}: init and step must be pure functions of their arguments")
    with law(name, "other numbers of the same shapes compile nothing") as require:
        before = len(traces)
        run(other_numbers(kernel), other_numbers(energy), key)
        require(len(traces) == before, "init and step were traced again")
    return state, info


def _traced_otherwise(function: Callable[..., Any], *given: Any) -> bool:
    """Whether two traces differ: a number that Python made while tracing is another one then.

    Tracing is cheap where compiling is not. Addresses in the text of a trace mean nothing.
    """
    traces = [eqx.filter_make_jaxpr(function)(*given)[0] for _ in range(2)]
    texts = [re.sub("0x[0-9a-f]+", "", str(trace)) for trace in traces]
    return texts[0] != texts[1] or bool(unequal(traces[0].consts, traces[1].consts))


def _check_info(name: str, energy: Unconstrained, state: Any, info: Any) -> None:
    with law(name, "info is a flat dict of arrays, numbers or vectors") as require:
        require(isinstance(info, dict), f"it is {type(info).__name__}")
        for label, value in info.items():
            stored = isinstance(label, str) and not label.startswith("_")
            require(eqx.is_array(value), f"{label!r} is {value!r}")
            require(not stored or value.ndim <= 1, f"{label!r} has shape {value.shape}")
        if "diverging" in info:
            require(info["diverging"].dtype == bool, f"diverging is {info['diverging'].dtype}")
        rate = float(info.get("acceptance_rate", 0.0))
        require(0 <= rate <= 1 + 1e-6, f"acceptance_rate is {rate}")
    if "lp" in info:
        with law(name, "lp is minus the energy at the new position") as require:
            lp, value = float(info["lp"]), -float(energy.at(state.position))
            require(abs(lp - value) <= 1e-3 * (1 + abs(value)), f"{lp} against {value}")


def _plain(tree: Any) -> list[Any]:
    """The Python numbers among the leaves of a tree."""
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, int | float | complex)]


def _start(kernel: Kernel, target: Target, key: jax.Array) -> tuple[Unconstrained, Values]:
    """The target as kernels see it, and a position for one chain."""
    given = _starts.given_starts(target.energy, target.init, CHAINS)
    energy = Unconstrained(strong_tree(_starts.with_shapes(target.energy, given)))
    first = {name: value[:1] for name, value in given.items()}
    seeds = _starts.chain_seeds(key, 1)
    positions = _starts.draw_starts(energy, first, seeds, kernel.has(GradientBased))
    return energy, {name: jnp.asarray(value[0]) for name, value in positions.items()}


# --- the draws


def _run(kernel: Kernel, target: Target, key: jax.Array, thin: int = 1, **counts: Any) -> Draws:
    """`en.sample`, by one program whatever the counts."""
    counts = {"num_warmup": max(WARMUP, 50 * thin), "num_samples": DRAWS} | counts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return sample(
            target.energy,
            kernel,
            key=key,
            num_chains=CHAINS,
            init=target.init,
            thin=thin,
            chain_method="auto" if kernel.has(AllChains) else "vectorized",
            progress=False,
            **counts,
        )


def _check_runs(kernel: Kernel, target: Target, key: jax.Array) -> None:
    name, counts = type(kernel).__name__, {"num_warmup": 20, "num_samples": 4}
    with law(name, "en.sample gives the same draws for the same key") as require:
        first = _run(kernel, target, key, **counts)
        again = _run(kernel, target, key, **counts)
        found = unequal(({**first}, {**first.stats}), ({**again}, {**again.stats}))
        require(not found, found)
    with law(name, "its draws lie in their supports") as require:
        for variable, support in target.energy.supports.items():

            def contains(draw: Values, variable: str = variable) -> Any:
                there = target.energy._support_at(variable, draw)
                return there is None or there.contains(draw[variable])

            inside = support is None or jax.vmap(jax.vmap(contains))({**first})
            require(np.all(inside), f"{np.mean(~np.asarray(inside)):.2%} of {variable!r} do not")
    if kernel.has(Biased):  # it may be a minimiser, without noise
        return
    with law(name, "another key gives other draws from the same starts") as require:
        there = dataclasses.replace(target, init={n: first[n][:, -1] for n in first})
        keys = jax.random.split(key)
        one, two = (_run(kernel, there, other, **counts) for other in keys)
        require(unequal({**one}, {**two}), "both keys give the same draws")


def _check_moments(kernel: Kernel, target: Target, key: jax.Array) -> None:
    with law(
        f"{type(kernel).__name__} on {target.name}",
        f"moments lie within {MAX_Z:g} standard errors at an ESS of at least {MIN_ESS:,}",
    ) as require:
        for thin in THINS:
            draws = _run(kernel, target, key, thin)
            bad = [n for n, x in draws.items() if not np.isfinite(np.asarray(x)).all()]
            require(not bad, f"draws of {bad} are not finite")
            moments = _targets.functionals(target, draws)
            ess = {text: mean_ess(values) for text, (values, _) in moments.items()}
            if min(ess.values()) >= MIN_ESS:
                break
        worst = min(ess, key=lambda text: ess[text])
        require(
            ess[worst] >= MIN_ESS,
            f"{CHAINS} chains of {DRAWS} draws, {thin} steps apart, have an ESS of "
            f"{ess[worst]:.0f} for {worst}: too few to tell; the chains hardly move, or not at all",
        )
        wrong = []
        for text, (values, expected) in moments.items():
            error = np.std(values) / math.sqrt(ess[text])
            z = (np.mean(values) - expected) / error if error > 0 else math.inf
            if not abs(z) <= MAX_Z:
                wrong.append(
                    f"{text} is {np.mean(values):.5g} ± {error:.2g}, exactly {expected:.5g} "
                    f"(z = {z:+.1f}, ESS {ess[text]:.0f})"
                )
        require(not wrong, "; ".join(wrong))
