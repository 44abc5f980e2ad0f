"""A support of energia as a constraint of NumPyro; imports NumPyro."""

from typing import Any

import jax.numpy as jnp
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform

from energia.supports import Continuous


class SupportConstraint(Constraint):
    """The values of a support, one value an event."""

    def __init__(self, support: Continuous):
        self.support = support
        self.event_dim = len(support.shape)

    def __call__(self, x: Any) -> Any:
        inside = self.support.contains(jnp.asarray(x))
        return jnp.all(inside, axis=tuple(range(-self.event_dim, 0)))

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, SupportConstraint) and other.support == self.support

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support, "event_dim": self.event_dim})

    def __repr__(self) -> str:
        return f"SupportConstraint({self.support!r})"


class SupportTransform(Transform):
    """The map of a support from the reals."""

    def __init__(self, support: Continuous):
        self.support = support

    @property
    def domain(self) -> Any:
        return constraints.independent(constraints.real, len(self.support.unconstrained_shape))

    @property
    def codomain(self) -> Any:
        return SupportConstraint(self.support)

    def __call__(self, x: Any) -> Any:
        return self.support.constrain(x)[0]

    def _inverse(self, y: Any) -> Any:
        return self.support.unconstrain(y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        return self.support.constrain(x)[1]

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.support.shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.support.unconstrained_shape

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, SupportTransform) and other.support == self.support

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support})


@biject_to.register(SupportConstraint)
def _(constraint: SupportConstraint) -> SupportTransform:
    return SupportTransform(constraint.support)
