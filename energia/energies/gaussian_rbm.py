"""The restricted Boltzmann machine of real visible units."""

from collections.abc import Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from energia._types import as_float, check_count, check_key
from energia.energies._checks import check_all, one_value
from energia.energies._energy import Energy
from energia.energies._factors import Factors, Normal
from energia.energies._layered import moved_offsets
from energia.energies._trainable import constant
from energia.energies._units import (
    back,
    checked_rows,
    conditional,
    even,
    layer,
    shape_of,
    small_weights,
    statistics,
    through,
)
from energia.supports import Discrete, Real, Support


class GaussianRBM(Energy):
    r"""The restricted Boltzmann machine of real visible units, with variances that are learned.

    $E(v, h) = \sum_i \frac{(v_i - b_i)^2}{2 \sigma_i^2}
    - \sum_{ij} \frac{v_i}{\sigma_i^2} W_{ij} h_j - c^\top h$.

    Given h the visible units are independent normals of means $b + W h$ and variances
    $\sigma^2 = e^{\texttt{log\_variance}}$; given v the hidden ones are independent, with
    $P(h_j = 1 \mid v) = \mathrm{sigmoid}(c_j + \sum_i W_{ij} v_i / \sigma_i^2)$: a mixture of
    normals, one for each state of h.

    With `data` the machine begins with the means and variances of the data, and in centred
    coordinates: $v - \mu$ and $h - \lambda$ stand in the place of v and h where they meet the
    weights, about the means of the data and of a machine without weights.

    Args:
        num_visible: visible units, at least 1.
        num_hidden: a number of binary units, at least 1, or the support of the hidden units, as in
            `en.RBM`.
        data: rows of v, shape (rows, visible), each column of which varies; None: means 0 and
            variances 1.
        key: a typed JAX key for the weights, which begin as normals of standard deviation 0.01
            (times that of the unit, with `data`).

    References:
        Cho, Ilin and Raiko (2011), Improved learning of Gaussian-Bernoulli restricted Boltzmann
        machines.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> rbm = en.GaussianRBM(3, 2, key=jax.random.key(0))
        >>> print(rbm)
        GaussianRBM(v, h)  [v: real (3,), h: binary (2,); 14 parameters]
        >>> draws = en.sample(rbm, "gibbs", key=jax.random.key(1), num_samples=100)
        >>> draws["v"].shape
        (4, 100, 3)
    """

    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    log_variance: jax.Array
    hidden: Discrete = eqx.field(static=True)
    visible_offset: jax.Array = constant()
    hidden_offset: jax.Array = constant()

    def __init__(
        self, num_visible: int, num_hidden: int | Discrete, *, data: Any = None, key: jax.Array
    ):
        shape = (check_count(num_visible, "num_visible", 1),)
        self.hidden = layer(num_hidden, "num_hidden")
        above = shape_of(self.hidden)
        self.weights = small_weights(check_key(key), shape, above)
        self.hidden_bias, self.hidden_offset = jnp.zeros(above), jnp.zeros(above)
        self.visible_bias, self.log_variance = jnp.zeros(shape), jnp.zeros(shape)
        self.visible_offset = jnp.zeros(shape)
        if data is not None:
            rows = checked_rows(Real(shape), data, "data=").astype(np.float64)
            variance = rows.var(axis=0)
            check_all(variance > 0, variance, "the variance of data=", "that a unit cannot have")
            scale = np.sqrt(variance).reshape(-1, *[1] * len(above))
            self.weights = self.weights * as_float(scale)
            self.log_variance = as_float(np.log(variance))
            self.visible_bias = self.visible_offset = as_float(rows.mean(axis=0))
            self.hidden_offset = even(self.hidden)

    @staticmethod
    def from_parameters(
        weights: Any,
        visible_bias: Any,
        hidden_bias: Any,
        log_variance: Any = 0.0,
        *,
        hidden: Discrete | None = None,
    ) -> "GaussianRBM":
        r"""A machine with given parameters.

        Args:
            weights: $W$, shape (visible, hidden); categorical hidden units have an axis over their
                K states behind their own, here and in their bias: (visible, hidden, K).
            visible_bias: $b$, shape (visible,).
            hidden_bias: $c$, shape (hidden,).
            log_variance: $\log \sigma^2$, a number or of shape (visible,).
            hidden: the support of the hidden units; None: binary.

        Raises:
            ValueError: when the shapes do not fit.

        Example:
            >>> import energia as en, numpy as np
            >>> rbm = en.GaussianRBM.from_parameters(np.ones((2, 1)), np.zeros(2), np.zeros(1))
            >>> float(rbm(v=np.ones(2), h=np.ones(1)))
            -1.0
        """
        matrix = as_float(weights, "weights")
        below, above = as_float(visible_bias, "visible_bias"), as_float(hidden_bias, "hidden_bias")
        spread = as_float(log_variance, "log_variance")
        kind = hidden or (layer(above.size, "the size of hidden_bias") if above.ndim == 1 else None)
        if (
            below.ndim != 1
            or kind is None
            or above.shape != shape_of(kind)
            or matrix.shape != below.shape + above.shape
            or spread.shape not in ((), below.shape)
        ):
            raise ValueError(
                "GaussianRBM.from_parameters() needs weights of shape (visible, hidden), "
                "visible_bias and log_variance of shape (visible,), and hidden_bias of shape "
                f"(hidden,); got {matrix.shape}, {below.shape}, {spread.shape} and {above.shape}"
            )
        shell = eqx.filter_eval_shape(
            lambda key: GaussianRBM(below.size, kind, key=key), jax.random.key(0)
        )
        arrays = matrix, below, above, jnp.broadcast_to(spread, below.shape)
        zeros = jnp.zeros(below.shape), jnp.zeros(above.shape)
        return eqx.tree_at(_arrays, shell, (*arrays, *zeros))

    def with_offsets(self, **offsets: Any) -> "GaussianRBM":
        """The same density about other offsets: see `RBM.with_offsets`.

        Args:
            **offsets: of v and h a number, or an array that broadcasts to the layer's biases.

        Raises:
            ValueError: when a name is no layer, or a shape does not fit.

        Example:
            >>> import energia as en, numpy as np
            >>> rbm = en.GaussianRBM.from_parameters(np.ones((2, 1)), np.zeros(2), np.zeros(1))
            >>> rbm.with_offsets(h=0.5).visible_bias.tolist()
            [0.5, 0.5]
        """
        old = {"v": self.visible_offset, "h": self.hidden_offset}
        new = moved_offsets(self, old, offsets)
        below, above = (new[name] - old[name] for name in old)
        scaled = below * jnp.exp(-self.log_variance)
        visible = self.visible_bias + back(self.weights, above)
        hidden = self.hidden_bias + through(scaled, self.weights)
        parameters = self.weights, visible, hidden, self.log_variance
        return eqx.tree_at(_arrays, self, (*parameters, *new.values()))

    def __call__(self, v: ArrayLike, h: ArrayLike) -> jax.Array:
        v, h = one_value(self, v, self.visible_bias.shape), self._hidden(h)
        return self._alone(v) - jnp.sum(self._field(v) * h)

    def _supports(self) -> Mapping[str, Support]:
        return {"v": Real(self.visible_bias.shape), "h": self.hidden}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name == "h":
            v = one_value(self, values["v"], self.visible_bias.shape)
            field = self._field(v)
            base = self._alone(v) + jnp.sum(self.hidden_offset * field)
            return conditional(self.hidden, base, field)
        h, precision = self._hidden(values["h"]), jnp.exp(-self.log_variance)
        pull = precision * back(self.weights, h)
        base = self._alone(jnp.zeros_like(self.visible_bias)) - jnp.sum(h * self.hidden_bias)
        base = base + jnp.sum(self.visible_offset * pull)
        return Normal(base, precision * self.visible_bias + pull, precision)

    def _multilinear(self, names: Collection[str]) -> bool:
        return "v" not in names

    def _hidden(self, h: Any) -> jax.Array:
        return statistics(self, self.hidden, h) - self.hidden_offset

    def _field(self, v: jax.Array) -> jax.Array:
        """What acts on the hidden units."""
        scaled = (v - self.visible_offset) * jnp.exp(-self.log_variance)
        return self.hidden_bias + through(scaled, self.weights)

    def _alone(self, v: jax.Array) -> jax.Array:
        """The energy of the visible units by themselves."""
        return 0.5 * jnp.sum((v - self.visible_bias) ** 2 * jnp.exp(-self.log_variance))


def _arrays(rbm: GaussianRBM) -> Any:  # of any leaves: shapes, in a shell
    parameters = rbm.weights, rbm.visible_bias, rbm.hidden_bias, rbm.log_variance
    return (*parameters, rbm.visible_offset, rbm.hidden_offset)
