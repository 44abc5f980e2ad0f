"""Levels of Gaussian noise: the paths that run down them, and noise added."""

from typing import Any

import jax

from energia._types import Values
from energia.energies._unconstrained import Unconstrained
from energia.energies._uniform import normal
from energia.paths import Path
from energia.supports import Real

NOISE = "sigma"


def is_noise_ladder(path: Path) -> bool:
    """Whether a path runs along noise levels of real variables."""
    energy = path.energy.energy if isinstance(path.energy, Unconstrained) else path.energy
    supports = [energy.supports[name] for name in path.variables]
    return path.name == NOISE and all(s is None or isinstance(s, Real) for s in supports)


def noised(values: Values, sigma: Any, key: jax.Array) -> Values:
    """Values with Gaussian noise added, each variable with noise of its own."""
    keys = jax.random.split(key, len(values))
    return {
        name: x + sigma * normal(subkey, x.shape, x.dtype)
        for (name, x), subkey in zip(values.items(), keys, strict=True)
    }
