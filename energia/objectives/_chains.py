"""Markov chains inside an objective: one for each row of a batch, with no gradient through them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia import samplers
from energia._mesh import shared
from energia._types import Values
from energia.energies._energy import Energy
from energia.objectives._objective import conditioned
from energia.samplers import BlockGibbs, Gibbs, Kernel, Langevin
from energia.supports import Continuous


def as_kernel(sampler: Any) -> Kernel:
    """A kernel from a name or a kernel."""
    kernel = samplers.registry.resolve(sampler)
    if not isinstance(kernel, Kernel):
        raise TypeError(
            f"sampler= must be a Markov kernel, got {type(kernel).__name__}, which is none: "
            "'langevin', 'mala', 'gibbs' and others are"
        )
    return kernel


def optional_kernel(sampler: Any) -> Kernel | None:
    """The same; None stays, for the natural one."""
    return None if sampler is None else as_kernel(sampler)


def natural_kernel(energy: Energy, names: Sequence[str]) -> Kernel:
    """The kernel that needs no tuning: Langevin for continuous variables, Gibbs for others.

    Where both stand side by side, Gibbs for all if every conditional is known, else each by its
    own.
    """
    discrete = [n for n in names if (s := energy.supports[n]) is not None and s.discrete]
    if not discrete:
        return Langevin()
    others = [name for name in names if name not in discrete]
    try:
        Gibbs().check(energy, others)
    except TypeError:
        return BlockGibbs({tuple(discrete): Gibbs(), tuple(others): Langevin()})
    return Gibbs()


def stopped(energy: Energy) -> Energy:
    """The energy with no gradient through its arrays."""
    arrays, rest = eqx.partition(energy, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def fresh(energy: Energy, names: Sequence[str], key: jax.Array, count: int) -> Values:
    """Starts that know nothing of the energy but its supports, in unconstrained space."""
    starts: Values = {}
    for index, name in enumerate(names):
        support, subkey = energy.supports[name], jax.random.fold_in(key, index)
        assert support is not None
        if isinstance(support, Continuous):
            shape = (count, *support.unconstrained_shape)
            starts[name] = jax.random.uniform(subkey, shape, support.dtype, -2, 2)
        else:
            starts[name] = jax.vmap(support.draw)(jax.random.split(subkey, count))
    return starts


def unconstrained(energy: Energy, rows: Values, fixed: Values) -> Values:
    """Values of each row in unconstrained space, where the others of the row are fixed."""
    return jax.vmap(lambda row, given: conditioned(energy, given).unconstrain(row))(rows, fixed)


def run(
    kernel: Kernel,
    energy: Energy,
    starts: Values,
    fixed: Values,
    num_steps: jax.Array,
    keys: jax.Array,
    kept: tuple[Any, jax.Array] | None = None,
) -> tuple[Any, Values, dict[str, jax.Array]]:
    """A chain from each start, on the energy given the fixed values of its row.

    `kept` are states that the chains ended in before, and whether each goes on from there.

    Returns:
        The states of the kernel, with positions in unconstrained space; the values that these are;
        and the mean over chains of what the last step told.
    """

    def one(start: Values, given: Values, key: jax.Array, kept: Any) -> Any:
        target = conditioned(energy, given)
        state, info = chain(kernel, target, start, num_steps, key, kept)
        return state, target.constrain(state.position)[0], info

    states, values, info = jax.vmap(one)(*shared((starts, fixed, keys, kept)))
    return states, values, told(info)


def chain(
    kernel: Kernel,
    target: Energy,
    start: Values,
    num_steps: jax.Array,
    key: jax.Array,
    kept: tuple[Any, jax.Array] | None = None,
) -> tuple[Any, dict[str, jax.Array]]:
    """The state that one chain ends in, and what its last step told."""
    init = kernel.init(target, start, key)
    if kept is not None:
        last, goes_on = kept
        renewed = kernel.renew(target, last, start, key)
        init = jax.tree.map(lambda old, new: jnp.where(goes_on, old, new), renewed, init)

    def step(t, carry):
        return kernel.step(target, carry[0], _step_key(key, t))

    seen = jax.eval_shape(lambda: step(jnp.int32(0), (init, None))[1])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), seen)
    return jax.lax.fori_loop(0, num_steps, step, (init, nothing))


def told(info: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What the history keeps of what many chains told."""
    return {n: jnp.mean(info[n]) for n in ("acceptance_rate", "diverging") if n in info}


def _step_key(key: jax.Array, t: jax.Array) -> jax.Array:
    """The key of step t of a chain: a Weyl sequence from the chain's own key.

    Distinct keys are all that a counter-based generator asks for. The hash of `fold_in`, a step and
    a chain, would cost 3 % of the gradients of a small network.
    """
    words = jax.random.key_data(key) + np.uint32(0x9E3779B9) * (t + 1).astype(jnp.uint32)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
