"""Optimisers as static arguments of compiled functions."""

from collections.abc import Hashable
from typing import Any

import optax

from energia.training._fingerprint import identity

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
        parts: dict[Hashable, Optimizer] = {
            name: _checked(optimizer[name]) for name in ("energy", "learned")
        }
        made = optax.multi_transform(parts, {"energy": "energy", "learned": "learned"})
        return _known.setdefault(identity(parts), made)
    made = _checked(optimizer)
    return _known.setdefault(identity(made), made)


def _checked(optimizer: Any) -> Optimizer:
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer= must be an Optax optimiser such as optax.adam(1e-3), got {optimizer!r}"
        )
    return optimizer
