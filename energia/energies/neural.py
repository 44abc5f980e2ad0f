"""Neural energies."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
from jax.typing import ArrayLike

from energia._types import check_count, check_key
from energia.energies._checks import one_value
from energia.energies._energy import Energy
from energia.energies._spectral import SpectralNorm
from energia.supports import Real, Support


class MLPEnergy(Energy):
    r"""A multilayer perceptron with a scalar output, $E_\theta : \mathbb{R}^n \to \mathbb{R}$.

    Args:
        in_size: n; x has shape (n,).
        width: units in each hidden layer.
        depth: number of hidden layers.
        activation: a smooth function: score matching and Langevin dynamics use its derivatives.
        spectral_norm: whether the weight of each hidden layer is divided by its spectral norm, so
            that the energy's slope is at most the norm of the last layer's weights times the
            activation's steepest slope (1.1 for silu) to the power `depth`.
        key: a typed JAX key for the initial weights.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> energy = en.MLPEnergy(2, width=16, key=jax.random.key(0))
        >>> energy(jnp.zeros(2)).shape
        ()
        >>> print(energy)
        MLPEnergy(x)  [x: real (2,); 337 parameters]
    """

    network: eqx.nn.MLP

    def __init__(
        self,
        in_size: int,
        *,
        width: int = 128,
        depth: int = 2,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.silu,
        spectral_norm: bool = False,
        key: jax.Array,
    ):
        network = eqx.nn.MLP(
            check_count(in_size, "in_size", 1),
            "scalar",
            check_count(width, "width", 1),
            check_count(depth, "depth", 0),
            activation=activation,
            key=check_key(key),
        )
        if spectral_norm:
            *hidden, last = network.layers
            keys = jax.random.split(jax.random.fold_in(key, 1), len(hidden))
            normed = [
                SpectralNorm(layer, layer.weight.shape[1:], subkey)
                for layer, subkey in zip(hidden, keys, strict=True)
            ]
            network = eqx.tree_at(lambda network: network.layers, network, (*normed, last))
        self.network = network

    def __call__(self, x: ArrayLike) -> jax.Array:
        return self.network(one_value(self, x, self._shape))

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Real(self._shape)}

    @property
    def _shape(self) -> tuple[int, ...]:
        return (int(self.network.in_size),)  # pyright: ignore[reportArgumentType]
