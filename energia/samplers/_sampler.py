"""The protocol of samplers."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import numpy as np

from energia._registry import Registry
from energia._types import Values, configuration, is_concrete
from energia.energies._energy import Energy
from energia.paths import Path
from energia.supports import Natural, Support

registry: "Registry[Sampler]" = Registry("sampler", "en.samplers")


Same = TypeVar("Same", bound="Kernel")  # what Self says, which beartype reads in a class only
Starts = Mapping[str, jax.Array | np.ndarray]


class Sampler(eqx.Module):
    """A small typed configuration of a way to draw from an energy.

    Its numbers are array leaves, so that another step size compiles nothing. A class is a `Kernel`
    or a `ParticleSampler`; capabilities are told by the marker classes `GradientBased`, `Biased`,
    `DiscreteSpace`, `AllChains`, `AlongPath`, `VariableLength` and `Minimiser`, and asked for with
    `has`.

    Example:
        >>> import energia as en
        >>> isinstance(en.samplers.SMC(), en.samplers.Sampler), en.samplers.NUTS().bias()
        (True, None)
    """

    def has(self, marker: type) -> bool:
        """Whether it is of the kind that a marker class tells; a combination looks at its parts."""
        return isinstance(self, marker)

    def bias(self) -> str | None:
        """Why the draws do not follow exp(-E) however long the run; None where they do."""
        return None

    def __repr__(self) -> str:
        return configuration(self)


registry.use_base(Sampler)


class Kernel(Sampler):
    """A Markov transition on any energy.

    Pure: the same object drives `en.sample`, the negative phase of contrastive divergence and
    whatever runs chains. An energy here is a function of real or discrete variables only, since
    `en.sample` maps bounded ones to the reals first.

    To write one, define `init` and `step`; to have it tuned, `tune_init` and `tune` too.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> kernel = en.samplers.MALA(step_size=0.5)
        >>> energy, position = en.Gaussian(jnp.zeros(2)), {"x": jnp.ones(2)}
        >>> state = kernel.init(energy, position, jax.random.key(0))
        >>> state, info = kernel.step(energy, state, jax.random.key(1))
        >>> state.position["x"].shape, sorted(info)
        ((2,), ['acceptance_rate', 'lp', 'step_size'])
    """

    tunable: ClassVar[tuple[str, ...]] = ()
    """Fields that may be None, and are filled by tuning."""

    @abc.abstractmethod
    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        """The state of a chain at a position: any pytree with an attribute `position`."""

    @abc.abstractmethod
    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        """One transition: the new state, and a flat dict of what was seen.

        The dict has ArviZ's names (`acceptance_rate`, `diverging`, `lp`, ...); keys that begin with
        an underscore are for tuning only and never stored. `lp` is minus the energy at the new
        position, given where it costs nothing.
        """

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        """The state of a chain that something else has moved, or whose energy has changed.

        By default begun anew; a kernel may keep what is no function of them: a momentum, a count.
        """
        return self.init(energy, position, key)

    def keeps(self) -> bool:
        """Whether it has more to keep of a chain than where it is; a combination asks its parts."""
        return type(self).renew is not Kernel.renew

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        """Raise a TypeError where it cannot move one of these variables of an energy.

        By default one marked `DiscreteSpace` moves any, and others move those that are real.
        """
        for name in names:
            support = energy.supports[name]
            if support is None or not support.discrete or self.has(DiscreteSpace):
                continue
            moves = "along gradients" if self.has(GradientBased) else "real variables"
            raise TypeError(
                f"{type(self).__name__} moves {moves}, and {name!r} is discrete ({support}): "
                f"{ways_out(energy, name, 'gibbs')}"
            )

    def tune_init(
        self: Same, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple[Same, Any]:
        """Before warm-up: the kernel with every unset number filled, and the state of tuning.

        What is filled are arrays. `positions` has a leading axis over the chains that are tuned
        together.
        """
        return self, None

    def tune(
        self: Same, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Any]:
        """After warm-up step number `step`: the kernel to go on with, and the state of tuning.

        States and info have a leading axis over the chains that are tuned together.
        """
        return self, tuning

    def unset(self) -> tuple[str, ...]:
        """The numbers that tuning would have to fill."""
        return tuple(name for name in self.tunable if getattr(self, name) is None)

    def check_set(self) -> None:
        """Raise where a number is missing: called by `init`, so before anything compiles."""
        if missing := self.unset():
            name, fields = type(self).__name__, ", ".join(f"{field}=..." for field in missing)
            raise ValueError(
                f"{name} is not tuned: give {name}({fields}), or draw with en.sample and "
                "num_warmup > 0, which tunes it"
            )

    def replace(self: Same, **changes: Any) -> Same:
        """A copy with other numbers."""
        return dataclasses.replace(self, **changes)


class ParticleSampler(Sampler):
    """Turns starting points into draws in one run.

    `en.sample` makes one run a chain, with a draw for each particle.

    Example:
        >>> import energia as en
        >>> isinstance(en.samplers.SMC(), en.samplers.ParticleSampler)
        True
    """

    @abc.abstractmethod
    def draw(
        self, target: Energy | Path, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        """One run: draws of a target from starting points, and what was seen.

        Positions have a leading axis over particles, before and after. The dict has numbers of the
        run, or of each particle. Pure: it compiles, with the target as an argument.
        """

    def supports(self) -> Mapping[str, Support]:
        """The supports of what it draws, as far as it knows them where an energy does not."""
        return {}

    def along(self, target: Energy | Path, positions: Starts) -> Energy | Path:
        """Before anything compiles: what to run on, if not on the target itself, a path say.

        Raises where it cannot.
        """
        return target


class GradientBased(eqx.Module):
    """Marker: needs the gradient of the energy, so continuous variables only.

    Example:
        >>> import energia as en
        >>> en.samplers.MALA().has(en.samplers.GradientBased)
        True
    """


class Biased(eqx.Module):
    """Marker: does not leave exp(-E) invariant, by design.

    Example:
        >>> import energia as en
        >>> en.samplers.Langevin(step_size=0.1).has(en.samplers.Biased)
        True
    """


class DiscreteSpace(eqx.Module):
    """Marker: moves discrete variables.

    Example:
        >>> import energia as en
        >>> en.samplers.GibbsWithGradients().has(en.samplers.DiscreteSpace)
        True
    """


class AllChains(eqx.Module):
    """Marker: tuned on all chains together, which therefore run side by side.

    Example:
        >>> import energia as en
        >>> en.samplers.ChEESHMC().has(en.samplers.AllChains)
        True
    """


class AlongPath(eqx.Module):
    """Marker: moves along a path, and takes an `en.Path` in place of an energy.

    Example:
        >>> import energia as en
        >>> en.samplers.ParallelTempering("hmc").has(en.samplers.AlongPath)
        True
    """


class Minimiser(eqx.Module):
    """Marker: what it draws are low points of the energy, and follow no law.

    Example:
        >>> import energia as en
        >>> en.samplers.SimulatedAnnealing().has(en.samplers.Minimiser)
        True
    """


class VariableLength(eqx.Module):
    """Marker: a step's length varies, so that chains run side by side wait for the longest.

    Example:
        >>> import energia as en
        >>> en.samplers.HMC().has(en.samplers.VariableLength)
        False
    """


def ways_out(energy: Energy, name: str, sampler: str) -> str:
    """What to do about a variable that a kernel cannot move, and another kernel can."""
    support = energy.supports[name]
    if isinstance(support, Natural):
        return (
            "it has no largest value to sample up to: give it one with "
            f".constrain({name}=en.Categorical(...)), or fix it with .condition({name}=...)"
        )
    others = [other for other in energy.variables if other != name]
    block = f"draw it by {sampler!r}"
    if others:
        block += (
            f", beside the others by 'block_gibbs' (BlockGibbs({{{name!r}: {sampler!r}, ...}}) "
            "chooses for each)"
        )
    if support is None or not support.discrete:
        return block
    total = f", sum it out with .marginalize({name!r})" if others else ""
    return f"{block}{total}, or fix it with .condition({name}=...)"


def positive(sampler: Sampler, *names: str) -> None:
    """Raise where a concrete number of a sampler is not positive and finite."""
    for name in names:
        value = getattr(sampler, name)
        if value is None or not is_concrete(value):
            continue
        if not np.all((np.asarray(value) > 0) & np.isfinite(np.asarray(value))):
            raise ValueError(
                f"{type(sampler).__name__}({name}=...) must be positive and finite, got {value}"
            )


def positive_definite(sampler: Sampler, name: str) -> None:
    """Raise where a concrete matrix of a sampler is not symmetric positive definite.

    An asymmetric one would draw momenta of another law than it accepts them by, in silence.
    """
    value = getattr(sampler, name)
    if not is_concrete(value):
        return
    matrix, what = np.asarray(value, np.float64), f"{type(sampler).__name__}({name}=...)"
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{what} must be a square matrix, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{what} must be finite")
    if not np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6 * np.abs(matrix).max()):
        raise ValueError(f"{what} must be symmetric")
    if (smallest := np.linalg.eigvalsh(matrix).min()) <= 0:
        raise ValueError(
            f"{what} must be positive definite, its smallest eigenvalue is {smallest:.3g}"
        )


def check_entries(sampler: Sampler, name: str, position: Values) -> None:
    """Raise where a number of a sampler has not one value for each entry of a position."""
    value, size = getattr(sampler, name), sum(leaf.size for leaf in position.values())
    if value is not None and value.shape != (size,):
        raise ValueError(
            f"{type(sampler).__name__}({name}=...) must have shape ({size},), for the {size} "
            f"entries of {sorted(position)} in unconstrained space; got {value.shape}"
        )
