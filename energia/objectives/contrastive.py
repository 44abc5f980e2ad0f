"""Contrastive divergence and its kin: data down, samples up."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia import samplers
from energia._types import Values, as_array, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.objectives._buffer import ReplayBuffer
from energia.objectives._objective import Objective, check_continuous, registry
from energia.samplers import DiscreteSpace, GradientBased, Kernel
from energia.supports import Continuous, Real


def _kernel(sampler: Any) -> Kernel:
    kernel = samplers.registry.resolve(sampler)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"sampler= must be a Markov kernel, got {kernel!r}")
    return kernel


class PCDState(eqx.Module):
    """Persistent chains, and what fresh ones start from: the data's means and deviations.

    Chains stand in unconstrained space, beside the values that they are given.
    """

    buffer: ReplayBuffer
    mean: Values
    scale: Values


@registry.register("pcd")
class PCD(Objective):
    r"""Persistent contrastive divergence with a replay buffer.

    The gradient of the negative log-likelihood is $\nabla_\theta E$ averaged over the data minus
    its average over the model. Samples of the model come from chains that persist in a buffer
    between steps: each step draws as many as the batch has rows, starts some afresh, moves them
    `num_steps` on with the energy as it is, and writes them back where they were drawn. The loss is

    $\overline{E(x^+)} - \overline{E(x^-)}
    + \alpha\,(\overline{E(x^+)^2} + \overline{E(x^-)^2})$

    with no gradient through the chains. What is learned is as good as the chains mix: the sampler
    has its numbers given, as it is not tuned here.

    Args:
        sampler: a Markov kernel, or its name.
        num_steps: $k$, transitions a training step, at least 1.
        buffer_size: chains in the buffer; at least the batch size.
        reinit_prob: chance that a chain starts afresh in a step, in [0, 1]: from a normal with the
            data's means and standard deviations where a variable is real, else from its support.
            A chain that began a few steps ago does not follow the model yet: with `num_steps` too
            few for the sampler to forget its start, restarts pull what is learned towards the law
            they draw from; 0 takes that bias away, and relies on the chains to mix.
        energy_regularization: $\alpha$, at least 0: keeps the energy's free constant and its scale
            bounded; 0.01 is usual for deep energies.
        given: variables that are conditioned on. A chain keeps the values that it was given.

    References:
        Tieleman (2008), Training restricted Boltzmann machines using approximations to the
        likelihood gradient. Du and Mordatch (2019), Implicit generation and modeling with
        energy-based models (the replay buffer, the regularisation).

    Example:
        >>> import energia as en
        >>> pcd = en.objectives.PCD(sampler=en.samplers.Langevin(step_size=0.05), num_steps=40)
        >>> pcd.buffer_size
        8192
    """

    kernel: Kernel
    num_steps: jax.Array
    reinit_prob: jax.Array
    energy_regularization: jax.Array
    buffer_size: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        sampler: Any = "langevin",
        num_steps: int = 20,
        buffer_size: int = 8192,
        reinit_prob: float = 0.05,
        energy_regularization: float = 0.0,
        given: Any = (),
    ):
        self.kernel = _kernel(sampler)
        self.num_steps = as_array(np.int32(check_count(num_steps, "num_steps", 1)))
        self.buffer_size = check_count(buffer_size, "buffer_size", 1)
        self.reinit_prob = as_float(reinit_prob)
        self.energy_regularization = as_float(energy_regularization)
        self.given = (given,) if isinstance(given, str) else tuple(given)
        if is_concrete(self.reinit_prob) and not 0 <= float(self.reinit_prob) <= 1:
            raise ValueError(f"reinit_prob= must lie in [0, 1], got {reinit_prob}")
        regularization = self.energy_regularization
        if is_concrete(regularization) and not float(regularization) >= 0:
            raise ValueError(
                f"energy_regularization= must be at least 0, got {energy_regularization}"
            )

    def check(self, energy: Energy) -> None:
        self.kernel.check_set()
        if self.kernel.has(GradientBased) and not self.kernel.has(DiscreteSpace):
            check_continuous(self, energy, f"{type(self.kernel).__name__} moves along gradients")
        self.kernel.check(energy, self.modelled(energy))

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, PCDState]:
        modelled = self.modelled(energy)
        real = [name for name in modelled if jnp.issubdtype(data[name].dtype, jnp.floating)]
        mean = {name: jnp.mean(data[name], 0) for name in real}
        scale = {name: jnp.std(data[name], 0) for name in real}
        rows = jax.random.randint(jax.random.fold_in(key, 0), (self.buffer_size,), 0, _rows(data))
        state = PCDState(ReplayBuffer({}), mean, scale)
        fresh = self._fresh(energy, state, jax.random.fold_in(key, 1), self.buffer_size)
        kept = {name: data[name][rows] for name in self.given}
        return None, eqx.tree_at(lambda s: s.buffer, state, ReplayBuffer({**fresh, **kept}))

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: PCDState, key: jax.Array
    ) -> tuple[jax.Array, PCDState, dict[str, jax.Array]]:
        count = _rows(batch)
        slot_key, fresh_key, which_key, chain_key = jax.random.split(key, 4)
        slots, chains = state.buffer.draw(slot_key, count)
        fresh = self._fresh(energy, state, fresh_key, count)
        fresh |= {name: batch[name] for name in self.given}
        again = jax.random.bernoulli(which_key, self.reinit_prob, (count,))
        chains = {
            name: jnp.where(again.reshape(-1, *[1] * (old.ndim - 1)), fresh[name], old)
            for name, old in chains.items()
        }
        chains, metrics = self._run(energy, chains, jax.random.split(chain_key, count))
        negatives = jax.vmap(lambda row: self._constrained(energy, row))(chains)
        negatives = jax.lax.stop_gradient(negatives)
        # one pass over both
        both = {name: jnp.concatenate([batch[name], negatives[name]]) for name in batch}
        positive, negative = jnp.split(jax.vmap(energy.at)(both), 2)
        gap = jnp.mean(positive) - jnp.mean(negative)
        size = jnp.mean(positive**2) + jnp.mean(negative**2)
        metrics |= {"positives": jnp.mean(positive), "negatives": jnp.mean(negative)}
        state = eqx.tree_at(lambda s: s.buffer, state, state.buffer.write(slots, chains))
        return gap + self.energy_regularization * size, state, metrics

    def _run(
        self, energy: Energy, chains: Values, keys: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        """Every chain `num_steps` on, each given its own values; no gradient passes."""
        frozen = jax.lax.stop_gradient(eqx.filter(energy, eqx.is_array))
        energy = eqx.combine(frozen, eqx.filter(energy, eqx.is_array, inverse=True))

        def chain(start: Values, key: jax.Array) -> tuple[Values, dict[str, jax.Array]]:
            given = {name: start[name] for name in self.given}
            target = Unconstrained(energy.condition(**given) if given else energy)
            position = {name: start[name] for name in target.variables}
            init = self.kernel.init(target, position, key)

            def step(t, carry):
                return self.kernel.step(target, carry[0], _step_key(key, t))

            seen = jax.eval_shape(lambda: step(jnp.int32(0), (init, None))[1])
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), seen)
            state, info = jax.lax.fori_loop(0, self.num_steps, step, (init, nothing))
            return {**state.position, **given}, info

        moved, info = jax.vmap(chain)(chains, keys)
        told = ("acceptance_rate", "diverging")
        return moved, {name: jnp.mean(info[name]) for name in told if name in info}

    def _constrained(self, energy: Energy, chain: Values) -> Values:
        """The values of a chain; those that it was given are no coordinates."""
        given = {name: chain[name] for name in self.given}
        return {**Unconstrained(energy).constrain(chain)[0], **given}

    def _fresh(self, energy: Energy, state: PCDState, key: jax.Array, count: int) -> Values:
        """Starts of new chains, in unconstrained space."""
        fresh = {}
        for index, name in enumerate(self.modelled(energy)):
            support, subkey = energy.supports[name], jax.random.fold_in(key, index)
            if support is None or isinstance(support, Real):
                mean, scale = state.mean[name], state.scale[name]
                noise = jax.random.normal(subkey, (count, *mean.shape), mean.dtype)
                fresh[name] = mean + scale * noise
            elif isinstance(support, Continuous):
                shape = (count, *support.unconstrained_shape)
                fresh[name] = jax.random.uniform(subkey, shape, support.dtype, -2, 2)
            else:
                fresh[name] = jax.vmap(support.draw)(jax.random.split(subkey, count))
        return fresh


def _step_key(key: jax.Array, t: jax.Array) -> jax.Array:
    """The key of step t of a chain: a Weyl sequence from the chain's own key.

    Distinct keys are all that a counter-based generator asks for. The hash of `fold_in`, a step and
    a chain, would cost 3 % of the gradients of a small network.
    """
    words = jax.random.key_data(key) + np.uint32(0x9E3779B9) * (t + 1).astype(jnp.uint32)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def _rows(values: Values) -> int:
    return next(iter(values.values())).shape[0]
