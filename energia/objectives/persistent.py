"""Persistent contrastive divergence: chains that live from step to step."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import Values, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.objectives import _chains
from energia.objectives._buffer import ReplayBuffer, check_policy
from energia.objectives._objective import conditioned, registry, rows_in, steps
from energia.objectives.contrastive import Contrastive
from energia.samplers import Langevin
from energia.supports import Continuous


class PCDState(eqx.Module):
    """Persistent chains, and what fresh ones start from: the data's means and deviations.

    Chains stand in unconstrained space, beside the values that they are given. `kept` are the
    states of a kernel that has more to keep of them, such as momenta, else None.
    """

    buffer: ReplayBuffer
    mean: Values
    scale: Values
    kept: Any = None


@registry.register("pcd")
class PCD(Contrastive):
    r"""Persistent contrastive divergence with a replay buffer.

    Samples of the model come from chains that persist in a buffer between steps: each step draws as
    many as the batch has rows, starts some afresh, moves them `num_steps` on with the energy as it
    is, and writes them back. The loss is

    $\overline{E(x^+)} - \overline{E(x^-)}
    + \alpha\,(\overline{E(x^+)^2} + \overline{E(x^-)^2})$

    with no gradient through the chains. What is learned is as good as the chains mix: the sampler
    has its numbers given, as it is not tuned here. With `reinit_prob=1` nothing persists: these are
    short runs from noise.

    A kernel that has more to keep of a chain than where it is (its `renew`) keeps it from step to
    step: momenta of `'meads'` and `'mclmc'` persist beside the positions, so that chains of few
    transitions a step still travel; a chain that starts afresh has new ones.

    Latent variables of known support are moved by the chains too; given the data they are summed
    out where that has a closed form, as for a layer of a Boltzmann machine, else drawn.

    `PCD.deep` has the settings that deep energies of images are trained with.

    Args:
        sampler: a Markov kernel, or its name. None: `'langevin'` for continuous variables;
            `'gibbs'` where all others have known conditionals (a Boltzmann machine), else both,
            each for its own.
        num_steps: $k$, transitions a training step, at least 1.
        buffer_size: chains in the buffer; at least the batch size.
        buffer_policy: where moved chains go. 'slots': back where they were drawn. 'fifo': in place
            of what was written longest ago, so that a chain may go on twice while another ends.
            'reservoir': so that the buffer is an even draw of all samples of the training, old ones
            of worse energies too: many starts apart, which must forget where they come from.
        reinit_prob: chance that a chain starts afresh in a step, in [0, 1]: from a normal with the
            data's means and standard deviations in unconstrained space where a variable is
            continuous (rows on a bound aside), else from its support.
            A chain that began a few steps ago does not follow the model yet: with `num_steps` too
            few for the sampler to forget its start, restarts pull what is learned towards the law
            they draw from; 0 takes that bias away, and relies on the chains to mix.
        energy_regularization: $\alpha$, at least 0: keeps the energy's free constant and its scale
            bounded; 0.01 is usual for deep energies.
        latent_sampler: a Markov kernel, or its name, that draws latent variables given the data
            where they have no closed form; None: the natural one, as above.
        num_latent_steps: its transitions, from starts that know nothing of the data, at least 1.
        mean_field: whether such latent variables have their mean field in place of draws, as is
            usual for a deep Boltzmann machine: what is learned is a lower bound of the likelihood,
            from which the energy is drawn towards posteriors near to independent ones.
        given: variables that are conditioned on. A chain keeps the values that it was given: with
            labels these are chains for each class, as many as the class has of the data.

    References:
        Tieleman (2008), Training restricted Boltzmann machines using approximations to the
        likelihood gradient. Du and Mordatch (2019), Implicit generation and modeling with
        energy-based models (the replay buffer, the regularisation). Nijkamp et al. (2019), Learning
        non-convergent non-persistent short-run MCMC toward energy-based model.

    Example:
        >>> import energia as en
        >>> pcd = en.objectives.PCD(sampler=en.samplers.Langevin(step_size=0.05), num_steps=40)
        >>> pcd.buffer_size
        8192
    """

    num_steps: jax.Array = eqx.field(default=20, converter=steps("num_steps"), kw_only=True)
    buffer_size: int = eqx.field(default=8192, static=True, kw_only=True)
    buffer_policy: str = eqx.field(default="slots", static=True, kw_only=True)
    reinit_prob: jax.Array = eqx.field(default=0.05, converter=as_float, kw_only=True)

    def __check_init__(self):
        check_policy(self.buffer_policy, "buffer_policy")
        check_count(self.buffer_size, "buffer_size", 1)
        if is_concrete(self.reinit_prob) and not 0 <= float(self.reinit_prob) <= 1:
            raise ValueError(f"reinit_prob= must lie in [0, 1], got {self.reinit_prob}")

    @classmethod
    def deep(cls, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> "PCD":
        r"""The settings that deep energies of images are usually trained with.

        A network $f$ of images with pixels in [`low`, `high`] is trained as the model `800 * f`,
        with noise of 0.005 on the data, batches of 128 and Adam at 1e-4:

            en.fit(800 * f, images, en.objectives.PCD.deep(), key=key, batch_size=128,
                   optimizer=optax.adam(1e-4), augment=noisy)

        Chains are 60 steps of $x' = x - 0.01 \nabla f(x) + 0.005\,\xi$, clipped to the range of
        pixels; 8,192 of them, of which 5 % start afresh in a step; the energies of data and samples
        are regularised by $0.01 f^2$. Noise of 0.005 for steps of 0.01 is that of a temperature of
        $0.005^2 / (2 \cdot 0.01) = 1/800$, so that the density within the range is $e^{-800 f}$,
        that of the energy `800 * f` and not of $f$. In units of the energy, the step size is
        $0.005^2 / 2 = 1.25 \cdot 10^{-5}$ and the regularisation $0.01 / 800$; the loss is 800
        times that of $f$, which Adam does not see.

        In use are 20 to 100 steps, 0.01 to 1 times $f^2$, and learning rates from 1e-5 to 3e-4,
        with gradients clipped to a norm where training explodes.

        References:
            Du and Mordatch (2019); Nijkamp et al. (2020), On the anatomy of MCMC-based maximum
            likelihood learning of energy-based models.

        Example:
            >>> import energia as en
            >>> pcd = en.objectives.PCD.deep(low=0.0)
            >>> int(pcd.num_steps), pcd.buffer_size, round(float(pcd.reinit_prob), 2)
            (60, 8192, 0.05)
        """
        langevin = Langevin(step_size=0.005**2 / 2, bounds=(low, high))
        return cls(sampler=langevin, num_steps=60, energy_regularization=0.01 / 800)

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, PCDState]:
        supports, modelled = energy.supports, self.modelled(energy, data)
        moving = [n for n in modelled if supports[n] is None or isinstance(supports[n], Continuous)]
        given = {name: data[name] for name in self.given}
        values = {name: data[name] for name in moving}
        free = _chains.unconstrained(energy, values, given) if moving else {}
        moments = {name: _moments(values) for name, values in free.items()}
        mean = {name: mean for name, (mean, _) in moments.items()}
        scale = {name: scale for name, (_, scale) in moments.items()}
        row_key, fresh_key, kernel_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (self.buffer_size,), 0, rows_in(data))
        kept = {name: data[name][rows] for name in self.given}
        state = PCDState(ReplayBuffer({}), mean, scale)
        chains = self._fresh(energy, state, fresh_key, self.buffer_size)
        buffer = ReplayBuffer({**chains, **kept}, self.buffer_policy)
        kernel = self.kernel(energy)
        if not kernel.keeps():
            return None, PCDState(buffer, mean, scale)

        def begin(chain: Values, given: Values, key: jax.Array) -> Any:
            return kernel.init(conditioned(energy, given), chain, key)

        keys = jax.random.split(kernel_key, self.buffer_size)
        return None, PCDState(buffer, mean, scale, jax.vmap(begin)(chains, kept, keys))

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: PCDState, key: jax.Array
    ) -> tuple[jax.Array, PCDState, dict[str, jax.Array]]:
        *chain_keys, latent_key = jax.random.split(key, 5)
        negatives, state, told = self.advance(energy, batch, state, chain_keys)
        fields = self.fields(energy, batch)
        completed = self.complete(energy, batch, fields, latent_key)
        loss, means = self.contrast(energy, batch, fields, completed, negatives)
        return loss, state, means | told

    def advance(
        self, energy: Energy, batch: Values, state: PCDState, keys: Sequence[jax.Array]
    ) -> tuple[Values, PCDState, dict[str, jax.Array]]:
        """Move as many chains as the batch has rows: where they are, and what they told.

        Takes four keys. No gradient goes through the chains to the energy.
        """
        size = rows_in(batch)
        slot_key, fresh_key, which_key, chain_key = keys
        slots, chains = state.buffer.draw(slot_key, size)
        again = jax.random.bernoulli(which_key, self.reinit_prob, (size,))

        def restart(chains: Values) -> Values:
            fresh = self._fresh(energy, state, fresh_key, size)
            fresh |= {name: batch[name] for name in self.given}
            return jax.vmap(lambda yes, new, old: jax.tree.map(partial(jnp.where, yes), new, old))(
                again, fresh, chains
            )

        chains = jax.lax.cond(jnp.any(again), restart, lambda chains: chains, chains)
        fixed = {name: chains[name] for name in self.given}
        kept = None
        if state.kept is not None:
            kept = jax.tree.map(lambda rows: rows[slots], state.kept), ~again
        states, negatives, told = _chains.run(
            self.kernel(energy),
            _chains.stopped(energy),
            {name: chain for name, chain in chains.items() if name not in fixed},
            fixed,
            self.num_steps,
            jax.random.split(chain_key, size),
            kept,
        )
        places = state.buffer.places(slots, jax.random.fold_in(slot_key, 1))
        buffer = state.buffer.write(places, {**states.position, **fixed})
        if kept is not None:
            kept = jax.tree.map(lambda rows, new: rows.at[places].set(new), state.kept, states)
        return {**negatives, **fixed}, PCDState(buffer, state.mean, state.scale, kept), told

    def _fresh(self, energy: Energy, state: PCDState, key: jax.Array, size: int) -> Values:
        """Starts of new chains, in unconstrained space."""
        real_key, other_key = jax.random.split(key)
        chains: dict[str, Any] = {}
        for index, (name, mean) in enumerate(state.mean.items()):
            noise_key = jax.random.fold_in(real_key, index)
            noise = jax.random.normal(noise_key, (size, *mean.shape), mean.dtype)
            chains[name] = mean + state.scale[name] * noise
        others = [name for name in self.moving(energy) if name not in chains]
        return {**chains, **_chains.fresh(energy, others, other_key, size)}


def _moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of each entry over the rows inside the support; standard where none is.

    A row on a bound, as a black pixel is, lies at infinity in unconstrained space.
    """
    inside = jnp.isfinite(rows)
    some = jnp.any(inside, 0)
    mean = jnp.mean(rows, 0, where=inside)
    scale = jnp.std(rows, 0, where=inside)
    return jnp.where(some, mean, 0), jnp.where(some, scale, 1)
