"""An energy in unconstrained coordinates: what gradient-based samplers see."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax

from energia._types import Values
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Factors
from energia.supports import Continuous, Real, Support


class Unconstrained(Energy):
    r"""$E(T(z)) - \log|\det J_T(z)|$, with $T$ the maps of the variables' supports.

    Its draws, mapped by `constrain`, follow the energy's density. Wrapped once and outermost, after
    all algebra and after a temperature, since neither commutes with the Jacobian.
    """

    energy: Energy
    maps: tuple[tuple[str, Continuous], ...] = eqx.field(static=True)

    def __init__(self, energy: Energy):
        self.energy = energy
        self.maps = tuple(
            (name, support)
            for name, support in by_dependency(energy.supports, energy._formula())
            if isinstance(support, Continuous) and not isinstance(support, Real)
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values, log_det = self.constrain(self._bind(args, kwargs))
        energy = self.energy(**values)
        return energy if log_det is None else energy - log_det

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support | None]:
        mapped = {name: Real(support.unconstrained_shape) for name, support in self.maps}
        return {**self.energy.supports, **mapped}

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        return self.energy._formula(shown)

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        supports = self.energy.supports.values()
        bounding = any(support is not None and name in support.depends for support in supports)
        if bounding or name in dict(self.maps):
            return super()._factorize(name, values)
        values, log_det = self.constrain(values)
        factors = self.energy._factorize(name, values)
        if factors is None or log_det is None:
            return factors
        return eqx.tree_at(lambda factors: factors.base, factors, factors.base - log_det)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if values:
            return super()._exact(values)
        whole = self.energy._exact({})
        if whole is None:
            return super()._exact({})

        def draw(key: jax.Array) -> Values:
            return self.unconstrain(whole.draw(key))

        return Exact(draw, whole.log_partition, whole.constant)

    def constrain(self, values: Mapping[str, Any]) -> tuple[Values, jax.Array | None]:
        """Values in their supports, and the log determinant of the map (None: the identity)."""
        values, total = dict(values), None
        for name, _ in self.maps:
            values[name], log_det = self._map(name, values).constrain(values[name])
            total = log_det if total is None else total + log_det
        return values, total

    def unconstrain(self, values: Values) -> Values:
        """The inverse of `constrain`; where bounds depend on a variable, its value is needed."""
        mapped = {name for name, _ in self.maps}
        return {
            name: self._map(name, values).unconstrain(value) if name in mapped else value
            for name, value in values.items()
        }

    def _map(self, name: str, values: Mapping[str, Any]) -> Continuous:
        support = dict(self.maps)[name]
        if support.functional:
            support = self.energy._support_at(name, values)
        assert isinstance(support, Continuous)
        return support


def by_dependency(
    supports: Mapping[str, Support | None], where: str
) -> list[tuple[str, Support | None]]:
    """Variables and supports, each after those that its bounds are functions of.

    Raises:
        ValueError: when bounds depend on each other, or on what is no variable.
    """
    order: dict[str, Support | None] = {}
    waiting = dict(supports)
    while waiting:
        ready = [n for n, s in waiting.items() if s is None or set(s.depends) <= set(order)]
        if not ready:
            name, support = next(iter(waiting.items()))
            assert support is not None
            foreign = [other for other in support.depends if other not in supports]
            raise ValueError(
                f"the support of {name!r} depends on {foreign}, no variable of {where}"
                if foreign
                else f"the supports of {list(waiting)} in {where} depend on one another in a cycle"
            )
        order |= {name: waiting.pop(name) for name in ready}
    return list(order.items())
