"""Numbers of a kernel that follow the particles it moves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from energia._types import Values
from energia.samplers._adaptation import TARGET
from energia.samplers._combined import class_name
from energia.samplers._moments import flat
from energia.samplers._sampler import Kernel

STEP_SIZE, METRIC = "step_size", "inverse_mass_matrix"
GAIN = 2.0  # of the logarithm of the step size, by the error of the acceptance rate
LEAST_VARIANCE = 1e-10  # particles that are all alike would stop moving
Numbers = dict[str, jax.Array]


def check_followed(kernel: Kernel) -> None:
    """Raise where a kernel lacks another number than a step size or a metric."""
    fields = {field.name for field in dataclasses.fields(kernel)}
    if missing := [n for n in kernel.unset() if n not in fields & {STEP_SIZE, METRIC}]:
        inside = [name for name in missing if name not in fields]
        give = "give the kernels in it their numbers" if inside else "give it"
        raise ValueError(
            f"{class_name(kernel)} has no value for {missing}, which no particles tell: {give}, or "
            "take one kernel that lacks a step size or an inverse mass matrix at most"
        )


def first_numbers(kernel: Kernel, positions: Values) -> Numbers:
    """What a kernel lacks, to begin with, for particles with a leading axis."""
    rows = flat({name: jnp.asarray(value) for name, value in positions.items()})
    return {
        name: jnp.asarray(rows.shape[1] ** -0.25, rows.dtype)
        if name == STEP_SIZE
        else _variances(rows, jnp.full(len(rows), 1 / len(rows)))
        for name in kernel.unset()
    }


def next_numbers(
    kernel: Kernel, numbers: Numbers, rate: Any, positions: Values, weights: Any = None
) -> Numbers:
    """The numbers after particles have moved, with their mean acceptance rate and weights."""
    return next_metric(next_step_size(kernel, numbers, rate), positions, weights)


def next_step_size(kernel: Kernel, numbers: Numbers, rate: Any, gain: Any = GAIN) -> Numbers:
    """The numbers after a mean acceptance rate was seen: the step size grows or shrinks."""
    if STEP_SIZE not in numbers:
        return numbers
    target: Any = getattr(kernel, "target_acceptance_rate", 0.6)
    target = TARGET if target is None else target
    error = jnp.where(jnp.isfinite(rate), rate, 0.0) - target
    return {**numbers, STEP_SIZE: numbers[STEP_SIZE] * jnp.exp(gain * error)}


def next_metric(numbers: Numbers, positions: Values, weights: Any = None) -> Numbers:
    """The numbers after particles have moved: the metric has their variances."""
    if METRIC not in numbers:
        return numbers
    rows = flat(positions)
    even = jnp.full(len(rows), 1 / len(rows), rows.dtype)
    return {**numbers, METRIC: _variances(rows, even if weights is None else weights)}


def with_numbers(kernel: Kernel, numbers: Mapping[str, Any]) -> Kernel:
    """The kernel with what it lacked."""
    return kernel.replace(**numbers) if numbers else kernel


def _variances(rows: jax.Array, weights: jax.Array) -> jax.Array:
    mean = weights @ rows
    return jnp.maximum(weights @ (rows - mean) ** 2, LEAST_VARIANCE)
