"""Paths: an energy, one of its variables, and values for it."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._reference import reference_for
from energia._types import as_float, check_count, is_concrete
from energia.energies._algebra import Constrained, add, scale, with_supports
from energia.energies._checks import check_inside, own_values
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._factors import Factors
from energia.energies._unconstrained import Unconstrained
from energia.supports import Support

__all__ = [
    "Path",
    "geometric",
    "noise_levels",
    "reference_for",
    "tempering",
    "unconstrained",
]


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)


LEVEL = "inverse_temperature"


class Path(eqx.Module):
    r"""A sequence of energies: one energy, one of its variables, and values for it.

    Given to `en.sample` or `en.evaluate.log_partition` in place of an energy. The last level is the
    target; the first one is where it is easy to draw. `path(value)` is the energy at a value of the
    variable: whatever runs along a path vmaps over such values, never over a stack of energies.

    Args:
        energy: an energy of at least two variables.
        **levels: one variable by name, with its values from the easy end to the target, shape (n,),
            n at least 1: noise levels from the largest to the smallest, say.

    Raises:
        TypeError, ValueError: when there is not one variable, it is none of the energy's, or its
            values are no finite vector, or outside of its support.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> @en.energy
        ... def blurred(x, sigma):
        ...     return 0.5 * jnp.sum(x**2) / (1 + sigma**2)
        >>> path = en.Path(blurred, sigma=[3.0, 1.0, 0.1])
        >>> path.variables, path.num_levels, round(float(path.target(x=jnp.ones(2))), 3)
        (('x',), 3, 0.99)
    """

    energy: Energy
    levels: jax.Array
    reference: Energy | None
    name: str = eqx.field(static=True)

    def __init__(self, energy: Energy, **levels: Any):
        if not isinstance(energy, Energy):
            raise TypeError(f"Path() takes an energy, got {energy!r}")
        if len(levels) != 1:
            raise TypeError(
                "Path() takes one variable with its values, Path(E, sigma=[1.0, 0.5]); got "
                f"{list(levels)}"
            )
        ((self.name, values),) = levels.items()
        if self.name not in energy.variables:
            raise ValueError(
                f"Path({self.name}=...): the variables of {energy._formula()} are "
                f"{energy.variables}: name one of them, or give an energy that has {self.name!r}"
            )
        if len(energy.variables) == 1:
            raise ValueError(f"Path({self.name}=...) leaves no variable of {energy._formula()}")
        self.energy, self.reference = energy, None
        self.levels = as_float(values, f"Path({self.name}=...)")
        if self.levels.ndim != 1 or not self.levels.size:
            raise ValueError(
                f"Path({self.name}=...) takes a vector of levels, got shape {self.levels.shape}"
            )
        if not is_concrete(self.levels):
            return
        if not np.isfinite(np.asarray(self.levels)).all():
            raise ValueError(f"Path({self.name}=...) must be finite, got {self.levels}")
        support = energy.supports[self.name]
        if support is not None and not support.functional:
            check_inside(np.asarray(self.levels), support, f"Path({self.name}=...)")

    def __call__(self, level: Any) -> Energy:
        """The energy at one value of the variable."""
        return self.energy.condition(**{self.name: level})

    @property
    def num_levels(self) -> int:
        """How many levels."""
        return self.levels.shape[0]

    @property
    def target(self) -> Energy:
        """The energy at the last level."""
        return self(self.levels[-1])

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the energies on the path."""
        return tuple(name for name in self.energy.variables if name != self.name)

    @property
    def supports(self) -> dict[str, Support | None]:
        """The support of each of them."""
        return {name: self.energy.supports[name] for name in self.variables}

    def exact(self) -> Exact | None:
        """Draws at the first level: of the reference, where there is one."""
        first = self(self.levels[0]) if self.reference is None else self.reference
        return first._exact({})

    def __repr__(self) -> str:
        return f"Path({self.energy._formula()}; {self.num_levels} levels of {self.name})"


class Tempered(Energy):
    r"""$E_\text{always} + \beta E_1 + (1 - \beta) E_0$, a function of $\beta$ too.

    What both ends have in common stands in `always`, and is evaluated once. See `geometric` and
    `tempering`.
    """

    always: Energy | None
    target: Energy
    reference: Energy | None
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs)
        level = as_float(values.pop(LEVEL))
        energy = _weighted(level, self.target.at(own_values(self.target, values)))
        if self.always is not None:
            energy = self.always.at(own_values(self.always, values)) + energy
        if self.reference is None:
            return energy
        return energy + _weighted(1 - level, self.reference.at(own_values(self.reference, values)))

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.names, LEVEL)

    def _supports(self) -> Mapping[str, Support | None]:
        return self._at(as_float(1.0)).supports

    def _support_at(self, name: str, values: Mapping[str, Any]) -> Support | None:
        return self._at(as_float(1.0))._support_at(name, values)

    def _at(self, level: Any) -> Energy:
        """The energy at a level, as a sum."""
        parts = [] if self.always is None else [self.always]
        parts.append(scale(self.target, as_float(level)))
        if self.reference is not None:
            parts.append(scale(self.reference, 1 - as_float(level)))
        return add(*parts) if len(parts) > 1 else parts[0]

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name == LEVEL or LEVEL not in values:
            return super()._factorize(name, values)
        others = {n: value for n, value in values.items() if n != LEVEL}
        return self._at(values[LEVEL])._factorize(name, others)

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if LEVEL not in values:
            return None
        others = {n: value for n, value in values.items() if n != LEVEL}
        return self._at(values[LEVEL])._exact(others)

    @property
    def _ordered(self) -> bool:
        return False

    def _formula(self, shown: Mapping[str, str] | None = None) -> str:
        shown = shown or {}
        beta = shown.get(LEVEL, "β").removeprefix(f"{LEVEL}=")
        text = f"{beta}·{self.target._factor(shown)}"
        if self.always is not None:
            text = f"{self.always._formula(shown)} + {text}"
        if self.reference is not None:
            text = f"{text} + (1 - {beta})·{self.reference._factor(shown)}"
        return text

    def _factor(self, shown: Mapping[str, str] | None = None) -> str:
        return f"({self._formula(shown)})"


def geometric(reference: Energy, target: Energy, levels: Any = 32) -> Path:
    r"""The geometric path from a reference to a target, $E_\beta = (1-\beta) E_0 + \beta E$.

    Args:
        reference: $E_0$, an energy of the target's variables; with exact draws, where a method
            needs them (a Gaussian, a prior of named distributions).
        target: $E$.
        levels: $\beta$ from 0 to 1, increasing, shape (n,); or how many evenly spaced, at least 2.
            Methods that space levels themselves take these for a start.

    Returns:
        A path over the variable `inverse_temperature`, $\beta$.

    Raises:
        ValueError: when the variables differ, supports clash, or the levels are none.

    References:
        Gelman and Meng (1998), Simulating normalizing constants: from importance sampling to bridge
        sampling to path sampling.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> path = en.paths.geometric(en.Gaussian(jnp.zeros(2), scale=3.0), en.Ring(), levels=5)
        >>> path.levels.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    for energy in (reference, target):
        if not isinstance(energy, Energy):
            raise TypeError(f"geometric() takes two energies, got {energy!r}")
    if set(reference.variables) != set(target.variables):
        raise ValueError(
            f"geometric() needs a reference of the target's variables {target.variables}, got "
            f"{reference._formula()} of {reference.variables}"
        )
    if isinstance(reference, Unconstrained) and isinstance(target, Unconstrained):
        return unconstrained(geometric(reference.energy, target.energy, levels))
    supports = (reference + target).supports  # raises where they clash
    complete = with_supports((reference,), supports)
    parts = _shared(reference, target) or (None, target, complete)
    always, rest, other = (
        None if part is None else with_supports((part,), supports) for part in parts
    )
    assert rest is not None
    path = _along(Tempered(always, rest, other, target.variables), _levels(levels))
    return eqx.tree_at(lambda path: path.reference, path, complete, is_leaf=_is_none)


def tempering(target: Energy, temperatures: Any) -> Path:
    r"""The path of tempered energies $E / T$.

    Args:
        target: $E$.
        temperatures: $T$ from the hottest to the target's own, positive, decreasing, shape (n,).

    Returns:
        A path over the variable `inverse_temperature`, $1 / T$.

    Raises:
        ValueError: when the temperatures are not positive and decreasing.

    Example:
        >>> import energia as en
        >>> en.paths.tempering(en.DoubleWell(4.0), [4.0, 2.0, 1.0]).levels.tolist()
        [0.25, 0.5, 1.0]
    """
    temperatures = np.asarray(temperatures, float)
    if temperatures.ndim != 1 or not temperatures.size:
        raise ValueError(f"tempering() takes a vector, got shape {temperatures.shape}")
    if not (np.all(temperatures > 0) and np.all(np.diff(temperatures) < 0)):
        raise ValueError(
            "tempering() takes positive temperatures from the hottest to the target's, got "
            f"{temperatures.tolist()}"
        )
    return _along(Tempered(None, target, None, target.variables), 1 / temperatures)


def noise_levels(num_levels: int = 100, schedule: str = "cosine") -> jax.Array:
    r"""Noise levels of the schedules that diffusion models are known by, for `Path(E, sigma=...)`.

    Such a schedule shrinks data beside its noise, $\tilde x = \sqrt{\bar\alpha}\, x_0 +
    \sqrt{1 - \bar\alpha}\, \xi$ (variance-preserving). In the units of the data that is
    $x = x_0 + \sigma \xi$ with $\sigma = \sqrt{(1 - \bar\alpha) / \bar\alpha}$, and
    $\tilde x = x / \sqrt{1 + \sigma^2}$: the same densities in other coordinates, between which
    `E.substitute(x=lambda x, sigma: x / jnp.sqrt(1 + sigma**2))` maps. Levels at equal ratios
    (variance-exploding) are `jnp.geomspace(largest, smallest, n)`.

    Args:
        num_levels: how many, at least 2.
        schedule: 'cosine': $\bar\alpha_t = f(t) / f(0)$,
            $f(t) = \cos^2(\tfrac{\pi}{2} \tfrac{t + 0.008}{1.008})$, with
            $1 - \bar\alpha_t / \bar\alpha_{t-1}$ at most 0.999; 'linear': these steps rise evenly,
            from $0.1 / n$ to $20 / n$.

    Returns:
        $\sigma$ from the largest to the smallest, shape (num_levels,).

    Raises:
        ValueError: for another schedule.

    References:
        Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models. Ho, Jain and
        Abbeel (2020), Denoising diffusion probabilistic models.

    Example:
        >>> import energia as en
        >>> sigmas = en.paths.noise_levels(100)
        >>> sigmas.shape, round(float(sigmas[50]), 2), round(float(sigmas[-1]), 3)
        ((100,), 1.01, 0.025)
    """
    count = check_count(num_levels, "num_levels", 2)
    if schedule == "cosine":
        angles = (np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2
        steps = np.minimum(1 - np.cos(angles[1:]) ** 2 / np.cos(angles[:-1]) ** 2, 0.999)
    elif schedule == "linear":
        steps = np.minimum(np.linspace(0.1 / count, 20 / count, count), 0.999)
    else:
        raise ValueError(f"schedule= must be 'cosine' or 'linear', got {schedule!r}")
    log_signal = np.cumsum(np.log1p(-steps))  # of the squared share of the data
    return as_float(np.sqrt(np.expm1(-log_signal))[::-1])


def unconstrained(path: Path) -> Path:
    """The path in unconstrained coordinates: mapped once, after the level.

    Example:
        >>> import energia as en
        >>> path = en.paths.tempering(en.Gaussian(0.0).constrain(x=en.Positive()), [2.0, 1.0])
        >>> en.paths.unconstrained(path).supports
        {'x': Real(shape=())}
    """
    reference = None if path.reference is None else Unconstrained(path.reference)
    new = Unconstrained(path.energy, fixed=(path.name,)), reference
    return eqx.tree_at(lambda path: (path.energy, path.reference), path, new, is_leaf=_is_none)


def _shared(reference: Energy, target: Energy) -> tuple[Energy, Energy, None] | None:
    """What both have in common, and the rest: where a reference is terms of the target."""
    inner = reference.energy if isinstance(reference, Constrained) else reference
    own, terms = inner._terms(), target._terms()
    rest = [term for term in terms if not any(term is other for other in own)]
    if not rest or len(rest) + len(own) != len(terms):
        return None
    return reference, add(*rest) if len(rest) > 1 else rest[0], None


def _along(energy: Tempered, levels: Any) -> Path:
    if LEVEL in energy.names:
        raise ValueError(
            f"{energy.target._formula()} has a variable {LEVEL!r}, which is the path's: .rename it"
        )
    return Path(energy, **{LEVEL: levels})


def _levels(levels: Any) -> Any:
    if isinstance(levels, int):
        return np.linspace(0.0, 1.0, check_count(levels, "levels", 2))
    levels = np.asarray(levels, float)
    if levels.ndim != 1 or levels.size < 2 or not np.all(np.diff(levels) > 0):
        raise ValueError(f"levels= must be an increasing vector from 0 to 1, got {levels.tolist()}")
    if levels[0] != 0 or levels[-1] != 1:
        raise ValueError(
            f"levels= must go from 0, the reference, to 1, the target; got {levels[0]} to "
            f"{levels[-1]}"
        )
    return levels


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _weighted(weight: jax.Array, energy: jax.Array) -> jax.Array:
    """0 where the weight is, though the energy be infinite there."""
    none = weight == 0
    return jnp.where(none, 0.0, weight * jnp.where(none, 0.0, energy))
