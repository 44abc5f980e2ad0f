"""The verb `minimize`."""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np

from energia._types import Values, put, strong_tree
from energia.diagnostics import ConvergenceWarning
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.samplers._sampler import Minimiser, Sampler, registry
from energia.sampling._draws import Draws
from energia.sampling._sample import sample

LOWER = 1e-3  # of the energy, or of one nat: what counts as lower


@dataclasses.dataclass(frozen=True)
class Minimum:
    """The lowest point that was found.

    Attributes:
        position: the values of the variables there.
        energy: the energy there.
        draws: where all particles came to rest; `draws.stats['lp']` is minus their energy.

    Example:
        >>> import energia as en, jax
        >>> lowest = en.minimize(en.Ising((2, 2), coupling=1.0, field=0.1), key=jax.random.key(0))
        >>> lowest.position["x"].tolist(), round(lowest.energy, 4), lowest.draws["x"].shape
        ([[1.0, 1.0], [1.0, 1.0]], -8.4, (1, 64, 2, 2))
    """

    position: dict[str, jax.Array]
    energy: float
    draws: Draws


def minimize(
    energy: Energy,
    sampler: str | Sampler = "simulated_annealing",
    *,
    key: jax.Array,
    num_particles: int = 64,
    init: Any = None,
) -> Minimum:
    r"""Look for $\arg\min E$, by simulated annealing.

    A global search, of continuous and discrete variables alike, with no proof that the point is the
    lowest: compare what several particles found.

    Args:
        energy: the energy; fix data with `condition`.
        sampler: a sampler that minimises, or its name: `en.samplers.SimulatedAnnealing(...)` has
            the temperatures, which should begin above the barriers between low points and end far
            below the differences that matter.
        key: a typed JAX key.
        num_particles: how many searches run side by side, at least 1.
        init: starts, as `sample` takes them; shape (num_particles, \*shape), or (\*shape) for all.

    Returns:
        A `Minimum`: `.position` by variable name, `.energy`, and all `.draws`. A
        `ConvergenceWarning` tells of an energy that is lower still at twice the coordinates (of
        continuous variables, unconstrained): it may have no minimum.

    Raises:
        TypeError: for an energy, a sampler or a key of the wrong kind.
        ValueError: where no finite start is found.

    References:
        Kirkpatrick, Gelatt and Vecchi (1983), Optimization by simulated annealing.

    Example:
        >>> import energia as en, jax
        >>> lowest = en.minimize(en.Rosenbrock(), key=jax.random.key(0))
        >>> lowest.energy < 0.01, bool(abs(lowest.position["x"] - 1).max() < 0.2)
        (True, True)
    """
    if not isinstance(energy, Energy):
        advice = f", {energy!r} has one: path.target" if isinstance(energy, Path) else ""
        raise TypeError(f"minimize() takes an energy, got {type(energy).__name__}{advice}")
    config = registry.resolve(sampler)
    if not config.has(Minimiser):
        raise TypeError(
            f"minimize() takes a sampler that minimises, such as 'simulated_annealing'; got "
            f"{config!r}, whose draws follow a law: that is en.sample's"
        )
    draws = sample(energy, config, key=key, num_chains=1, num_samples=num_particles, init=init)
    lp = np.asarray(draws.stats["lp"][0])
    best = int(np.argmax(np.where(np.isnan(lp), -np.inf, lp)))
    position = {name: put(np.asarray(value[0, best])) for name, value in draws.positions.items()}
    lowest = Minimum(position, -float(lp[best]), draws)
    beyond = float(_beyond(strong_tree(energy), position))
    if beyond < lowest.energy - LOWER * max(1.0, abs(lowest.energy)) or lowest.energy == -np.inf:
        problem = (
            f"the lowest energy found is {lowest.energy:.6g}, and at twice the coordinates it is "
            f"{beyond:.6g}: it may fall without bound; bound the variables by .constrain, or add "
            "an energy that holds them"
        )
        warnings.warn(ConvergenceWarning(problem), stacklevel=2)
    return lowest


@eqx.filter_jit
def _beyond(energy: Energy, position: Values) -> jax.Array:
    """The energy at twice the unconstrained coordinates of what is continuous."""
    free = Unconstrained(energy)
    supports = energy.supports
    values = free.unconstrain(position)
    for name, value in values.items():
        support = supports[name]
        if support is None or not support.discrete:
            values[name] = 2 * value
    return energy(**free.constrain(values)[0])
