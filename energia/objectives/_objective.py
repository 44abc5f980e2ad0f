"""The protocol of objectives."""

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._registry import Registry
from energia._types import Values, as_array, check_count, configuration
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.samplers._noise import NOISE
from energia.samplers._sampler import Sampler
from energia.supports import Real

Shapes = Mapping[str, jax.ShapeDtypeStruct]

registry: "Registry[Objective]" = Registry("objective", "en.objectives")


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


class Objective(eqx.Module):
    r"""A small typed configuration of a way to learn an energy from data.

    After training, $p \propto e^{-E}$ with `fit.energy`, conditional on the variables `given` and
    on those that the objective supplies. Numbers are array leaves, so that another value compiles
    nothing.

    Attributes:
        given: variables that are in the data and conditioned on, not modelled (labels, say).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> class Moments(en.objectives.Objective):  # of an energy without a normaliser: no density
        ...     def init(self, energy, data, key):
        ...         return None, None
        ...     def loss(self, energy, learned, batch, state, key):
        ...         return jnp.mean(jax.vmap(energy.at)(batch)), state, {}
        >>> issubclass(Moments, en.objectives.Objective)
        True
    """

    given: tuple[str, ...] = eqx.field(default=(), converter=_names, static=True, kw_only=True)

    def __repr__(self) -> str:
        return configuration(self)

    def supplies(self, energy: Energy) -> tuple[str, ...]:
        """The variables that the objective makes itself, such as a noise level."""
        return ()

    def modelled(self, energy: Energy, data: Collection[str]) -> tuple[str, ...]:
        """The variables whose density is learned, of a data set that holds these names."""
        return tuple(n for n in energy.variables if n in data and n not in self.given)

    def latent(self, energy: Energy, data: Collection[str]) -> tuple[str, ...]:
        """The variables that neither the data holds nor the objective supplies.

        What is learned is the density of the data with these summed out.
        """
        held = (*data, *self.supplies(energy))
        return tuple(name for name in energy.variables if name not in held)

    def free_energy(self, energy: Energy, data: Collection[str]) -> Energy:
        """The energy with latent variables summed out: all that an objective of the data needs.

        Raises:
            ValueError: when a latent variable cannot be summed out; see `Energy.marginalize`.
        """
        latent = self.latent(energy, data)
        return energy.marginalize(*latent) if latent else energy

    def check(self, energy: Energy, data: Shapes) -> None:
        """Raise where the objective cannot train this energy, before anything compiles.

        `data` has the shape and the dtype of each variable in a row of the data.
        """

    @abc.abstractmethod
    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[Any, Any]:
        """What is learned beside the energy (or None), and the state of training (or None).

        `data` is the whole data, augmented once, with a leading axis over rows, or the first batch
        of a stream. Of what is learned the float arrays are trained, except those in
        `en.constant()` fields.
        """

    @abc.abstractmethod
    def loss(
        self, energy: Energy, learned: Any, batch: Values, state: Any, key: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """The loss to differentiate, the next state, and a dict of scalars for the history."""

    def sampler_for(self, energy: Energy, learned: Any) -> Sampler | None:
        """The sampler that was trained, or that matches the objective: `fit.sampler`."""
        return None


registry.use_base(Objective)


class NotADensity(eqx.Module):
    """Marker: the learned energy is not minus a log density.

    Example:
        >>> import energia as en
        >>> issubclass(en.objectives.PCD, en.objectives.NotADensity)
        False
    """


def support_shapes(energy: Energy, names: Collection[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of variables of known support."""
    known = [(name, support) for name, support in energy.supports.items() if name in names]
    return {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in known if s is not None}


def conditioned(energy: Energy, given: Values) -> Unconstrained:
    """The energy given some values, in unconstrained coordinates."""
    return Unconstrained(energy.condition(**given) if given else energy)


def check_continuous(objective: Objective, energy: Energy, data: Collection[str], why: str) -> None:
    """Raise where a modelled variable is discrete."""
    modelled = objective.modelled(energy, data)
    for name in modelled:
        support = energy.supports[name]
        if support is not None and support.discrete:
            others = [n for n in modelled if n != name and n in data]
            label = f"condition on it with {type(objective).__name__}(given={name!r}), or "
            raise TypeError(
                f"{why}, and {name!r} is discrete ({support}): {label if others else ''}learn it "
                "by 'cd', 'pcd' or 'nce', or by 'mle' where it takes few states"
            )


def check_real(objective: Objective, energy: Energy, data: Shapes, why: str) -> None:
    """Raise where a modelled variable is discrete or bounded."""
    check_continuous(objective, energy, data, why)
    for name in objective.modelled(energy, data):
        support = energy.supports[name]
        if support is not None and not isinstance(support, Real):
            raise TypeError(
                f"{why}, which leaves the support of {name!r} ({support}): learn it as real, "
                f".constrain({name}=en.Real({support.shape}))"
            )


def level_supplied(energy: Energy) -> tuple[str, ...]:
    """The noise level, where an energy takes one."""
    return (NOISE,) if NOISE in energy.variables else ()


def steps(name: str) -> Callable[[Any], jax.Array]:
    """The converter of a number of steps: an array, so that another one compiles nothing."""
    return lambda value: as_array(np.int32(check_count(value, name, 1)))


def mean_over_rows(function: Any, rows: Values, keys: jax.Array) -> jax.Array:
    """The mean of function(row, key) over rows."""
    return jnp.mean(jax.vmap(function)(rows, keys))


def rows_in(batch: Values) -> int:
    """How many rows a batch has."""
    return next(iter(batch.values())).shape[0]


def row_shapes(batch: Values) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of each variable in one row of a batch."""
    return {n: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype) for n, rows in batch.items()}
