"""Gibbs sampling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.energies._free_energy import has_closed_form
from energia.samplers._sampler import DiscreteSpace, Kernel, registry, ways_out
from energia.supports import Discrete

UNROLLED = 4  # colours whose updates are written out in the program


class GibbsState(NamedTuple):
    """Position of a chain. Nothing of the energy is kept."""

    position: Values


@registry.register("gibbs")
class Gibbs(Kernel, DiscreteSpace):
    r"""Block Gibbs sampling: exact, and nothing to tune.

    A step draws each variable in turn, in the order of the energy's variables, from its conditional
    given all others, $p(x \mid \text{rest})$:

    - all entries at once, where the energy has a closed form in which they are independent: a layer
      of a Boltzmann machine is one matrix product, over all chains side by side a product of
      matrices. Real variables with a Gaussian conditional are drawn so too.
    - else colour by colour, where the energy knows which entries are independent given the others:
      the two colours of a chequerboard for `Ising` and `Potts` on a lattice.
    - else entry by entry, from the energies of all states of an entry: for n entries of K states
      n (K - 1) + 1 evaluations of the energy.

    The scan is systematic, always in this order: it leaves $e^{-E}$ invariant, as each draw does.

    References:
        Geman and Geman (1984), Stochastic relaxation, Gibbs distributions, and the Bayesian
        restoration of images.

    Example:
        >>> import energia as en, jax
        >>> rbm = en.RBM(6, 4, key=jax.random.key(0))
        >>> draws = en.sample(rbm, "gibbs", key=jax.random.key(1), num_warmup=100)
        >>> draws["h"].shape
        (4, 1000, 4)
    """

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        supports = energy.supports
        shapes = {
            name: jax.ShapeDtypeStruct(support.shape, support.dtype)
            for name, support in supports.items()
            if support is not None
        }
        for name in names:
            support = supports[name]
            if isinstance(support, Discrete):
                continue
            if support is not None and support.discrete:
                raise TypeError(
                    f"Gibbs draws variables of finitely many values, and {name!r} is {support}: "
                    f"{ways_out(energy, name, 'nuts')}"
                )
            if support is None or not has_closed_form(energy, name, shapes):
                raise TypeError(
                    f"Gibbs draws discrete variables, and those whose conditional is known in "
                    f"closed form; {name!r} is {support}, and {energy._formula()} knows none for "
                    f"it: {ways_out(energy, name, 'nuts')}"
                )

    def init(self, energy: Energy, position: Values, key: jax.Array) -> GibbsState:
        return GibbsState(position)

    def step(
        self, energy: Energy, state: GibbsState, key: jax.Array
    ) -> tuple[GibbsState, dict[str, jax.Array]]:
        position = state.position
        for index, name in enumerate(energy.variables):
            new = _draw(energy, name, position, jax.random.fold_in(key, index))
            position = {**position, name: new.astype(position[name].dtype)}
        return GibbsState(position), {}


def _draw(energy: Energy, name: str, position: Values, key: jax.Array) -> jax.Array:
    """A draw of one variable given the others, or a sweep over its entries."""
    support, x = energy.supports[name], position[name]
    factors = energy._factorize(name, position)
    if factors is None:
        if not isinstance(support, Discrete):
            raise TypeError(f"Gibbs cannot draw {name!r} ({support}) of {energy._formula()}")
        return _entry_by_entry(energy, name, support, position, key)
    assert support is not None
    if not isinstance(factors, Categorical) or factors.colours is None:
        return factors.draw(key, support)

    numbers = np.asarray(factors.colours).reshape(x.shape)
    colours, count = jnp.asarray(numbers, jnp.int32), int(numbers.max(initial=0)) + 1

    def update(colour: jax.Array, x: jax.Array) -> jax.Array:
        factors = energy._factorize(name, {**position, name: x})
        assert factors is not None
        # one key for all colours: of its numbers each entry uses its own, once
        return jnp.where(colours == colour, factors.draw(key, support).astype(x.dtype), x)

    if count > UNROLLED:
        return jax.lax.fori_loop(0, count, update, x)
    for colour in range(count):
        x = update(jnp.int32(colour), x)
    return x


def _entry_by_entry(
    energy: Energy, name: str, support: Discrete, position: Values, key: jax.Array
) -> jax.Array:
    count, size = len(support.states), math.prod(support.shape)
    # the largest of logits plus Gumbel noise has the probability of its logit
    noise = jax.random.gumbel(key, (size, count), jnp.result_type(float))
    others = jnp.arange(1, count)

    def energy_at(positions: jax.Array) -> jax.Array:
        return energy.at({**position, name: support.values(positions.reshape(support.shape))})

    def update(entry: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        positions, now = carry
        states = (positions[entry] + others) % count
        moved = jax.vmap(lambda state: energy_at(positions.at[entry].set(state)))(states)
        states = jnp.concatenate([positions[entry][None], states])
        energies = jnp.concatenate([now[None], moved])
        chosen = jnp.argmax(noise[entry] - energies)
        return positions.at[entry].set(states[chosen]), energies[chosen]

    start = support.positions(position[name]).reshape(size)
    positions, _ = jax.lax.fori_loop(0, size, update, (start, energy_at(start)))
    return support.values(positions.reshape(support.shape))
