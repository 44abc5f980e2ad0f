"""The classifier in an energy: the law of a label, given the rest of a row."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from energia._types import Values
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.supports import Discrete


def logits(energy: Energy, row: Mapping[str, Any], label: str) -> jax.Array:
    """The logits of the label given the other variables of a row, a vector; latents summed out."""
    latent = [name for name in energy.variables if name not in row and name != label]
    free = energy.marginalize(*latent) if latent else energy
    factors = free._factorize(label, row)
    if not isinstance(factors, Categorical) or factors.logits.size != factors.logits.shape[-1]:
        raise ValueError(
            f"{free._formula()} has no classes {label!r}, a variable of finitely many values: "
            f"label= names it, and .constrain({label}=en.Categorical(...)) says how many there are"
        )
    return factors.logits.reshape(-1)


def position(energy: Energy, y: jax.Array, label: str) -> jax.Array:
    """The number of a label among the values that it takes."""
    support = energy.supports[label]
    found = support.positions(y) if isinstance(support, Discrete) else y.astype(jnp.int32)
    return found.reshape(())


def margin(values: jax.Array, index: jax.Array) -> jax.Array:
    """By how much a class leads all others; not positive where it is not the most probable one."""
    others = jnp.where(jnp.arange(values.size) == index, -jnp.inf, values)
    return values[index] - jnp.max(others)


def check_label(energy: Energy, rows: Values, label: str, given: bool) -> None:
    """Raise unless the label is a variable, and is among the data just where it should be."""
    if label not in energy.variables:
        raise ValueError(
            f"label={label!r} is none of the variables {energy.variables} of {energy._formula()}"
        )
    if given and label not in rows:
        raise ValueError(f"data needs the labels {label!r} beside {sorted(rows)}")
    if not given and label in rows:
        raise ValueError(f"data has the labels {label!r}, of which the probabilities are asked")
    row = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in rows.items() if n != label}
    count = jax.eval_shape(lambda row: logits(energy, row, label), row).shape[0]
    if given and energy.supports[label] is None:
        y = rows[label]
        if y.ndim != 1 or bool(((y < 0) | (y >= count)).any()):
            raise ValueError(f"labels {label!r} must be classes from 0 to {count - 1}, one a row")
