"""Ising and Potts models, on lattices and on any graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import as_array, as_float, check_count
from energia.energies._checks import broadcastable, one_value
from energia.energies._energy import Energy
from energia.energies._factors import Categorical as Independent
from energia.energies._factors import Factors
from energia.energies._graph import Graph
from energia.supports import Categorical, Spin, Support


class Ising(Energy):
    r"""The Ising model, $E(x) = -\sum_{\{i, j\}} J_{ij} x_i x_j - \sum_i h_i x_i$ of spins $\pm 1$.

    The first sum has each edge once: those between nearest neighbours of a lattice, or `edges`. A
    periodic side of length 2 joins its pair twice, as the transfer matrix has it.

    Args:
        shape: shape of x: the sides of the lattice.
        coupling: $J$: a number, positive where neighbours align; with `edges` also one for each.
        field: $h$: a number, or an array that broadcasts to the shape.
        periodic: whether the lattice is a torus.
        edges: pairs of positions in the flattened x, shape (m, 2), in place of the lattice's.

    Raises:
        ValueError: when shapes do not fit, or an edge is none.

    References:
        Ising (1925), Beitrag zur Theorie des Ferromagnetismus.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> model = en.Ising((5, 5), coupling=0.2, field=0.2)
        >>> print(model)
        Ising(x)  [x: spin (5, 5); 2 parameters]
        >>> round(float(model(jnp.ones((5, 5)))), 3)  # 50 edges, 25 spins
        -15.0
    """

    coupling: jax.Array
    field: jax.Array
    graph: Graph

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        coupling: Any,
        field: Any = 0.0,
        periodic: bool = True,
        edges: Any = None,
    ):
        self.graph = Graph(shape, periodic, edges)
        self.coupling = _coupling(coupling, self.graph)
        self.field = broadcastable(field, "field", self.graph.shape)

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = one_value(self, x, self.graph.shape)
        pairs = 0.5 * jnp.sum(x * self.graph.neighbours(x, self.coupling))
        return -pairs - jnp.sum(self.field * x)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Spin(self.graph.shape)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name not in values:
            return super()._factorize(name, values)
        x = as_float(values[name])
        field = self.graph.neighbours(x, self.coupling) + self.field
        return Independent(as_float(0.0), jnp.stack([-field, field], -1), self.graph.colours)


class Potts(Energy):
    r"""The Potts model, $E(x) = -\sum_{\{i, j\}} J_{ij} [x_i = x_j] - \sum_i h_{i, x_i}$.

    Each $x_i$ is one of K states, and each edge counts once, as in `Ising`.

    Args:
        shape: shape of x: the sides of the lattice.
        num_states: K, at least 2.
        coupling: $J$: a number, positive where neighbours agree; with `edges` also one for each.
        field: $h$: a number, or an array that broadcasts to (\*shape, K): (K,) for the same field
            at every entry.
        periodic: whether the lattice is a torus.
        edges: pairs of positions in the flattened x, shape (m, 2), in place of the lattice's.

    Raises:
        ValueError: when shapes do not fit, or an edge is none.

    References:
        Potts (1952), Some generalized order-disorder transformations.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> model = en.Potts((4, 4), 3, coupling=0.5)
        >>> float(model(jnp.zeros((4, 4), int)))  # 32 edges
        -16.0
    """

    coupling: jax.Array
    field: jax.Array
    graph: Graph
    num_states: int = eqx.field(static=True)

    def __init__(
        self,
        shape: int | Sequence[int],
        num_states: int,
        *,
        coupling: Any,
        field: Any = 0.0,
        periodic: bool = True,
        edges: Any = None,
    ):
        self.graph = Graph(shape, periodic, edges)
        self.num_states = check_count(num_states, "num_states", 2)
        self.coupling = _coupling(coupling, self.graph)
        self.field = broadcastable(field, "field", (*self.graph.shape, self.num_states))

    def __call__(self, x: ArrayLike) -> jax.Array:
        x = as_array(x, self._name)
        if x.shape != self.graph.shape:
            raise ValueError(
                f"{self._formula()} takes one value of shape {self.graph.shape}, got {x.shape}: "
                "batches are made with jax.vmap"
            )
        states = jax.nn.one_hot(x, self.num_states, dtype=self.coupling.dtype)
        pairs = 0.5 * jnp.sum(states * self.graph.neighbours(states, self.coupling))
        return -pairs - jnp.sum(self.field * states)

    def _supports(self) -> Mapping[str, Support]:
        return {"x": Categorical(self.num_states, self.graph.shape)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name not in values:
            return super()._factorize(name, values)
        states = jax.nn.one_hot(values[name], self.num_states, dtype=self.coupling.dtype)
        logits = self.graph.neighbours(states, self.coupling) + self.field
        return Independent(as_float(0.0), logits, self.graph.colours)


def _coupling(coupling: Any, graph: Graph) -> jax.Array:
    if graph.edges is not None:
        return broadcastable(coupling, "coupling", graph.edges.shape[:1])
    coupling = as_float(coupling, "coupling")
    if coupling.shape != ():
        raise ValueError(
            f"coupling of shape {coupling.shape}: on a lattice it is one number; give edges= for "
            "one an edge"
        )
    return coupling
