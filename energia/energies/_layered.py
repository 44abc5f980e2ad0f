"""Boltzmann machines of layers, each joined to the next: what a machine of any depth shares."""

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from energia.energies._checks import broadcastable, check_known
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.energies._units import back, conditional, shape_of, statistics, through
from energia.supports import Discrete, Support

Machine = TypeVar("Machine", bound="Layered")


class Layer(NamedTuple):
    """A layer: the support of its units, the bias of their statistics, and its offset."""

    support: Discrete
    bias: jax.Array
    offset: jax.Array


class Layered(Energy):
    r"""$E = -\sum_l a_l^\top b_l - \sum_l a_l^\top W_l a_{l+1}$, where $a_l = \phi(x_l) - o_l$.

    $\phi$ are a layer's statistics: the values of binary units and spins, an indicator for each
    state of categorical ones. The offsets $o$ change no density, only the coordinates in which the
    biases are trained.
    """

    @property
    @abc.abstractmethod
    def _layers(self) -> Sequence[Layer]:
        """The layers, in the order of the variables."""

    @property
    @abc.abstractmethod
    def _weights(self) -> Sequence[jax.Array]:
        """The weights between each layer and the next."""

    @abc.abstractmethod
    def _about(self: Machine, biases: Sequence[jax.Array], offsets: Sequence[jax.Array]) -> Machine:
        """The machine with other biases and offsets."""

    def with_offsets(self: Machine, **offsets: Any) -> Machine:
        r"""The same density in centred coordinates: about other offsets.

        With offsets near the means of the units, gradients of weights and biases are those of the
        centred machine, which disturb each other less than about 0, and learning does not depend on
        which state is called 1. Biases change such that the density does not, and the energy by a
        constant. `with_offsets(v=0, h=0)` is the form in which other libraries hold a machine.

        Args:
            **offsets: by variable a number, or an array that broadcasts to the layer's biases;
                layers without one keep theirs.

        Raises:
            ValueError: when a name is no layer, or a shape does not fit.

        References:
            Montavon and Müller (2012), Deep Boltzmann machines and the centering trick. Melchior,
            Fischer and Wiskott (2016), How to center deep Boltzmann machines.

        Example:
            >>> import energia as en, numpy as np
            >>> rbm = en.RBM.from_parameters(np.ones((2, 1)), np.zeros(2), np.zeros(1))
            >>> rbm.with_offsets(h=0.5).visible_bias.tolist()
            [0.5, 0.5]
        """
        layers, weights = self._layers, self._weights
        old = {n: layer.offset for n, layer in zip(self.variables, layers, strict=True)}
        new = moved_offsets(self, old, offsets)
        shifts = [new[name] - old[name] for name in old]
        biases = [layer.bias for layer in layers]
        for index, matrix in enumerate(weights):
            biases[index] = biases[index] + back(matrix, shifts[index + 1])
            biases[index + 1] = biases[index + 1] + through(shifts[index], matrix)
        return self._about(biases, list(new.values()))

    def _energy_of(self, values: Mapping[str, Any]) -> jax.Array:
        centred = self._centred(values)
        total = -sum(
            jnp.sum(centred[index] * layer.bias) for index, layer in enumerate(self._layers)
        )
        for index, matrix in enumerate(self._weights):
            total = total - jnp.sum(through(centred[index], matrix) * centred[index + 1])
        return jnp.asarray(total)

    def _supports(self) -> Mapping[str, Support]:
        return dict(zip(self.variables, (layer.support for layer in self._layers), strict=True))

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Categorical:
        layers, weights = self._layers, self._weights
        here = self.variables.index(name)
        centred = self._centred({n: value for n, value in values.items() if n != name})
        support, field, offset = layers[here]
        base = jnp.zeros((), field.dtype)
        for index, layer in enumerate(layers):
            if index != here:
                base = base - jnp.sum(centred[index] * layer.bias)
        for index, matrix in enumerate(weights):
            if index == here:
                field = field + back(matrix, centred[index + 1])
            elif index == here - 1:
                field = field + through(centred[index], matrix)
            else:
                base = base - jnp.sum(through(centred[index], matrix) * centred[index + 1])
        return conditional(support, base + jnp.sum(offset * field), field)

    def _multilinear(self, names: Collection[str]) -> bool:
        return True

    def _centred(self, values: Mapping[str, Any]) -> dict[int, jax.Array]:
        """By number of the layer its statistics about its offset, of the layers that are given."""
        return {
            index: statistics(self, layer.support, values[name]) - layer.offset
            for index, (name, layer) in enumerate(zip(self.variables, self._layers, strict=True))
            if name in values
        }


def moved_offsets(
    energy: Energy, old: Mapping[str, jax.Array], new: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The offsets of layers by variable, where some are replaced."""
    check_known(energy, new, "with_offsets")

    def spread(name: str, offset: jax.Array) -> jax.Array:
        value = broadcastable(new[name], f"the offset of {name!r}", offset.shape)
        return jnp.broadcast_to(value, offset.shape)

    return {n: spread(n, offset) if n in new else offset for n, offset in old.items()}


def unoffset(supports: Sequence[Discrete]) -> list[jax.Array]:
    """Offsets of 0."""
    return [jnp.zeros(shape_of(support)) for support in supports]
