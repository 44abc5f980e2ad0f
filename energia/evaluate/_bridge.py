"""A path as annealing runs along it: in unconstrained space, with a layer summed out."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, is_concrete, strong_tree
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._free_energy import FreeEnergy, has_closed_form
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path, Tempered, unconstrained
from energia.samplers import Gibbs
from energia.samplers._sampler import GradientBased, Kernel
from energia.supports import Support


class Bridge(eqx.Module):
    r"""The energies $E_s$ from a reference, s = 0, to the target, s = 1, and a kernel for each.

    Where a variable has a closed form given the others, at every level, it is summed out of the
    energies that weights are made of: $E_s(v) = -\log \sum_h e^{-E_s(v, h)}$, which a Boltzmann
    machine has for a layer, a deep one for every other layer. A kernel that moves along gradients
    moves on that too; another one moves v given an h drawn from its conditional, which leaves
    $e^{-E_s(v)}$ invariant.

    Args:
        joint: the energy of all variables and the path's.
        marginals: the same without the first of `latent`, without the first two, and so on.
        first: the energy at s = 0, whose exact draws begin.
        levels: values of the path's variable, evenly spaced in s; between them it is interpolated.
        name: the path's variable.
        linear: whether $E_s$ is linear in the path's variable.
    """

    joint: Unconstrained
    marginals: tuple[FreeEnergy, ...]
    first: Energy
    levels: jax.Array
    name: str = eqx.field(static=True)
    linear: bool = eqx.field(static=True)

    @property
    def latent(self) -> tuple[str, ...]:
        """What is summed out, in this order."""
        return tuple(marginal.name for marginal in self.marginals)

    @property
    def marginal(self) -> Energy:
        """The energy without what is summed out."""
        return self.marginals[-1] if self.marginals else self.joint

    @property
    def variables(self) -> tuple[str, ...]:
        """What is moved."""
        return tuple(name for name in self.marginal.variables if name != self.name)

    def value(self, s: jax.Array) -> jax.Array:
        """The path's variable at s."""
        return jnp.interp(s, jnp.linspace(0, 1, self.levels.size), self.levels)

    def rise(self, position: Values, old: jax.Array, new: jax.Array) -> jax.Array:
        """The energy at one level minus that at another, at one position."""
        old, new = self.value(old), self.value(new)
        if self.linear:  # a small step times a difference, in place of a difference of large sums
            slope = self._at(position, jnp.ones_like(old)) - self._at(position, jnp.zeros_like(old))
            return (new - old) * slope
        return self._at(position, new) - self._at(position, old)

    def _at(self, position: Values, level: jax.Array) -> jax.Array:
        return self.marginal.at({**position, self.name: level})

    def hidden(self, position: Values, s: jax.Array, kernel: Kernel, key: jax.Array) -> Values:
        """A draw of `latent`, where a kernel moves the others given it; else nothing."""
        if not self.latent or kernel.has(GradientBased):
            return {}
        values = {**position, self.name: self.value(s)}
        drawn: Values = {}
        keys = jax.random.split(key, len(self.marginals))
        for key_one, marginal in zip(keys, reversed(self.marginals), strict=True):
            factors = marginal.energy._factorize(marginal.name, {**values, **drawn})
            support = self.joint.supports[marginal.name]
            assert factors is not None
            assert support is not None
            drawn[marginal.name] = factors.draw(key_one, support).astype(support.dtype)
        return drawn

    def moving(self, s: jax.Array, hidden: Values) -> Energy:
        """The energy that a kernel moves on, given what was drawn."""
        energy = self.joint if hidden else self.marginal
        return energy.condition(**{self.name: self.value(s)}, **hidden)

    def start(self, key: jax.Array) -> Values:
        """A draw at s = 0."""
        drawn = self._first().draw(key)
        return {name: drawn[name] for name in self.variables}

    def at_target(self) -> tuple[Energy, Energy]:
        """The energies at s = 1: of what is moved, and of all variables."""
        level = {self.name: self.value(jnp.ones((), self.levels.dtype))}
        return self.marginal.condition(**level), self.joint.condition(**level)

    def complete(self, position: Values, key: jax.Array) -> Values:
        """A position at s = 1 with the variable that was summed out."""
        one = jnp.ones((), self.levels.dtype)
        return {**position, **self.hidden(position, one, Gibbs(), key)}

    def log_partition(self) -> jax.Array:
        """Log Z at s = 0."""
        return self._first().log_partition

    def _first(self) -> Exact:
        exact = self.first._exact({})
        assert exact is not None
        return exact


def bridge(path: Path) -> Bridge:
    """See `Bridge`.

    Raises:
        ValueError: when nobody knows exact draws at the first level.
    """
    path = strong_tree(path)
    path = unconstrained(path)
    joint = path.energy
    assert isinstance(joint, Unconstrained)
    first = path(path.levels[0]) if path.reference is None else path.reference
    if first._exact({}) is None:
        raise ValueError(
            f"nobody knows exact draws of {first._formula()}, where the path begins: give a "
            "reference= that has them (a Gaussian, named distributions), or en.paths.geometric"
        )
    marginals = _marginals(joint, path.name)
    linear = _tempered(joint) is not None and not marginals
    return Bridge(joint, marginals, first, as_float(path.levels), path.name, linear)


def check_known_supports(energy: Energy) -> None:
    """Raise where the values that a variable takes are unknown."""
    for name, support in energy.supports.items():
        if support is None:
            raise ValueError(
                f"the support of {name!r} in {energy._formula()} is unknown: say which values it "
                f"takes, .constrain({name}=en.Real((...,))) or the like"
            )


def target_of(path: Path) -> Energy:
    """The last energy; itself where the path tempers it, since it may know exact draws."""
    tempered, last = _tempered(path.energy), path.levels[-1]
    if tempered is None or not is_concrete(last) or float(last) != 1.0:
        return path.target
    whole = tempered.target if tempered.always is None else tempered.always + tempered.target
    return Unconstrained(whole) if isinstance(path.energy, Unconstrained) else whole


def _tempered(energy: Energy) -> Tempered | None:
    while isinstance(energy, Unconstrained):
        energy = energy.energy
    return energy if isinstance(energy, Tempered) else None


def _marginals(joint: Unconstrained, level: str) -> tuple[FreeEnergy, ...]:
    """Sum out what has a closed form given the others at every level, the largest first.

    The first variable is summed out last; the last one that is left stays.
    """
    names = [name for name in joint.variables if name != level]
    known = {name: joint.supports[name] for name in names}
    shapes = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in known.items() if s}
    shapes[level] = jax.ShapeDtypeStruct((), as_float(0.0).dtype)
    bounding = {other for s in known.values() if s for other in s.depends}
    marginals: list[FreeEnergy] = []
    energy: Energy = joint
    while len(names) > 1:
        candidates = [*names[1:], *(names[:1] if marginals else [])]
        closed = [n for n in candidates if n not in bounding and has_closed_form(energy, n, shapes)]
        if not closed:
            break
        latent = max(closed, key=lambda name: _size(known[name]))
        energy = FreeEnergy(energy, latent)
        marginals.append(energy)
        names.remove(latent)
        del shapes[latent]
    return tuple(marginals)


def _size(support: Support | None) -> int:
    assert support is not None
    return math.prod(support.shape)


def coordinates(path: Path, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Where values of the path's variable lie between its first level, 0, and its last, 1.

    Raises:
        ValueError: when they do not go from the first to the last without turning back.
    """
    known, given = np.asarray(path.levels, np.float64), np.asarray(levels, np.float64)
    what = f"levels= must be values of {path.name!r}, a vector of at least 2"
    if given.ndim != 1 or given.size < 2 or not np.isfinite(given).all():
        raise ValueError(f"{what}, got {levels!r}")
    if known.size < 2 or not (np.all(np.diff(known) > 0) or np.all(np.diff(known) < 0)):
        raise ValueError(
            f"{path!r} must have levels that rise or fall all the way, at least 2, to be annealed "
            "along"
        )
    sign = np.sign(known[-1] - known[0])
    ends = np.isclose(given[[0, -1]], known[[0, -1]], rtol=1e-5, atol=1e-7)
    back = np.flatnonzero(np.diff(sign * given) <= 0)
    if not ends.all() or back.size:
        got = f"{given[0]:.6g} to {given[-1]:.6g}"
        if ends.all():
            at = int(back[0])
            got = f"{given[at]:.6g} and then {given[at + 1]:.6g}, at levels[{at + 1}]"
        raise ValueError(
            f"{what}, from {known[0]:.6g} to {known[-1]:.6g} without turning back; got {got}"
        )
    s = np.interp(sign * given, sign * known, np.linspace(0, 1, known.size))
    s[0], s[-1] = 0.0, 1.0
    return s
