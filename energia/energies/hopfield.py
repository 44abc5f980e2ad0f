"""The Hopfield network."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import as_float
from energia.energies._checks import one_value
from energia.energies._energy import Energy
from energia.supports import Spin, Support


class Hopfield(Energy):
    r"""The Hopfield network, $E(x) = -\frac1{2n} \sum_\mu (\xi_\mu^\top x)^2$ of n spins.

    An Ising model on all pairs with the couplings $J_{ij} = \frac1n \sum_\mu \xi_{\mu i}
    \xi_{\mu j}$ of Hebb's rule, up to the constant $\sum_\mu |\xi_\mu|^2 / 2n$. Patterns are near
    minima while they are few, below 0.138 n of them at random: at a low temperature, `E / T`,
    `'gibbs'` recalls a pattern from a part of it, and `.condition` or `.substitute` clamps that
    part.

    Args:
        patterns: $\xi$, shape (patterns, n): usually $\pm 1$. They are trained by `en.fit`, unless
            `.freeze()` is called.

    Raises:
        ValueError: when the patterns are no matrix with at least one row and column.

    References:
        Hopfield (1982), Neural networks and physical systems with emergent collective computational
        abilities. Amit, Gutfreund and Sompolinsky (1985), Spin-glass models of neural networks.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> memory = en.Hopfield(jnp.array([[1, 1, -1, -1], [1, -1, 1, -1]]))
        >>> float(memory(jnp.array([1, 1, -1, -1]))), float(memory(jnp.array([1, 1, 1, 1])))
        (-2.0, -0.0)
    """

    patterns: jax.Array

    def __init__(self, patterns: Any):
        self.patterns = as_float(patterns, "patterns")
        if self.patterns.ndim != 2 or 0 in self.patterns.shape:
            raise ValueError(
                f"patterns must have shape (patterns, n), got {self.patterns.shape}: an image is "
                "flattened"
            )

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, self.patterns.shape[1:])
        return -0.5 / x.size * jnp.sum((self.patterns @ x) ** 2)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Spin(self.patterns.shape[1:])}
