"""The restricted Boltzmann machine."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jax.typing import ArrayLike

from energia._types import as_float, check_key
from energia.energies._layered import Layer, Layered, unoffset
from energia.energies._trainable import constant
from energia.energies._units import even, layer, of_data, shape_of, small_weights
from energia.supports import Binary, Discrete


class RBM(Layered):
    r"""The restricted Boltzmann machine, $E(v, h) = -v^\top b - h^\top c - v^\top W h$.

    Units are in {0, 1}, or what the support of their layer says: spins $\pm 1$, or one of K states
    each, which weights and biases have an axis more for (softmax units, $v_{ik} = [v_i = k]$).
    Given one layer the units of the other are independent,
    $P(h_j = 1 \mid v) = \mathrm{sigmoid}(c_j + (v^\top W)_j)$, so that `'gibbs'` draws a whole
    layer at once, and `.marginalize('h')` is the free energy
    $-v^\top b - \sum_j \mathrm{softplus}(c_j + (v^\top W)_j)$ in closed form.

    With `data` the machine begins where its visible units have the means of the data, and in
    centred coordinates: $v - \mu$ and $h - \lambda$ stand in the place of v and h, about the means
    $\mu$ of the data and $\lambda$ of a machine without weights. What it can learn is the same, the
    path there is shorter. Its biases are those about these offsets: `with_offsets(v=0, h=0)` gives
    the form above.

    Args:
        num_visible: a number of binary units, at least 1, or the support of the visible units:
            `en.Binary(n)`, `en.Spin(n)` or `en.Categorical(K, n)`.
        num_hidden: the same of the hidden units.
        data: rows of v, shape (rows, visible); None: biases and offsets begin at 0.
        key: a typed JAX key for the weights, which begin as normals of standard deviation 0.01.

    References:
        Smolensky (1986), Information processing in dynamical systems: foundations of harmony
        theory. Hinton (2012), A practical guide to training restricted Boltzmann machines.
        Salakhutdinov, Mnih and Hinton (2007), Restricted Boltzmann machines for collaborative
        filtering (softmax units). Melchior, Fischer and Wiskott (2016), How to center deep
        Boltzmann machines.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> rbm = en.RBM(3, 2, key=jax.random.key(0))
        >>> print(rbm)
        RBM(v, h)  [v: binary (3,), h: binary (2,); 11 parameters]
        >>> free = rbm.marginalize("h")
        >>> free(jnp.ones(3)).shape
        ()
        >>> print(en.RBM(en.Categorical(5, 3), en.Spin(2), key=jax.random.key(0)))
        RBM(v, h)  [v: categorical 5 (3,), h: spin (2,); 47 parameters]
    """

    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    visible: Discrete = eqx.field(static=True)
    hidden: Discrete = eqx.field(static=True)
    visible_offset: jax.Array = constant()
    hidden_offset: jax.Array = constant()

    def __init__(
        self,
        num_visible: int | Discrete,
        num_hidden: int | Discrete,
        *,
        data: Any = None,
        key: jax.Array,
    ):
        self.visible = layer(num_visible, "num_visible")
        self.hidden = layer(num_hidden, "num_hidden")
        shapes = shape_of(self.visible), shape_of(self.hidden)
        self.weights = small_weights(check_key(key), *shapes)
        zeros = unoffset((self.visible, self.hidden))
        self.visible_bias, self.hidden_bias = zeros
        self.visible_offset, self.hidden_offset = unoffset((self.visible, self.hidden))
        if data is not None:
            self.visible_offset, self.visible_bias = of_data(self.visible, data, "data=")
            self.hidden_offset = even(self.hidden)

    @staticmethod
    def from_parameters(
        weights: Any,
        visible_bias: Any,
        hidden_bias: Any,
        *,
        visible: Discrete | None = None,
        hidden: Discrete | None = None,
    ) -> "RBM":
        """A machine with given parameters.

        Args:
            weights: $W$, shape (visible, hidden); categorical units have an axis over their K
                states behind their own, here and in their bias: (visible, K, hidden), (visible, K).
            visible_bias: $b$, shape (visible,).
            hidden_bias: $c$, shape (hidden,).
            visible: the support of the visible units; None: binary.
            hidden: the support of the hidden units; None: binary.

        Raises:
            ValueError: when the shapes do not fit.

        Example:
            >>> import energia as en, numpy as np
            >>> rbm = en.RBM.from_parameters(np.ones((2, 1)), np.zeros(2), np.zeros(1))
            >>> float(rbm(v=np.ones(2), h=np.ones(1)))
            -2.0
        """
        matrix = as_float(weights, "weights")
        biases = as_float(visible_bias, "visible_bias"), as_float(hidden_bias, "hidden_bias")
        shapes = matrix.shape, biases[0].shape, biases[1].shape
        kinds = []
        for support, bias in zip((visible, hidden), biases, strict=True):
            known = support or (Binary(bias.shape) if bias.ndim == 1 and bias.size else None)
            if known is None or shape_of(known) != bias.shape:
                raise ValueError(_misfit(shapes, (visible, hidden)))
            kinds.append(known)
        if matrix.shape != biases[0].shape + biases[1].shape:
            raise ValueError(_misfit(shapes, (visible, hidden)))
        shell = eqx.filter_eval_shape(lambda key: RBM(*kinds, key=key), jax.random.key(0))
        offsets = unoffset(kinds)
        return eqx.tree_at(_arrays, shell, (matrix, *biases, *offsets))

    def __call__(self, v: ArrayLike, h: ArrayLike) -> jax.Array:
        return self._energy_of({"v": v, "h": h})

    @property
    def _layers(self) -> Sequence[Layer]:
        return (
            Layer(self.visible, self.visible_bias, self.visible_offset),
            Layer(self.hidden, self.hidden_bias, self.hidden_offset),
        )

    @property
    def _weights(self) -> Sequence[jax.Array]:
        return (self.weights,)

    def _about(self, biases: Sequence[jax.Array], offsets: Sequence[jax.Array]) -> "RBM":
        return eqx.tree_at(_arrays, self, (self.weights, *biases, *offsets))


def _arrays(rbm: RBM) -> Any:  # of any leaves: shapes, in a shell
    biases = rbm.visible_bias, rbm.hidden_bias
    return (rbm.weights, *biases, rbm.visible_offset, rbm.hidden_offset)


def _misfit(shapes: Sequence[tuple[int, ...]], supports: Sequence[Discrete | None]) -> str:
    kinds = [str(support or "binary (n,)") for support in supports]
    return (
        "RBM.from_parameters() needs weights of shape (visible, hidden), and biases of shapes "
        f"(visible,) and (hidden,), each with an axis over states more where units are "
        f"categorical; got {shapes[0]}, {shapes[1]} and {shapes[2]} for {kinds[0]} and {kinds[1]}"
    )
