"""Units: how the values of a layer enter an energy that is linear in them."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, as_float, check_count, float_dtype
from energia.energies._checks import checked, one_value
from energia.energies._factors import Categorical as Independent
from energia.supports import Binary, Categorical, Discrete, Spin, Support

if TYPE_CHECKING:
    from energia.energies._energy import Energy


def layer(units: Any, name: str) -> Discrete:
    """A layer from a number of binary units, or from the support of its units.

    Raises:
        TypeError: when it is neither.
        ValueError: when there is no unit, or the support is no vector.
    """
    if not isinstance(units, Support):
        return Binary(check_count(units, name, 1))
    if not isinstance(units, Binary | Spin | Categorical):
        hint = ": en.GaussianRBM has real visible units" if not units.discrete else ""
        raise TypeError(
            f"{name}= must be a number of binary units, or en.Binary, en.Spin or en.Categorical "
            f"of a vector; got {units!r}{hint}"
        )
    if len(units.shape) != 1 or units.shape[0] < 1:
        raise ValueError(
            f"{name}= must be a vector of at least 1 unit, got the shape {units.shape}: an image "
            "is flattened, and .substitute(v=jnp.ravel) takes it as it is"
        )
    return units


def shape_of(support: Discrete) -> tuple[int, ...]:
    """The shape of a layer's statistics: (units,), or (units, states) of categorical ones."""
    states = (len(support.states),) if isinstance(support, Categorical) else ()
    return (*support.shape, *states)


def statistics(energy: "Energy", support: Discrete, value: Any) -> jax.Array:
    """What weights multiply: the value, or an indicator of each state of categorical units.

    Means of these pass as they are, as an energy that is linear in them takes them too.
    """
    if not isinstance(support, Categorical):
        return one_value(energy, value, support.shape)
    value = as_array(value, energy._name)
    if value.shape == shape_of(support) and jnp.issubdtype(value.dtype, jnp.floating):
        return value
    if value.shape != support.shape:
        raise ValueError(
            f"{energy._formula()} takes one value of shape {support.shape}, got {value.shape}: "
            "batches are made with jax.vmap"
        )
    return jax.nn.one_hot(value, support.num_categories, dtype=float_dtype())


def conditional(support: Discrete, base: jax.Array, field: jax.Array) -> Independent:
    r"""The factors of $E = b - \sum_i \phi_i f_i$, with the statistics $\phi$ and their field f."""
    if isinstance(support, Categorical):
        return Independent(base, field)
    low, high = support.states
    return Independent(base, jnp.stack([low * field, high * field], axis=-1))


def even(support: Discrete) -> jax.Array:
    """The mean of the statistics where every state is as likely."""
    count = len(support.states)
    mean = 1 / count if isinstance(support, Categorical) else sum(support.states) / count
    return as_float(np.full(shape_of(support), mean))


def of_data(support: Discrete, rows: Any, what: str) -> tuple[jax.Array, jax.Array]:
    """The mean of the statistics over rows of data, and the field under which they have it.

    Each state counts for one row more, so that the field is finite.

    Raises:
        ValueError: when the rows do not fit.
    """
    array = checked_rows(support, rows, what)
    states = np.asarray(support.states)
    counts = np.stack([np.sum(array == state, axis=0) for state in states], -1) + 1.0
    share = counts / counts.sum(-1, keepdims=True)
    logits = np.log(share)
    if isinstance(support, Categorical):
        return as_float(share), as_float(logits - logits.mean(-1, keepdims=True))
    low, high = support.states
    return as_float(share @ states), as_float((logits[:, 1] - logits[:, 0]) / (high - low))


def checked_rows(support: Support, rows: Any, what: str) -> np.ndarray:
    """Rows of data of a support."""
    array = as_array(rows, what)
    if array.ndim != 1 + len(support.shape) or array.shape[1:] != support.shape or not len(array):
        wanted = ", ".join(["rows", *map(str, support.shape)])
        raise ValueError(f"{what} must have shape ({wanted}), at least one row; got {array.shape}")
    return np.asarray(checked(array, support, what))


def small_weights(key: jax.Array, below: tuple[int, ...], above: tuple[int, ...]) -> jax.Array:
    """Normals of standard deviation 0.01, between statistics of these shapes."""
    return 0.01 * jax.random.normal(key, (*below, *above))


def through(below: jax.Array, weights: jax.Array) -> jax.Array:
    """The field that a layer gives the one above it."""
    return jnp.tensordot(below, weights, below.ndim)


def back(weights: jax.Array, above: jax.Array) -> jax.Array:
    """The field that a layer gives the one below it."""
    return jnp.tensordot(weights, above, above.ndim)
