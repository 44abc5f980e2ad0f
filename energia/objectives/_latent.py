"""Latent variables: what the data lacks, summed out or drawn given the data."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from energia._types import Values
from energia.energies._elimination import has_closed_form
from energia.energies._energy import Energy
from energia.objectives._objective import Shapes, support_shapes


class Posterior(NamedTuple):
    r"""The closed form of latent variables given all others.

    By the chain rule: where $h_1, \dots, h_n$ are summed out one after another, each by a closed
    form, $h_i$ given the others and $h_{i+1}, \dots, h_n$ has independent entries.

    Attributes:
        names: the latent variables, in the order in which they are summed out.
        energies: the energy with none of them summed out, with the first, with the first two, ...
    """

    names: tuple[str, ...]
    energies: tuple[Energy, ...]

    @property
    def free_energy(self) -> Energy:
        """The energy of the others, with all summed out."""
        return self.energies[-1]

    def draw(self, key: jax.Array, values: Mapping[str, Any]) -> Values:
        """A draw of all of them, given the values of the others."""
        drawn: Values = {}
        for index in reversed(range(len(self.names))):
            name, energy = self.names[index], self.energies[index]
            factors, support = energy._factorize(name, {**values, **drawn}), energy.supports[name]
            assert factors is not None
            assert support is not None
            new = factors.draw(jax.random.fold_in(key, index), support)
            drawn[name] = new.astype(support.dtype)
        return drawn


def posterior(energy: Energy, names: Sequence[str], data: Shapes) -> Posterior | None:
    """The closed form of latent variables given the data, or None where there is none."""
    supports, latent = energy.supports, support_shapes(energy, names)
    # as `marginalize` has it: the largest first, since small ones may be enumerated in the end
    order = sorted(names, key=lambda name: -latent[name].size)
    energies = [energy]
    for index, name in enumerate(order):
        others = {n: latent[n] for n in order[index + 1 :]}
        if supports[name] is None or not has_closed_form(energies[-1], name, {**data, **others}):
            return None
        if len(energies[-1].variables) == 1:
            return None
        energies.append(energies[-1].marginalize(name))
    return Posterior(tuple(order), tuple(energies))
