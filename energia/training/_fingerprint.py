"""What makes a value do what it does, in a form that can be compared."""

import dataclasses
import functools
import hashlib
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

_LIBRARIES = ("abc", "builtins", "chex", "collections", "energia", "equinox", "jax", "optax")
_PLAIN = bool | int | float | str | bytes


def fingerprint(value: Any) -> str:
    """The same text for the same structure, code and numbers, in every process.

    Objects are told apart by their fields and by the code of their classes, functions by their
    code, closures and the plain numbers among their globals, arrays by their bytes.
    """
    return hashlib.sha256(repr(identity(value, portable=True)).encode()).hexdigest()


def identity(value: Any, *, portable: bool = False, above: tuple[int, ...] = ()) -> Any:
    """What makes a value do what it does: of a function its code and what it closes over.

    Within a process (not `portable`) an equal identity promises the same behaviour: a function from
    outside the libraries, whose globals may change, is equal to itself alone.
    """
    if isinstance(value, _PLAIN | None):
        return type(value).__name__, value
    if id(value) in above:  # a function that closes over itself
        return "above", above.index(id(value))
    again = functools.partial(identity, portable=portable, above=(*above, id(value)))
    match value:
        case tuple() | list():
            return type(value).__name__, *(again(item) for item in value)
        case dict():
            return "dict", *((str(key), again(item)) for key, item in value.items())
        case functools.partial():
            return "partial", again(value.func), again(value.args), again(value.keywords)
        case optax.MultiSteps():  # the one optimiser that is an object with methods
            return _name(value), again(vars(value))
        case types.FunctionType() if portable or _is_library(value):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            defaults = again(value.__defaults__), again(value.__kwdefaults__)
            code = _code(value) if portable else value.__code__
            return "function", code, again(cells), *defaults
        case types.MethodType() if portable or _is_library(value.__func__):
            return "method", again(value.__func__), again(value.__self__)
    if eqx.is_array(value) or isinstance(value, np.ndarray | np.generic):
        numbers = host(value)
        content = hashlib.sha256(numbers.tobytes()).digest()
        return "array", str(value.dtype), numbers.shape, content
    if portable and dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f.name, again(getattr(value, f.name))) for f in dataclasses.fields(value)]
        own = [cls for cls in type(value).__mro__ if not _is_library(cls)]
        methods = [f for cls in own for f in vars(cls).values() if type(f) is types.FunctionType]
        return _name(value), *fields, *(again(method) for method in methods)
    return _name(value) if portable else ("object", id(value))


def host(array: Any) -> np.ndarray:
    """An array on the host; of typed keys, their data."""
    typed = isinstance(array, jax.Array)
    is_key = typed and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def _is_library(thing: Any) -> bool:
    return (thing.__module__ or "").partition(".")[0] in _LIBRARIES


def _code(function: types.FunctionType) -> Any:
    if _is_library(function):  # by name, so that a new release of the library is no other code
        return function.__module__, function.__qualname__
    code = function.__code__
    named = {name: function.__globals__.get(name) for name in code.co_names}
    return _body(code), [item for item in named.items() if isinstance(item[1], _PLAIN)]


def _body(code: types.CodeType) -> Any:
    constants = [_body(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    text = [sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c) for c in constants]
    return code.co_name, code.co_code, code.co_names, text


def _name(value: Any) -> str:
    return f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}"
