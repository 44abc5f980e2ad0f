"""Mean fields: independent laws of variables given the others, and the bound that they give."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import Values
from energia.energies._factors import Categorical
from energia.energies._free_energy import has_closed_form
from energia.energies._units import even
from energia.supports import Categorical as States
from energia.supports import Discrete

if TYPE_CHECKING:
    from energia.energies._energy import Energy

TOLERANCE = 1e-4  # of a mean, from sweep to sweep; of the free energy, its square
MOST_SWEEPS = 500


class MeanField(NamedTuple):
    r"""The law $q(h) = \prod_i q_i(h_i)$ that is nearest to $p(h \mid v)$, in KL(q, p).

    Attributes:
        means: by variable the means of its statistics.
        free_energy: $E_q[E] - H(q)$, at least $-\log \sum_h e^{-E(v, h)}$.
    """

    means: Values
    free_energy: jax.Array


def has_mean_field(energy: "Energy", names: Sequence[str], shapes: Mapping[str, Any]) -> bool:
    """Whether the mean field of these variables is known, given values of these shapes."""
    supports = energy.supports
    if not energy._multilinear(names):
        return False
    around = dict(shapes)
    for name in names:
        support = supports[name]
        if not isinstance(support, Discrete):
            return False
        around[name] = jax.ShapeDtypeStruct(support.shape, support.dtype)
    return all(has_closed_form(energy, name, around) for name in names)


def mean_field(energy: "Energy", names: Sequence[str], values: Mapping[str, Any]) -> MeanField:
    r"""The mean field of variables given all others, by sweeps until no mean moves by $10^{-4}$.

    A sweep replaces the means of each variable in turn by those of its conditional, where the
    others are at theirs: each step lowers the free energy. Means stand for values, since the energy
    is linear in them; those of a categorical variable are the probabilities of its states, on a
    last axis. Gradients go through the free energy
    with the means held, which at a fixed point is its gradient.

    References:
        Salakhutdinov and Hinton (2009), Deep Boltzmann machines.
    """
    arrays, rest = eqx.partition((energy, dict(values)), eqx.is_array)
    held, given = eqx.combine(jax.lax.stop_gradient(arrays), rest)

    def sweep(means: Values) -> Values:
        for name in names:
            means = {**means, name: _means(held, name, {**given, **means})}
        return means

    def moving(carry: tuple[jax.Array, Values, jax.Array]) -> jax.Array:
        return (carry[0] < MOST_SWEEPS) & (carry[2] > TOLERANCE)

    def step(carry: tuple[jax.Array, Values, jax.Array]) -> tuple[jax.Array, Values, jax.Array]:
        count, old, _ = carry
        new = sweep(old)
        moves = [jnp.max(jnp.abs(new[name] - old[name])) for name in names]
        return count + 1, new, jnp.max(jnp.stack(moves))

    start = {name: even(_finite(held, name)) for name in names}
    infinite = jnp.full((), jnp.inf, start[names[0]].dtype)
    means = jax.lax.while_loop(moving, step, (jnp.int32(0), start, infinite))[1]
    last = names[-1]
    factors = energy._factorize(last, {**values, **means})
    assert factors is not None
    entropies = (_entropy(_finite(energy, name), means[name]) for name in names[:-1])
    free = factors.free_energy() - sum(entropies, start=jnp.zeros(()))
    return MeanField({**means, last: _means(held, last, {**given, **means})}, free)


def draw(energy: "Energy", means: Values, key: jax.Array) -> Values:
    """A draw of the law with these means."""
    drawn = {}
    for index, (name, mean) in enumerate(means.items()):
        support = _finite(energy, name)
        logits = jnp.log(_probabilities(support, mean))
        factors = Categorical(jnp.zeros(()), logits)
        drawn[name] = factors.draw(jax.random.fold_in(key, index), support).astype(support.dtype)
    return drawn


def _finite(energy: "Energy", name: str) -> Discrete:
    support = energy.supports[name]
    assert isinstance(support, Discrete)
    return support


def _means(energy: "Energy", name: str, values: Mapping[str, Any]) -> jax.Array:
    """The means of the statistics of a variable under its conditional."""
    factors, support = energy._factorize(name, values), _finite(energy, name)
    assert isinstance(factors, Categorical)
    share = jax.nn.softmax(factors.logits, axis=-1)
    if isinstance(support, States):
        return share
    return share @ jnp.asarray(support.states, share.dtype)


def _probabilities(support: Discrete, mean: jax.Array) -> jax.Array:
    """The probabilities of the states of each entry, from the means of its statistics."""
    if isinstance(support, States):
        return mean
    low, high = support.states
    above = (mean - low) / (high - low)
    return jnp.stack([1 - above, above], axis=-1)


def _entropy(support: Discrete, mean: jax.Array) -> jax.Array:
    share = jnp.clip(_probabilities(support, mean), 0, 1)
    return -jnp.sum(jax.scipy.special.xlogy(share, share))
