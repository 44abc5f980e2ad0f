"""Numbers at the public face: strong dtypes, arrays where the user wrote floats; how they read."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Values = dict[str, jax.Array]


def float_dtype() -> np.dtype:
    """The default floating dtype: float32, or float64 where x64 is enabled."""
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def put(array: np.ndarray) -> jax.Array:
    """A copy as a JAX array; unlike `jnp.asarray` it compiles nothing for a new shape."""
    return jax.device_put(np.array(array))  # NumPy's copy, as the device may share its memory


def on_host(value: Any) -> np.ndarray:
    """Numbers as a NumPy array of the dtype that JAX would give them."""
    return np.asarray(_canonical(np.asarray(value)))


def strong(leaf: Any) -> Any:
    """A float, NumPy array or weakly typed array as a strongly typed JAX array; the rest as it is.

    A weak type makes a second call with the same shapes compile again. Casting goes through NumPy,
    which compiles nothing. Float arrays wider than the default become the default; bfloat16 and
    float16 stay, they were chosen on purpose.
    """
    if isinstance(leaf, bool | int):
        return leaf
    if isinstance(leaf, float):
        return put(np.asarray(leaf, float_dtype()))
    if isinstance(leaf, np.ndarray | np.generic):
        return put(_canonical(leaf)) if _is_numeric(leaf.dtype) else leaf
    if isinstance(leaf, jax.Array) and _is_numeric(leaf.dtype) and leaf.weak_type:
        if isinstance(leaf, Tracer):
            return jax.lax.convert_element_type(leaf, leaf.dtype)
        return put(np.asarray(leaf))
    return leaf


def strong_tree(tree: Any) -> Any:
    """`strong` on every leaf; a leaf that stands in several places stays one object."""
    done: dict[int, Any] = {}

    def cast(leaf):
        if not eqx.is_array(leaf):
            return strong(leaf)
        if id(leaf) not in done:
            done[id(leaf)] = strong(leaf)
        return done[id(leaf)]

    return jax.tree.map(cast, tree)


def as_array(value: Any, name: str = "") -> jax.Array:
    """Any array-like as a strongly typed JAX array (Python and 64-bit floats in the default dtype).

    NumPy arrays are copied. `name` says in an error what the value was meant for.
    """
    if isinstance(value, jax.Array):
        return strong(value)
    if _holds_tracers(value):
        return strong(jnp.asarray(value))
    array = np.asarray(value)
    if not _is_numeric(array.dtype):
        raise TypeError(f"{_prefix(name)}expected numbers, got {describe(value)}")
    return put(_canonical(array))


def as_float(value: Any, name: str = "") -> jax.Array:
    """Any real array-like as a strongly typed floating JAX array."""
    if not isinstance(value, jax.Array) and not _holds_tracers(value):
        plain = np.asarray(value)
        if plain.dtype.kind in "biu":  # a wide integer does not fit JAX's integers
            value = plain.astype(float_dtype())
    array = as_array(value, name)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{_prefix(name)}expected real numbers, got the dtype {array.dtype}")
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if isinstance(array, Tracer):
        return array.astype(float_dtype())
    return put(np.asarray(array).astype(float_dtype()))


def log(value: jax.Array) -> jax.Array:
    """The logarithm of a float array; of concrete numbers through NumPy, which compiles nothing."""
    return as_float(np.log(np.asarray(value))) if is_concrete(value) else jnp.log(value)


def optional_float(value: Any) -> jax.Array | None:
    """`as_float`, with None passed through: the converter of a sampler's numbers."""
    return None if value is None else as_float(value)


def is_concrete(value: Any) -> bool:
    """Whether the numbers can be looked at: not while tracing."""
    return not _is_tracer(value)


def configuration(module: Any) -> str:
    """How a configuration reads: its class, and every field that holds something."""
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    parts = [
        f"{name}={_shown(value)}"
        for name, value in values.items()
        if not (value is None or (isinstance(value, tuple | dict) and not value))
    ]
    return f"{type(module).__name__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    if isinstance(value, eqx.Module):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_shown(each)}' for key, each in value.items())}}}"
    if isinstance(value, jax.Array) and value.ndim == 0 and is_concrete(value):
        return f"{value.item():.6g}"
    return eqx.tree_pformat(value)


def check_key(key: Any, name: str = "key") -> jax.Array:
    """Raise unless `key` is one typed JAX key."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise ValueError(
            f"{name}= must be one key, got an array of keys of shape {key.shape}: "
            "pass one of them, energia splits it"
        )
    raise TypeError(
        f"{name}= must be a typed JAX key such as jax.random.key(0), got {describe(key)}"
        + (
            ": jax.random.wrap_key_data turns a legacy PRNGKey into one"
            if isinstance(key, jax.Array | np.ndarray)
            else ""
        )
    )


def check_count(value: Any, name: str, minimum: int) -> int:
    """Raise unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}= must be an integer, got {describe(value)}")
    if value < minimum:
        raise ValueError(f"{name}= must be at least {minimum}, got {value}")
    return int(value)


def parameters_of(function: Callable[..., Any], name: str, skip: int = 0) -> tuple[str, ...]:
    """The parameters of a function that have no default, without the first `skip`."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{name} takes {parameter}: variables are the names of parameters: write them out"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"{name} takes {parameter.name!r} by position only: energies pass their "
                "variables by name"
            )
    names = tuple(p.name for p in parameters if p.default is p.empty)
    if not names:
        raise TypeError(f"{name} has no variable: give it at least one parameter")
    return names


def check_broadcast(shape: Sequence[int], wanted: Sequence[int], name: str) -> None:
    """Raise unless a shape broadcasts to the wanted one without widening it."""
    try:
        fits = np.broadcast_shapes(tuple(shape), tuple(wanted)) == tuple(wanted)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {shape} does not broadcast to {wanted}")


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple; an integer is the shape of a vector."""
    entries: tuple[Any, ...] = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    if any(not isinstance(n, int | np.integer) or n < 0 for n in entries):
        raise ValueError(f"shape must be a tuple of non-negative integers, got {shape!r}")
    return tuple(int(n) for n in entries)


def describe(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{value!r} of type {type(value).__name__}"


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""


def _holds_tracers(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(map(_is_tracer, jax.tree.leaves(value)))


def _is_tracer(value: Any) -> bool:
    return isinstance(value, Tracer)


def _is_numeric(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_))


def _canonical(array: np.ndarray | np.generic) -> np.ndarray:
    """The array in the dtype that JAX gives it; an integer that does not fit raises."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    narrow = np.asarray(array, dtype)
    if dtype != array.dtype and np.issubdtype(dtype, np.integer) and np.any(narrow != array):
        raise OverflowError(
            f"integers up to {np.abs(array).max()} do not fit {dtype}: scale them, make them "
            "floats, or set jax_enable_x64"
        )
    return narrow
