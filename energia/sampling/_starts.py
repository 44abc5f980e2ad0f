"""Where chains start: drawn from the supports, or given."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.energies._energy import Energy, _not_scalar
from energia.energies._unconstrained import Unconstrained
from energia.supports import Real, Support

TRIES = 100


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
    return {n: _given(n, value, supports[n], num_chains) for n, value in init.items()}


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
    inside = np.asarray(jax.vmap(support.contains)(jnp.asarray(array)))
    if not inside.all():
        where = tuple(int(i[0]) for i in np.nonzero(~inside))
        raise ValueError(
            f"{what} lies outside its support {support}: {array[where]} at index {where}"
        )
    return array


def with_shapes(energy: Energy, starts: Mapping[str, np.ndarray]) -> Energy:
    """The energy with every support known: an unknown one is real, with the shape of its start."""
    unknown = [name for name, support in energy.supports.items() if support is None]
    if missing := [name for name in unknown if name not in starts]:
        name = missing[0]
        raise ValueError(
            f"the support of {name!r} is unknown, so no chain can start: give init="
            f"{{{name!r}: ...}} (then it is real with that shape), or say "
            f".constrain({name}=en.Real((...,)))"
        )
    if not unknown:
        return energy
    return energy.constrain(**{name: Real(starts[name].shape[1:]) for name in unknown})


def check_scalar(energy: Energy) -> None:
    """Raise where the energy is no real scalar; traces it, compiles nothing."""
    values = {
        name: jax.ShapeDtypeStruct(support.shape, support.dtype)
        for name, support in energy.supports.items()
        if support is not None
    }
    result = eqx.filter_eval_shape(lambda energy, values: energy.at(values), energy, values)
    if getattr(result, "shape", None) != ():
        raise TypeError(_not_scalar(energy, result, values))
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(
            f"{energy._formula()} must return a real number, got dtype {result.dtype}: "
            "cast it, for example with jnp.asarray(..., float)"
        )


@eqx.filter_jit
def draw_starts(
    target: Unconstrained, given: Values, keys: jax.Array, key_impl: str, gradient: bool
) -> tuple[Values, jax.Array]:
    """Unconstrained starts for every chain, and whether the energy is finite there.

    What `given` lacks is drawn from the supports, again until the energy (and its gradient, where
    asked for) is finite, at most `TRIES` times.
    """
    keys = jax.random.wrap_key_data(keys, impl=key_impl)
    supports = target.energy.supports
    drawn = [name for name in target.variables if name not in given]

    def finite(position: Values) -> jax.Array:
        if not gradient:
            return jnp.isfinite(target.at(position))
        moving = {n: x for n, x in position.items() if jnp.issubdtype(x.dtype, jnp.floating)}
        value, slopes = jax.value_and_grad(lambda m: target.at({**position, **m}))(moving)
        checks = [jnp.isfinite(value), *(jnp.all(jnp.isfinite(s)) for s in slopes.values())]
        return jnp.all(jnp.stack(checks))

    def attempt(given: Values, key: jax.Array, count: jax.Array) -> Values:
        values = dict(given)
        for index, name in enumerate(drawn):
            support = supports[name]
            assert support is not None
            values[name] = support.draw(jax.random.fold_in(jax.random.fold_in(key, count), index))
        return target.unconstrain(values)

    def one(given: Values, key: jax.Array) -> tuple[Values, jax.Array]:
        def again(carry):
            count, _, _ = carry
            position = attempt(given, key, count)
            return count + 1, position, finite(position)

        def unfinished(carry):
            count, _, good = carry
            return ~good & (count < (TRIES if drawn else 1))

        first = attempt(given, key, jnp.zeros((), jnp.int32))
        carry = (jnp.zeros((), jnp.int32), first, jnp.zeros((), bool))
        _, position, good = jax.lax.while_loop(unfinished, again, carry)
        return position, good

    return jax.vmap(one)(given, keys)


def bad_start(energy: Energy, target: Unconstrained, positions: Any, good: np.ndarray) -> str:
    """Why no start was found: the energy, and the values of the variables there."""
    chain = int(np.nonzero(~good)[0][0])
    position = {name: jnp.asarray(value[chain]) for name, value in positions.items()}
    values = target.constrain(position)[0]
    with np.printoptions(precision=4, threshold=8):
        shown = ", ".join(f"{name}={np.asarray(value)}" for name, value in values.items())
    return (
        f"the energy of {energy._formula()} or its gradient is not finite at the start of chain "
        f"{chain}: E = {float(energy.at(values)):.6g} at {shown}. Give init= with a point where it "
        "is finite, or a support that keeps the variable where the energy is defined "
        "(.constrain(...))"
    )
