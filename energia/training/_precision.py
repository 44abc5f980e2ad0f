"""Networks in bfloat16 with energies in float32."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend import core

from energia.energies._algebra import Same
from energia.energies._energy import Energy

PRECISIONS = ("float32", "bfloat16")
PRODUCTS = ("dot_general", "conv_general_dilated")
JITTED = ("jit", "pjit")  # as JAX names them, by version
CHECKPOINTED = ("checkpoint", "remat2")


def check_precision(precision: Any, energy: Energy, shapes: Mapping[str, Any]) -> bool:
    """Whether training is to run in bfloat16.

    Raises:
        ValueError: for another precision, and where there is nothing that it would change.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision= must be one of {PRECISIONS}, got {precision!r}")
    if precision == "float32":
        return False
    # what the objective supplies, as a noise level, has no shape yet
    if set(shapes) == set(energy.variables):
        jaxpr = eqx.filter_make_jaxpr(lambda energy, values: energy.at(values))(energy, shapes)[0]
        if not _products(jaxpr.jaxpr):
            raise ValueError(
                f"precision='bfloat16' rounds what enters matrix products and convolutions, and "
                f"{energy._formula()} computes none in float32 but inner products: leave it out"
            )
    return True


class Lowered(Same):
    """The energy, with its matrix products and convolutions computed in bfloat16.

    What enters them is rounded, and so is what comes out; everything else is computed in the
    dtypes that the energy is written in: sums, activations, and inner products, whose outcome is
    a number, as that of a network's last layer. Closed forms (`_exact`, `_factorize`) stay.
    """

    energy: Energy

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return lowered(lambda energy, values: energy.at(values))(
            self.energy, self._bind(args, kwargs)
        )


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its matrix products and convolutions computed in bfloat16."""

    def run(*args: Any) -> Any:
        arrays, static = eqx.partition(args, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)

        def flat(*leaves: Any) -> Any:
            return function(*eqx.combine(jax.tree.unflatten(structure, leaves), static))

        jaxpr = jax.make_jaxpr(flat)(*leaves)
        return _evaluate(jaxpr.jaxpr, jaxpr.consts, leaves)[0]

    return run


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    known: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(var: Any) -> Any:
        return var.val if isinstance(var, core.Literal) else known[var]

    eqn: Any
    for eqn in jaxpr.eqns:
        values = [read(var) for var in eqn.invars]
        if (inner := _inner(eqn)) is not None:
            run = functools.partial(_evaluate, inner.jaxpr, inner.consts)
            if eqn.primitive.name in CHECKPOINTED:
                run = jax.checkpoint(run, policy=eqn.params["policy"])
            results = run(values)
        elif _is_product(eqn):
            half = [value.astype(jnp.bfloat16) for value in values]
            params = eqn.params
            if params.get("preferred_element_type") is not None:
                params = {**params, "preferred_element_type": jnp.dtype(jnp.bfloat16)}
            out = eqn.primitive.bind(*half, **params)
            results = [out.astype(eqn.outvars[0].aval.dtype)]
        else:
            params = eqn.primitive.get_bind_params(eqn.params)
            results = eqn.primitive.bind(*values, **params)
            results = results if eqn.primitive.multiple_results else [results]
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _inner(eqn: Any) -> core.ClosedJaxpr | None:
    """What a jitted or checkpointed function computes; loops and branches stay as they are."""
    if eqn.primitive.name not in JITTED + CHECKPOINTED:
        return None
    inner = eqn.params["jaxpr"]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def _is_product(eqn: Any) -> bool:
    out = eqn.outvars[0].aval
    return (
        eqn.primitive.name in PRODUCTS
        and out.size > 1
        and all(var.aval.dtype == jnp.float32 for var in eqn.invars)
    )


def _products(jaxpr: core.Jaxpr) -> bool:
    """Whether there is anything to lower."""
    return any(
        _products(inner.jaxpr) if (inner := _inner(eqn)) is not None else _is_product(eqn)
        for eqn in jaxpr.eqns
    )
