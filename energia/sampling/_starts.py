"""Where chains start: drawn from the supports, or given."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.energies._checks import check_all, not_scalar
from energia.energies._energy import Energy
from energia.energies._total import Total
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.supports import Discrete, Interval, Real, Support

TRIES = 100
CANDIDATES = 16


def given_starts(energy: Energy, init: Any, num_chains: int) -> dict[str, np.ndarray]:
    """The starting values of the variables in `init`, each of shape (chain, *shape).

    Args:
        energy: the energy; supports that are known are checked.
        init: None, a dict by variable name, or the value of the only variable. A leading axis of
            length `num_chains` is the axis of chains; without it every chain starts there.
        num_chains: how many chains.

    Raises:
        ValueError, TypeError: when a name, shape or dtype does not fit, or a value lies outside its
            support.
    """
    if init is None:
        return {}
    if not isinstance(init, Mapping):
        if len(energy.variables) != 1:
            raise TypeError(
                f"init= must be a dict by variable name, since {energy._formula()} has the "
                f"variables {energy.variables}; got {type(init).__name__}"
            )
        init = {energy.variables[0]: init}
    if unknown := [name for name in init if name not in energy.variables]:
        raise ValueError(f"init= has {unknown}; the variables are {energy.variables}")
    supports = energy.supports
    starts = {n: _given(n, value, supports[n], num_chains) for n, value in init.items()}
    for name, value in starts.items():
        _check_inside(energy, name, value, starts)
    return starts


def _given(name: str, value: Any, support: Support | None, num_chains: int) -> np.ndarray:
    array = np.asarray(value)
    what = f"init for {name!r}"
    numeric = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not numeric:
        raise TypeError(f"{what} must hold real numbers, got dtype {array.dtype}")
    if support is None:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"{what} has dtype {array.dtype}, and its support is unknown: give floats for a "
                f"real variable, or say .constrain({name}=en.Categorical(...)) or the like"
            )
        chains_lead = array.ndim > 0 and array.shape[0] == num_chains
        if chains_lead and array.ndim == 1:
            raise ValueError(
                f"{what} of shape {array.shape} may be {num_chains} numbers, one a chain, or one "
                f"vector: say which with .constrain({name}=en.Real()) or "
                f".constrain({name}=en.Real({array.shape}))"
            )
        support = Real(array.shape[1:] if chains_lead else array.shape)
    if array.shape == support.shape:
        array = np.broadcast_to(array, (num_chains, *support.shape))
    if array.shape != (num_chains, *support.shape):
        raise ValueError(
            f"{what} must have shape {(num_chains, *support.shape)}, one start a chain, or "
            f"{support.shape}, one for all; got {array.shape}"
        )
    if support.dtype.kind == "i" and array.dtype.kind == "f" and (array != array.round()).any():
        raise TypeError(f"{what} must hold whole numbers ({support}), got {array.dtype}")
    array = array.astype(support.dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite: {array[~np.isfinite(array)][0]}")
    return array


def _check_inside(
    energy: Energy, name: str, starts: np.ndarray, given: Mapping[str, np.ndarray]
) -> None:
    """Raise unless starts, shape (chain, *shape), lie in the support of their variable."""
    support = energy.supports[name]
    if support is None or isinstance(support, Real):
        return
    if lacking := [other for other in support.depends if other not in given]:
        raise ValueError(
            f"init for {name!r} needs a start of {lacking} beside it: its support {support} "
            "depends on it"
        )

    def inside(start: jax.Array, others: Values) -> Any:
        there = energy._support_at(name, others)
        assert there is not None
        return there.contains(start)

    others = {other: jnp.asarray(given[other]) for other in support.depends}
    good = np.asarray(jax.vmap(inside)(jnp.asarray(starts), others))
    check_all(good, starts, f"init for {name!r}", f"outside its support {support}")


def with_shapes(energy: Energy, starts: Mapping[str, np.ndarray]) -> Energy:
    """The energy with every support known: an unknown one is real, with the shape of its start."""
    unknown = [name for name, support in energy.supports.items() if support is None]
    if missing := [name for name in unknown if name not in starts]:
        name = missing[0]
        raise ValueError(
            f"the support of {name!r} is unknown, so no chain can start: give init="
            f"{{{name!r}: ...}} (then it is real with that shape), or say "
            f".constrain({name}=en.Real((...,))), or fix it with .condition({name}=...)"
        )
    if not unknown:
        return energy
    return energy.constrain(**{name: Real(starts[name].shape[1:]) for name in unknown})


def path_with_shapes(path: Path, starts: Mapping[str, np.ndarray]) -> Path:
    """The path with every support known, the level's aside."""
    supports = with_shapes(path.target, starts).supports
    known = path.supports
    lost = {name: s for name, s in supports.items() if known[name] is None and s is not None}
    if not lost:
        return path
    return eqx.tree_at(lambda path: path.energy, path, path.energy.constrain(**lost))


def check_scalar(energy: Energy) -> None:
    """Raise where the energy is no real scalar; traces it, compiles nothing."""
    values = {
        name: jax.ShapeDtypeStruct(support.shape, support.dtype)
        for name, support in energy.supports.items()
        if support is not None
    }
    result = eqx.filter_eval_shape(lambda energy, values: energy.at(values), energy, values)
    if getattr(result, "shape", None) != ():
        raise TypeError(not_scalar(energy, result, values))
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(
            f"{energy._formula()} must return a real number, got dtype {result.dtype}: "
            "cast it, for example with jnp.asarray(..., float)"
        )


def chain_seeds(key: jax.Array, num_chains: int) -> list[np.random.SeedSequence]:
    """A seed for each chain: chain c has the same one however many run, and wherever they run.

    NumPy's, since deriving them and drawing starts on the host compiles nothing.
    """
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return [np.random.SeedSequence([*words, chain]) for chain in range(num_chains)]


def chain_keys(seeds: list[np.random.SeedSequence], key: jax.Array) -> np.ndarray:
    """The key data of each chain."""
    words = int(np.prod(jax.random.key_data(key).shape))
    return np.stack([seed.generate_state(words, np.uint32) for seed in seeds])


def draw_starts(
    target: Unconstrained,
    given: Mapping[str, np.ndarray],
    seeds: list[np.random.SeedSequence],
    gradient: bool,
    candidates: int = CANDIDATES,
) -> dict[str, np.ndarray]:
    """Unconstrained starts for every chain, where the energy is finite.

    What `given` lacks is drawn, Uniform(-2, 2) in unconstrained space or uniform over a discrete
    support. Each chain begins at the lowest energy of several draws, so that few are caught
    where there is next to no mass; they are drawn again, at most `TRIES` times, while none has a
    finite energy (and gradient, where asked for).

    Raises:
        ValueError: when a chain finds no such start.
    """
    fixed = (
        jax.vmap(target.unconstrain)({n: jnp.asarray(x) for n, x in given.items()}) if given else {}
    )
    drawn = [name for name in target.variables if name not in given]
    count = candidates if drawn else 1
    generators = [np.random.default_rng(seed) for seed in seeds]
    supports = target.supports
    starts: dict[str, np.ndarray] = {}
    good = np.zeros(len(next(iter(given.values()))) if given else len(seeds), bool)
    for _ in range(TRIES if drawn else 1):
        tried = {name: np.repeat(np.asarray(x)[None], count, 0) for name, x in fixed.items()}
        for name in drawn:
            each = [_draw(supports[name], count, generator) for generator in generators]
            tried[name] = np.stack(each, axis=1)
        tried = {name: tried[name] for name in target.variables}
        energies = np.asarray(_energies(target, tried, gradient))
        lowest = energies.argmin(0)
        for name, values in tried.items():
            new = values[lowest, np.arange(len(lowest))]
            keep = good.reshape(-1, *[1] * (new.ndim - 1))
            starts[name] = np.where(keep, starts.get(name, new), new)
        good |= np.isfinite(energies.min(0))
        if good.all():
            return starts
    raise ValueError(_no_start(target, starts, int(np.nonzero(~good)[0][0])))


def _draw(support: Support | None, count: int, generator: np.random.Generator) -> np.ndarray:
    """Starts of one variable, with a leading axis over them."""
    assert support is not None
    shape = (count, *support.shape)
    if isinstance(support, Discrete):
        return generator.choice(support.states, shape).astype(support.dtype)
    if support.discrete:
        return generator.poisson(1.0, shape).astype(support.dtype)
    return generator.uniform(-2, 2, shape).astype(support.dtype)


@eqx.filter_jit
def _energies(target: Unconstrained, tried: Mapping[str, Any], gradient: bool) -> jax.Array:
    """The energy at positions (candidates, chains, ...); infinite where it is no start."""

    def one(position: Values) -> jax.Array:
        if not gradient:
            value = target.at(position)
            return jnp.where(jnp.isfinite(value), value, jnp.inf)
        real = {n: x for n, x in position.items() if not _is_discrete(target.supports[n])}
        value, slopes = jax.value_and_grad(lambda real: target.at({**position, **real}))(real)
        checks = [jnp.isfinite(value), *(jnp.all(jnp.isfinite(s)) for s in slopes.values())]
        return jnp.where(jnp.all(jnp.stack(checks)), value, jnp.inf)

    return jax.lax.map(jax.vmap(one), dict(tried))  # memory of one candidate a chain


def _is_discrete(support: Support | None) -> bool:
    return support is not None and support.discrete


def _no_start(target: Unconstrained, positions: Mapping[str, np.ndarray], chain: int) -> str:
    """What is wrong at the start of a chain, as far as it can be told, and where that is."""
    position = {name: jnp.asarray(value[chain]) for name, value in positions.items()}
    values = target.constrain(position)[0]
    energy = target.energy
    with np.printoptions(precision=4, threshold=8):
        shown = ", ".join(f"{name}={np.asarray(value)}" for name, value in values.items())
    lines = [
        f"the energy of {energy._formula()} or its gradient is not finite at the start of chain "
        f"{chain}: E = {float(energy.at(values)):.6g} at {shown}."
    ]
    if crossed := _crossed(energy, values):
        lines += [*crossed, "Give init= within the bounds, or bounds that are in order."]
        return " ".join(lines)
    terms = energy._terms()
    wrong = [t for t in terms if not np.isfinite(t.at({n: values[n] for n in t.variables}))]
    if wrong and len(terms) > 1:
        lines.append(f"Not finite: {', '.join(term._formula() for term in wrong)}.")
    lines += [text for term in wrong if isinstance(term, Total) and (text := _row(term, values))]
    moving = {n: x for n, x in position.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    slopes = jax.grad(lambda moving: target.at({**position, **moving}))(moving) if moving else {}
    steep = [name for name, slope in slopes.items() if not np.isfinite(slope).all()]
    if steep and len(values) > 1:
        lines.append(f"The gradient is not finite with respect to {steep}.")
    lines.append(
        "Give init= with a point where it is finite, or a support that keeps the variable where "
        "the energy is defined (.constrain(...))"
    )
    return " ".join(lines)


def _row(term: Total, values: Values) -> str:
    """Which rows of data are impossible, whatever the one term says of all of them."""
    energies = np.asarray(term.per_row({n: values[n] for n in term.variables}))
    wrong = np.nonzero(~np.isfinite(energies))[0]
    if not len(wrong):
        return ""
    with np.printoptions(precision=4, threshold=8):
        row = ", ".join(f"{n}={np.asarray(value[wrong[0]])}" for n, value in term.rows.items())
    return f"That is {len(wrong)} of its {len(energies)} rows; the first is row {wrong[0]}: {row}."


def _crossed(energy: Energy, values: Values) -> list[str]:
    """Where functions give a lower bound that is not below the upper one."""
    found = []
    for name, support in energy.supports.items():
        there = energy._support_at(name, values) if support and support.functional else None
        if isinstance(there, Interval):
            low, high = map(np.asarray, there.ends(values[name].dtype))
            if not np.all(low < high):
                found.append(f"The bounds of {name!r} are out of order there: ({low}, {high}).")
    return found
