"""Closed forms: an energy of one variable whose entries are independent, given the others."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_float, is_concrete
from energia.energies._uniform import uniform
from energia.supports import Discrete, Real, Support

if TYPE_CHECKING:
    from energia.energies._energy import Energy


def logsumexp(values: jax.Array, axis: int | None = None) -> jax.Array:
    """As JAX's, with the gradient 0 and not NaN where all values are -inf.

    A state that no other can stand beside has its weight of 0 later on, and 0 times NaN is NaN.
    """
    empty = jnp.all(values == -jnp.inf, axis, keepdims=True)
    result = jax.nn.logsumexp(jnp.where(empty, 0.0, values), axis, keepdims=True)
    return jnp.squeeze(jnp.where(empty, -jnp.inf, result), axis)


@jax.custom_jvp
def _logaddexp(one: jax.Array, two: jax.Array) -> jax.Array:
    """`logsumexp` of two, whose gradient costs one sigmoid."""
    # log1p would cost twice as much, for digits that are lost in the sum
    return jnp.maximum(one, two) + jnp.log(1 + jnp.exp(-jnp.abs(_gap(one, two))))


@_logaddexp.defjvp
def _logaddexp_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    one, two = tangents
    share = jax.nn.sigmoid(_gap(*primals))
    slope = jnp.where(jnp.maximum(*primals) == -jnp.inf, 0.0, one + share * (two - one))
    return _logaddexp(*primals), slope


def _gap(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.where(jnp.maximum(one, two) == -jnp.inf, 0.0, two - one)


class Categorical(eqx.Module):
    r"""$E = b - \sum_i \ell_{i, k_i}$ where entry $i$ is in its state number $k_i$.

    Args:
        base: $b$, a scalar.
        logits: $\ell$, of the variable's shape and a last axis over the states of an entry.
        colours: None where all entries are independent; else a number for each, of the flattened
            variable: entries of one colour are independent given the others as they are, and $E$
            holds up to what does not depend on them.
    """

    base: jax.Array
    logits: jax.Array
    colours: tuple[int, ...] | None = eqx.field(default=None, static=True)

    def __add__(self, other: "Categorical") -> "Categorical":
        colours = _joint_colours(self.colours, other.colours)
        return Categorical(self.base + other.base, self.logits + other.logits, colours)

    def scale(self, weight: jax.Array) -> "Categorical":
        """The factors of the weighted energy."""
        return Categorical(weight * self.base, weight * self.logits, self.colours)

    def fit(self, support: Support) -> "Categorical | None":
        """The factors of a variable of this support, from an energy that did not know it."""
        count = self.logits.shape[-1]
        same = isinstance(support, Discrete) and support.states == tuple(range(count))
        return self if same and self.logits.shape == (*support.shape, count) else None

    def free_energy(self) -> jax.Array:
        r"""$-\log \sum e^{-E}$ over all values of the variable."""
        if self.logits.shape[-1] == 2:  # a fifth of the time of the general sum, with its gradient
            # not logits[..., 0]: XLA would keep the axis, of length 1, and go entry by entry
            return self.base - jnp.sum(_logaddexp(*jnp.moveaxis(self.logits, -1, 0)))
        return self.base - jnp.sum(logsumexp(self.logits, axis=-1))

    def through(self, energy: Callable[[jax.Array], Any], support: Support) -> "Categorical":
        """The same law, with the base by which one value has the energy that it is to have."""
        assert isinstance(support, Discrete)
        value = support.values(jnp.zeros(support.shape, jnp.int32)).astype(support.dtype)
        base = energy(value) + jnp.sum(self.logits[..., 0])
        return Categorical(base, self.logits, self.colours)

    def draw(self, key: jax.Array, support: Support) -> jax.Array:
        """A draw of the variable."""
        assert isinstance(support, Discrete)
        return support.values(self.draw_positions(key))

    def draw_positions(self, key: jax.Array) -> jax.Array:
        """For each entry the number of the state that is drawn."""
        if self.logits.shape[-1] == 2:  # one uniform number an entry
            odds = self.logits[..., 1] - self.logits[..., 0]
            return uniform(key, odds.shape, odds.dtype) < jax.nn.sigmoid(odds)
        return jax.random.categorical(key, self.logits)


class Normal(eqx.Module):
    r"""$E = b - \sum_i \eta_i x_i + \tfrac12 \sum_i \lambda_i x_i^2$.

    Args:
        base: $b$, a scalar.
        linear: $\eta$, of the variable's shape.
        precision: $\lambda$, of the variable's shape.
    """

    base: jax.Array
    linear: jax.Array
    precision: jax.Array

    def __add__(self, other: "Normal") -> "Normal":
        return Normal(
            self.base + other.base, self.linear + other.linear, self.precision + other.precision
        )

    def scale(self, weight: jax.Array) -> "Normal":
        """The factors of the weighted energy."""
        return Normal(weight * self.base, weight * self.linear, weight * self.precision)

    def fit(self, support: Support) -> "Normal | None":
        """The factors of a variable of this support, from an energy that did not know it.

        It may have broadcast the variable: the sum over the axes to which it did stays.
        """
        if not isinstance(support, Real):
            return None
        linear, precision = (_narrow(x, support.shape) for x in (self.linear, self.precision))
        if linear is None or precision is None:
            return None
        return Normal(self.base, linear, precision)

    def free_energy(self) -> jax.Array:
        r"""$-\log \int e^{-E}$ over all values of the variable."""
        self.check()
        terms = math.log(2 * math.pi) - jnp.log(self.precision) + self.linear**2 / self.precision
        return self.base - 0.5 * jnp.sum(terms)

    def through(self, energy: Callable[[jax.Array], Any], support: Support) -> "Normal":
        """The same law, with the base by which one value has the energy that it is to have."""
        value = jnp.zeros(support.shape, support.dtype)
        return Normal(energy(value), self.linear, self.precision)

    def draw(self, key: jax.Array, support: Support) -> jax.Array:
        """A draw of the variable."""
        self.check()
        noise = jax.random.normal(key, self.linear.shape, self.linear.dtype)
        return self.linear / self.precision + noise / jnp.sqrt(self.precision)

    def check(self) -> None:
        """Raise where a precision that can be seen is not positive: there is no normaliser."""
        if is_concrete(self.precision) and not np.all(np.asarray(self.precision) > 0):
            lowest = np.min(np.asarray(self.precision))
            raise ValueError(
                f"a Gaussian factor has the precision {lowest:.4g}: exp(-E) cannot be integrated "
                "over the variable; add a prior, or make negative weights smaller"
            )


def _narrow(array: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
    """The sum over the axes along which something of this shape was broadcast."""
    try:
        if np.broadcast_shapes(array.shape, shape) != array.shape:
            return None
    except ValueError:
        return None
    extra = array.ndim - len(shape)
    array = jnp.sum(array, axis=tuple(range(extra)))
    wide = tuple(axis for axis, size in enumerate(shape) if size != array.shape[axis])
    return jnp.sum(array, axis=wide, keepdims=True)


Factors = Categorical | Normal


def _joint_colours(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Colours that differ wherever one of the two does."""
    if first is None or second is None or first == second:
        return first or second
    pairs = list(zip(first, second, strict=True))
    numbers = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    return tuple(numbers[pair] for pair in pairs)


def enumerated(energy: "Energy", name: str, values: Mapping[str, Any]) -> Categorical | None:
    """The factors of a finite variable with one entry: any energy of it has them."""
    support = energy.supports[name]
    if not isinstance(support, Discrete) or math.prod(support.shape) != 1:
        return None
    count = len(support.states)
    energies = jax.vmap(lambda index: energy.at({**values, name: support.state(index)}))(
        jnp.arange(count, dtype=jnp.int32)
    )
    return Categorical(as_float(0.0), -energies.reshape(*support.shape, count))
