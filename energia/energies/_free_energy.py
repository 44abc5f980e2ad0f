"""A variable summed out in closed form, and what is independent of it given the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend import core

from energia.energies._energy import Energy
from energia.energies._factors import Factors
from energia.supports import Support


class FreeEnergy(Energy):
    r"""$F(v) = -\log \sum_h e^{-E(v, h)}$, where the entries of $h$ are independent given $v$.

    Where the entries of a further variable are independent in $E$, by parameters that do not hold
    $h$, they are independent in $F$, by the same parameters: as the layers below and above one of a
    deep Boltzmann machine are.
    """

    energy: Energy
    name: str = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        factors: Factors | None = self.energy._factorize(self.name, self._bind(args, kwargs))
        assert factors is not None
        return factors.free_energy()

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name in self.energy.variables if name != self.name)

    def _supports(self) -> Mapping[str, Support | None]:
        return self.energy.supports

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        supports = self.energy.supports
        summed, support = supports[self.name], supports[name]
        if summed is None or support is None:
            return None

        def factors(state: jax.Array) -> Factors | None:
            return self.energy._factorize(name, {**values, self.name: state})

        jaxpr, shapes = jax.make_jaxpr(factors, return_shape=True)(
            jax.ShapeDtypeStruct(summed.shape, summed.dtype)
        )
        if shapes is None or _reach(jaxpr.jaxpr, jaxpr.jaxpr.outvars[1:]):  # the base is the first
            return None
        found = factors(jnp.zeros(summed.shape, summed.dtype))
        assert found is not None
        return found.through(lambda value: self.at({**values, name: value}), support)


def has_closed_form(energy: Energy, name: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> bool:
    """Whether an energy has independent entries of a variable, given the others."""
    others = {n: shape for n, shape in shapes.items() if n != name}
    return eqx.filter_eval_shape(lambda given: energy._factorize(name, given), others) is not None


def _reach(jaxpr: core.Jaxpr, results: Sequence[Any]) -> bool:
    """Whether some result depends on an argument."""
    reached = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(not isinstance(var, core.Literal) and var in reached for var in eqn.invars):
            reached.update(eqn.outvars)
    return any(not isinstance(var, core.Literal) and var in reached for var in results)
