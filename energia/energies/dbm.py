"""The deep Boltzmann machine."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from energia._types import check_key
from energia.energies._energy import Energy
from energia.energies._exact import Exact, of_terms
from energia.energies._layered import Layer, Layered, unoffset
from energia.energies._trainable import constant
from energia.energies._units import even, layer, of_data, shape_of, small_weights
from energia.energies.boltzmann import RBM
from energia.supports import Discrete


class DBM(Layered):
    r"""The deep Boltzmann machine, $E(v, h_1, h_2, \dots)$ of layers each joined to the next.

    $E = -v^\top b_0 - \sum_l h_l^\top b_l - v^\top W_1 h_1 - h_1^\top W_2 h_2 - \dots$

    It is the sum of its `rbms`, with variables renamed. Given its neighbours a layer's units are
    independent. `'gibbs'` draws layer after layer; since layers that are no neighbours do not see
    each other, that is the chain that draws all even and all odd layers in turn. Given v alone the
    hidden layers have no closed form: `'cd'` and `'pcd'` draw them by chains, or take their mean
    field (`mean_field=True`), and `en.evaluate.log_likelihood` gives a lower bound where they are
    too many to sum over. `en.pretrain` begins layer by layer.

    Args:
        layers: for each layer, from the visible one up, a number of binary units, or the support
            of the units as in `en.RBM`; at least two layers.
        data: rows of v, shape (rows, visible): the visible units begin with their means, and all
            layers in centred coordinates, as in `en.RBM`; None: biases and offsets begin at 0.
        key: a typed JAX key for the weights, which begin as normals of standard deviation 0.01.

    References:
        Salakhutdinov and Hinton (2009), Deep Boltzmann machines. Montavon and Müller (2012), Deep
        Boltzmann machines and the centering trick.

    Example:
        >>> import energia as en, jax
        >>> dbm = en.DBM((6, 4, 3), key=jax.random.key(0))
        >>> print(dbm)
        DBM(v, h1, h2)  [v: binary (6,), h1: binary (4,), h2: binary (3,); 49 parameters]
        >>> dbm.marginalize("v", "h2").variables  # both in closed form, given h1
        ('h1',)
    """

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    layers: tuple[Discrete, ...] = eqx.field(static=True)
    offsets: tuple[jax.Array, ...] = constant()

    def __init__(self, layers: Sequence[int | Discrete], *, data: Any = None, key: jax.Array):
        if not isinstance(layers, Sequence) or len(layers) < 2:
            raise ValueError(
                "DBM() needs at least two layers, from the visible one up: numbers of binary "
                f"units, or supports, such as (784, 500, 1000); got {layers!r}"
            )
        self.layers = tuple(layer(units, f"layers[{i}]") for i, units in enumerate(layers))
        shapes = list(map(shape_of, self.layers))
        keys = jax.random.split(check_key(key), len(shapes) - 1)
        pairs = zip(keys, shapes[:-1], shapes[1:], strict=True)
        self.weights = tuple(small_weights(*pair) for pair in pairs)
        biases, offsets = unoffset(self.layers), unoffset(self.layers)
        if data is not None:
            offsets = list(map(even, self.layers))
            offsets[0], biases[0] = of_data(self.layers[0], data, "data=")
        self.biases, self.offsets = tuple(biases), tuple(offsets)

    @staticmethod
    def from_rbms(rbms: Sequence[RBM]) -> "DBM":
        """The sum of restricted machines that stand on one another.

        The biases of a layer in which two of them meet add.

        Args:
            rbms: from the visible layer up; the hidden layer of each is the visible one of the
                next.

        Raises:
            ValueError: when there is none, or layers do not meet.

        Example:
            >>> import energia as en, jax
            >>> rbms = [en.RBM(6, 4, key=jax.random.key(0)), en.RBM(4, 3, key=jax.random.key(1))]
            >>> en.DBM.from_rbms(rbms).variables
            ('v', 'h1', 'h2')
        """
        rbms = list(rbms)
        if not rbms or not all(isinstance(rbm, RBM) for rbm in rbms):
            raise ValueError(f"DBM.from_rbms() needs at least one RBM, got {rbms!r}")
        for number, (low, high) in enumerate(itertools.pairwise(rbms)):
            if low.hidden != high.visible:
                raise ValueError(
                    f"DBM.from_rbms(): the hidden units of machine {number} are {low.hidden}, the "
                    f"visible ones of machine {number + 1} are {high.visible}; they are one layer"
                )
        layers = (rbms[0].visible, *(rbm.hidden for rbm in rbms))
        offsets = (rbms[0].visible_offset, *(rbm.hidden_offset for rbm in rbms))
        pairs = zip(rbms, itertools.pairwise(offsets), strict=True)
        rbms = [rbm.with_offsets(v=low, h=high) for rbm, (low, high) in pairs]
        biases = [rbms[0].visible_bias, *(rbm.hidden_bias for rbm in rbms)]
        for index, rbm in enumerate(rbms[1:], 1):
            biases[index] = biases[index] + rbm.visible_bias
        shell = eqx.filter_eval_shape(lambda key: DBM(layers, key=key), jax.random.key(0))
        weights = tuple(rbm.weights for rbm in rbms)
        return eqx.tree_at(_arrays, shell, (weights, tuple(biases), offsets))

    @property
    def rbms(self) -> tuple[RBM, ...]:
        """The machines of which it is the sum; inner layers give half of their bias to each."""
        last = len(self.layers) - 1
        shares = [b if i in (0, last) else b / 2 for i, b in enumerate(self.biases)]
        parts = []
        for low, matrix in enumerate(self.weights):
            pair, both = self.layers[low : low + 2], self.offsets[low : low + 2]
            rbm = RBM.from_parameters(
                matrix, shares[low], shares[low + 1], visible=pair[0], hidden=pair[1]
            )
            parts.append(rbm._about((shares[low], shares[low + 1]), both))
        return tuple(parts)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self._energy_of(self._bind(args, kwargs))

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables: v, h1, h2, and so on."""
        return ("v", *(f"h{number}" for number in range(1, len(self.layers))))

    def _terms(self) -> tuple[Energy, ...]:
        names = self.variables
        return tuple(
            rbm.rename(v=low, h=high)
            for rbm, low, high in zip(self.rbms, names[:-1], names[1:], strict=True)
        )

    def _exact(self, values: Mapping[str, Any]) -> Exact | None:
        if len(self.layers) - len(values) < 2:
            return super()._exact(values)
        return of_terms(self._terms(), lambda terms: sum(terms[1:], start=terms[0]), values)

    @property
    def _layers(self) -> Sequence[Layer]:
        return [Layer(*each) for each in zip(self.layers, self.biases, self.offsets, strict=True)]

    @property
    def _weights(self) -> Sequence[jax.Array]:
        return self.weights

    def _about(self, biases: Sequence[jax.Array], offsets: Sequence[jax.Array]) -> "DBM":
        return eqx.tree_at(_arrays, self, (self.weights, tuple(biases), tuple(offsets)))


def _arrays(dbm: DBM) -> Any:  # of any leaves: shapes, in a shell
    return dbm.weights, dbm.biases, dbm.offsets
