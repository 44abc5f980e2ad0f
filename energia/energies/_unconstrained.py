"""An energy in unconstrained coordinates: what gradient-based samplers see."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax

from energia._types import Values
from energia.energies._energy import Energy
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
            for name, support in energy.supports.items()
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

    def constrain(self, values: Values) -> tuple[Values, jax.Array | None]:
        """Values in their supports, and the log determinant of the map (None: the identity)."""
        values, total = dict(values), None
        for name, support in self.maps:
            values[name], log_det = support.constrain(values[name])
            total = log_det if total is None else total + log_det
        return values, total

    def unconstrain(self, values: Values) -> Values:
        """The inverse of `constrain`."""
        maps = dict(self.maps)
        return {n: maps[n].unconstrain(v) if n in maps else v for n, v in values.items()}
