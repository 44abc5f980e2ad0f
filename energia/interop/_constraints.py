"""NumPyro's constraints as supports."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import is_concrete
from energia.energies._numpyro import numpyro
from energia.supports import (
    Binary,
    Categorical,
    CholeskyCorrelation,
    Continuous,
    Interval,
    Natural,
    Ordered,
    Positive,
    Real,
    Simplex,
    Support,
)

Shape = tuple[int, ...]
AnyArray = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Bijected(Continuous):
    """A constraint that energia has no support for, mapped by NumPyro's `biject_to`.

    Args:
        name: its name in `numpyro.distributions.constraints`; NumPyro's objects have no hash.
        arguments: what it is made with, by name.
        shape: shape of one value.
    """

    name: str
    arguments: tuple[tuple[str, int], ...]
    shape: Shape = ()  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def constraint(self) -> Any:
        """NumPyro's object."""
        made = getattr(_constraints(), self.name)
        return made(**dict(self.arguments)) if self.arguments else made

    @property
    def _transform(self) -> Any:
        return numpyro(f"the support {self}").distributions.biject_to(self.constraint)

    @property
    def unconstrained_shape(self) -> Shape:
        return tuple(self._transform.inverse_shape(self.shape))

    def constrain(self, unconstrained: jax.Array) -> tuple[jax.Array, jax.Array]:
        transform = self._transform
        value = transform(unconstrained)
        return value, jnp.sum(transform.log_abs_det_jacobian(unconstrained, value))

    def unconstrain(self, value: jax.Array) -> jax.Array:
        return self._transform.inv(value)

    def contains(self, value: AnyArray) -> AnyArray | np.bool_:
        constraint = self.constraint
        inside = np.asarray(constraint(value)) if is_concrete(value) else constraint(value)
        return inside.reshape(*inside.shape, *[1] * constraint.event_dim) & (value == value)

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


def _bijected(constraint: Any, shape: Shape) -> Bijected | None:
    constraints = _constraints()
    for name in constraints.__all__:
        known = getattr(constraints, name)
        if isinstance(known, constraints.Constraint) and known is constraint:
            return Bijected(name, (), shape)
    if isinstance(constraint, constraints.zero_sum):
        return Bijected("zero_sum", (("event_dim", constraint.event_dim),), shape)
    return None


def ends(constraint: Any) -> tuple[Any, Any] | None:
    """The bounds of a constraint of numbers between bounds; None where it is another."""
    constraints = _constraints()
    constraint = _inner(constraint)
    if constraint.is_discrete:
        return None
    for name, low, high in (("interval", 1, 1), ("greater_than", 1, 0), ("less_than", 0, 1)):
        kind = getattr(constraints, name)
        if isinstance(constraint, kind):
            return (
                constraint.lower_bound if low else -np.inf,
                constraint.upper_bound if high else np.inf,
            )
    return None


def support_of(constraint: Any, shape: Shape, site: str) -> Support:
    """The support of a constraint: energia's own where it has one.

    Raises:
        ValueError: when there is none.
    """
    library = numpyro("from_numpyro").distributions
    known = library.constraints
    constraint = _inner(constraint)
    own = getattr(constraint, "support", None)  # of `to_numpyro`
    if isinstance(own, Support) and own.shape == shape:
        return own
    if constraint is known.real:
        return Real(shape)
    if constraint is known.boolean:
        return Binary(shape)
    if (bounds := ends(constraint)) is not None:
        low, high = (np.asarray(end, float) for end in bounds)
        if (low == 0).all() and (high == np.inf).all():
            return Positive(shape)
        return Interval(low, high, shape)
    if isinstance(constraint, known.integer_greater_than) and constraint.lower_bound == 0:
        return Natural(shape)
    if isinstance(constraint, known.integer_interval):
        low, high = np.unique(constraint.lower_bound), np.unique(constraint.upper_bound)
        if low.tolist() == [0] and high.size == 1 and high[0] > 0:
            return Categorical(int(high[0]) + 1, shape)
        raise ValueError(
            f"from_numpyro(): {site!r} takes the integers {constraint}; energia has those from 0 "
            "to one number: shift it in the model"
        )
    if constraint is known.simplex:
        return Simplex(shape[-1], batch=shape[:-1])
    if constraint is known.ordered_vector:
        return Ordered(shape[-1], batch=shape[:-1])
    if constraint is known.positive_ordered_vector:
        return Ordered(shape[-1], low=0.0, batch=shape[:-1])
    if constraint is known.corr_cholesky:
        return CholeskyCorrelation(shape[-1], batch=shape[:-2])
    other = None if constraint.is_discrete else _bijected(constraint, shape)
    try:
        library.biject_to(constraint)
    except NotImplementedError:
        other = None
    if other is None:
        raise ValueError(
            f"from_numpyro(): {site!r} has the support {constraint}, which energia cannot map from "
            "the reals; write the site by another distribution (numpyro.handlers.reparam)"
        )
    return other


def _inner(constraint: Any) -> Any:
    """The constraint of the entries, without the axes that are declared dependent."""
    constraints = _constraints()
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


def _constraints() -> Any:
    return numpyro("energia.interop").distributions.constraints
