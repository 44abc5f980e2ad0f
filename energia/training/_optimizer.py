"""Optimisers as static arguments of compiled functions."""

import functools
import types
import zlib
from typing import Any

import numpy as np
import optax

Optimizer = optax.GradientTransformation
_known: dict[Any, Optimizer] = {}


def resolve(optimizer: Any) -> Optimizer:
    """One optimiser over `{'energy': ..., 'learned': ...}`, from one or a dict of two.

    Two optimisers made from the same code with the same numbers are handed out as the same object:
    `optax.adam(1e-3)` written twice then compiles once.

    Raises:
        TypeError: for what is no Optax optimiser.
        ValueError: for a dict with other keys.
    """
    if isinstance(optimizer, dict):
        if set(optimizer) != {"energy", "learned"}:
            raise ValueError(
                f"optimizer= as a dict needs the keys 'energy' and 'learned', got {list(optimizer)}"
            )
        parts = {name: _checked(part) for name, part in optimizer.items()}
        made = optax.multi_transform(parts, {"energy": "energy", "learned": "learned"})
        identity = ("dict", *(_identity(parts[name]) for name in ("energy", "learned")))
    else:
        made = _checked(optimizer)
        identity = _identity(made)
    return _known.setdefault(identity, made)


def fingerprint(optimizer: Optimizer) -> str:
    """The same text for the same code and numbers, in every process."""
    return str(_identity(optimizer, portable=True))


def _checked(optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer= must be an Optax optimiser such as optax.adam(1e-3), got {optimizer!r}"
        )
    return optimizer


def _identity(value: Any, portable: bool = False, depth: int = 0) -> Any:
    """What makes a function do what it does: its code and, recursively, what it closes over."""
    again = functools.partial(_identity, portable=portable, depth=depth + 1)
    if depth > 50:
        return type(value).__name__ if portable else id(value)
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return type(value).__name__, value
        case tuple() | list():
            return type(value).__name__, *(again(item) for item in value)
        case dict():
            return "dict", *((str(key), again(item)) for key, item in sorted(value.items()))
        case np.ndarray() | np.generic():
            return "array", str(value.dtype), value.shape, value.tobytes()
        case functools.partial():
            return "partial", again(value.func), again(value.args), again(value.keywords)
        case types.FunctionType():
            code = value.__code__
            body = (code.co_name, zlib.crc32(code.co_code)) if portable else code
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return "function", body, again(cells), again(value.__defaults__), again(
                value.__kwdefaults__
            )
    return type(value).__name__ if portable else ("object", id(value))
