"""Boltzmann machines."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import as_float, check_count, check_key
from energia.energies._checks import one_value
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.supports import Binary, Support


class RBM(Energy):
    r"""The restricted Boltzmann machine, $E(v, h) = -v^\top b - h^\top c - v^\top W h$.

    Visible units v and hidden units h are in {0, 1}. Given one layer the units of the other are
    independent, $P(h_j = 1 \mid v) = \mathrm{sigmoid}(c_j + (v^\top W)_j)$, so that `'gibbs'` draws
    a whole layer at once, and `.marginalize('h')` is the free energy
    $-v^\top b - \sum_j \mathrm{softplus}(c_j + (v^\top W)_j)$ in closed form.

    Args:
        num_visible: visible units, at least 1.
        num_hidden: hidden units, at least 1.
        key: a typed JAX key for the weights, which begin as normals of standard deviation 0.01; the
            biases begin at 0.

    References:
        Smolensky (1986), Information processing in dynamical systems: foundations of harmony
        theory. Hinton (2012), A practical guide to training restricted Boltzmann machines.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> rbm = en.RBM(3, 2, key=jax.random.key(0))
        >>> print(rbm)
        RBM(v, h)  [v: binary (3,), h: binary (2,); 11 parameters]
        >>> free = rbm.marginalize("h")
        >>> free(jnp.ones(3)).shape
        ()
    """

    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array

    def __init__(self, num_visible: int, num_hidden: int, *, key: jax.Array):
        shape = check_count(num_visible, "num_visible", 1), check_count(num_hidden, "num_hidden", 1)
        self.weights = 0.01 * jax.random.normal(check_key(key), shape)
        self.visible_bias = jnp.zeros(shape[0])
        self.hidden_bias = jnp.zeros(shape[1])

    @staticmethod
    def from_parameters(weights: Any, visible_bias: Any, hidden_bias: Any) -> "RBM":
        """A machine with given parameters.

        Args:
            weights: $W$, shape (visible, hidden).
            visible_bias: $b$, shape (visible,).
            hidden_bias: $c$, shape (hidden,).

        Raises:
            ValueError: when the shapes do not fit.

        Example:
            >>> import energia as en, numpy as np
            >>> rbm = en.RBM.from_parameters(np.ones((2, 1)), np.zeros(2), np.zeros(1))
            >>> float(rbm(v=np.ones(2), h=np.ones(1)))
            -2.0
        """
        new = tuple(
            as_float(value, name)
            for name, value in (
                ("weights", weights),
                ("visible_bias", visible_bias),
                ("hidden_bias", hidden_bias),
            )
        )
        shape = new[0].shape
        if len(shape) != 2 or new[1].shape != shape[:1] or new[2].shape != shape[1:]:
            raise ValueError(
                "RBM.from_parameters() needs weights of shape (visible, hidden), and biases of "
                f"shapes (visible,) and (hidden,); got {shape}, {new[1].shape}, {new[2].shape}"
            )
        shell = eqx.filter_eval_shape(lambda key: RBM(*shape, key=key), jax.random.key(0))
        return eqx.tree_at(lambda rbm: (rbm.weights, rbm.visible_bias, rbm.hidden_bias), shell, new)

    def __call__(self, v: ArrayLike, h: ArrayLike) -> jax.Array:
        v = one_value(self, v, self.visible_bias.shape)
        h = one_value(self, h, self.hidden_bias.shape)
        return -v @ self.visible_bias - h @ self.hidden_bias - v @ self.weights @ h

    def _supports(self) -> Mapping[str, Support]:
        return {"v": Binary(self.visible_bias.shape), "h": Binary(self.hidden_bias.shape)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Categorical:
        if name == "h":
            v = as_float(values["v"])
            base, odds = -v @ self.visible_bias, self.hidden_bias + v @ self.weights
        else:
            h = as_float(values["h"])
            base, odds = -h @ self.hidden_bias, self.visible_bias + self.weights @ h
        return Categorical(base, jnp.stack([jnp.zeros_like(odds), odds], axis=-1))
