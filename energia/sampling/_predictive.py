"""Draws pushed through a function, in chunks of bounded memory."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import as_array, check_key, parameters_of, put

GROUPS = ("posterior_predictive", "predictions", "log_likelihood", "log_prior")
CHUNK_BYTES = 2**25  # of the largest array that the function makes


class _Named(eqx.Module):
    """A function of variables, and perhaps of a key, whose results have names."""

    function: Callable[..., Any]
    name: str | None = eqx.field(static=True)

    def __call__(self, values: dict[str, Any]) -> dict[str, jax.Array]:
        made = self.function(**values)
        title = _title(self.function)
        if not isinstance(made, Mapping):
            if self.name is None and not title.isidentifier():
                raise ValueError(f"{title} has no name: give name= to what it returns")
            made = {self.name or title: made}
        elif self.name is not None:
            raise ValueError(f"name={self.name!r} is given, and {title} returns a dict, with names")
        if not made or not all(isinstance(name, str) and name for name in made):
            raise TypeError(f"{title} must return arrays by name, got the names {list(made)}")
        return {name: as_array(value, f"{name} of {title}") for name, value in made.items()}


def predict(
    function: Any,
    name: str | None,
    positions: Mapping[str, np.ndarray],
    key: jax.Array | None,
) -> dict[str, np.ndarray]:
    r"""What a function of variables returns at every draw: arrays of shape (chain, draw, \*shape).

    See `Draws.predictive`.
    """
    if not callable(function):
        raise TypeError(f"predictive() takes a function of variables, got {function!r}")
    names = parameters_of(function, _title(function))
    asks = "key" in names and "key" not in positions
    if unknown := [n for n in names if n not in positions and n != "key"]:
        raise ValueError(
            f"{_title(function)} takes {unknown}; the draws have {list(positions)}, and a "
            "parameter named key gets a random key"
        )
    if asks and key is None:
        raise ValueError(f"{_title(function)} takes a key: give key=, a typed JAX key")
    values = {n: positions[n] for n in names if n in positions}
    given = check_key(key) if asks else None
    return push_forward(_Named(function, name), values, positions, given)


def push_forward(
    function: Callable[[dict[str, Any]], dict[str, jax.Array]],
    values: Mapping[str, np.ndarray],
    positions: Mapping[str, np.ndarray],
    key: jax.Array | None,
) -> dict[str, np.ndarray]:
    """A function of a dict of values at every draw, compiled once, in chunks of draws.

    Args:
        function: a pytree, of one draw; its arrays are arguments of the compiled program.
        values: those of `positions` that it takes.
        positions: the draws, arrays with the axes chain and draw first.
        key: None, or what each draw's key is folded from, handed on as the value `key`.
    """
    chains, draws = next(iter(positions.values())).shape[:2]
    count = chains * draws
    flat = {n: value.reshape(count, *value.shape[2:]) for n, value in values.items()}
    size = min(count, max(1, CHUNK_BYTES // _largest(function, flat, key)))
    made: dict[str, np.ndarray] = {}
    for first in range(0, count, size):
        start = min(first, count - size)  # the last chunk overlaps the one before: one shape
        rows = np.arange(start, start + size)
        chunk = {n: put(value[start : start + size]) for n, value in flat.items()}
        where = put(np.stack([rows // draws, rows % draws], 1).astype(np.uint32))
        for n, value in _chunk(function, chunk, key, where).items():
            if n not in made:
                made[n] = np.empty((count, *value.shape[1:]), value.dtype)
            made[n][start : start + size] = value
    return {n: value.reshape(chains, draws, *value.shape[1:]) for n, value in made.items()}


@eqx.filter_jit
def _chunk(
    function: Callable[[dict[str, Any]], dict[str, jax.Array]],
    values: dict[str, jax.Array],
    key: jax.Array | None,
    where: jax.Array,
) -> dict[str, jax.Array]:
    def one(values: dict[str, jax.Array], where: jax.Array) -> dict[str, jax.Array]:
        if key is None:
            return function(values)
        # chain and draw, so that more draws do not change what the first ones predict
        own = jax.random.fold_in(jax.random.fold_in(key, where[0]), where[1])
        return function({**values, "key": own})

    return jax.vmap(one)(values, where)


def _largest(
    function: Callable[[dict[str, Any]], dict[str, jax.Array]],
    values: Mapping[str, np.ndarray],
    key: jax.Array | None,
) -> int:
    """The bytes of the largest array at one draw: of its values, and of what is made of them."""
    one: dict[str, Any] = {
        n: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for n, value in values.items()
    }
    if key is not None:
        one["key"] = key
    program = eqx.filter_make_jaxpr(function)(one)[0].jaxpr
    arrays = [*program.invars, *(v for step in program.eqns for v in step.outvars)]
    sizes = [
        math.prod(array.aval.shape) * getattr(array.aval.dtype, "itemsize", 4)
        for array in arrays
        if hasattr(array.aval, "shape")
    ]
    return max([1, *sizes])


def check_observed(observed: Any, predicted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was observed, each of the name and the shape of what is predicted for it."""
    if observed is None:
        return {}
    if not isinstance(observed, Mapping):
        raise TypeError(f"observed= must be a dict of arrays by name, got {observed!r}")
    arrays = {n: np.asarray(as_array(value, f"observed {n}")) for n, value in observed.items()}
    for name, array in arrays.items():
        if name not in predicted:
            raise ValueError(f"observed= has {name!r}; what is predicted is {list(predicted)}")
        if array.shape != (shape := predicted[name].shape[2:]):
            raise ValueError(
                f"observed {name!r} has shape {array.shape}, what is predicted for it {shape}"
            )
    return arrays


def check_group(group: str) -> None:
    """Raise unless ArviZ has a group of this name that holds functions of draws."""
    if group not in GROUPS:
        raise ValueError(f"group= must be one of {', '.join(map(repr, GROUPS))}, got {group!r}")


def _title(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
