"""Contrastive divergence: data down, samples up."""

from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_array, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.objectives import _chains
from energia.objectives._latent import posterior
from energia.objectives._objective import (
    Objective,
    Shapes,
    check_continuous,
    registry,
    row_shapes,
    rows_in,
)
from energia.samplers import DiscreteSpace, GradientBased, Kernel


def count(name: str) -> Callable[[Any], jax.Array]:
    """The converter of a number of steps: an array, so that another one compiles nothing."""
    return lambda value: as_array(np.int32(check_count(value, name, 1)))


class Contrastive(Objective):
    r"""What contrastive objectives share: two phases, and the difference of their energies.

    The gradient of the negative log-likelihood is $\nabla_\theta E$ averaged over the data, minus
    its average over the model. The loss is

    $\overline{E(x^+)} - \overline{E(x^-)}
    + \alpha\,(\overline{E(x^+)^2} + \overline{E(x^-)^2})$

    with no gradient through the chains that make $x^-$, which move latent variables too. Where
    latent variables have a closed form given the data, $E$ in it is the free energy: their average
    is taken exactly in both phases. Else they are drawn given the data, by chains of their own.
    """

    sampler: Kernel | None = eqx.field(default=None, converter=_chains.as_kernel, kw_only=True)
    energy_regularization: jax.Array = eqx.field(default=0.0, converter=as_float, kw_only=True)
    latent_sampler: Kernel | None = eqx.field(
        default=None, converter=_chains.as_kernel, kw_only=True
    )
    num_latent_steps: jax.Array = eqx.field(
        default=20, converter=count("num_latent_steps"), kw_only=True
    )

    def __check_init__(self):
        weight = self.energy_regularization
        if is_concrete(weight) and not float(weight) >= 0:
            raise ValueError(f"energy_regularization= must be at least 0, got {weight}")

    def kernel(self, energy: Energy, data: Collection[str]) -> Kernel:
        """The kernel of the chains: the one that was given, else the energy's natural one."""
        if self.sampler is not None:
            return self.sampler
        return _chains.natural_kernel(energy, self.moving(energy, data))

    def moving(self, energy: Energy, data: Collection[str]) -> tuple[str, ...]:
        """The variables that chains move: all that are not given."""
        return tuple(name for name in energy.variables if name not in self.given)

    def check(self, energy: Energy, data: Shapes) -> None:
        kernel = self.kernel(energy, data)
        kernel.check_set()
        if kernel.has(GradientBased) and not kernel.has(DiscreteSpace):
            check_continuous(self, energy, data, f"{type(kernel).__name__} moves along gradients")
        kernel.check(energy, self.moving(energy, data))
        latent = self.latent(energy, data)
        if posterior(energy, latent, data) is None:
            kernel = self._latent_kernel(energy, latent)
            kernel.check_set()
            kernel.check(energy, latent)

    def _latent_kernel(self, energy: Energy, latent: Collection[str]) -> Kernel:
        return self.latent_sampler or _chains.natural_kernel(energy, tuple(latent))

    def complete(self, energy: Energy, batch: Values, key: jax.Array) -> Values:
        """The data, and a draw of what is latent given each row of it."""
        latent, energy = self.latent(energy, batch), _chains.stopped(energy)
        if (closed := posterior(energy, latent, row_shapes(batch))) is not None:
            keys = jax.random.split(key, rows_in(batch))
            return {**batch, **jax.vmap(closed.draw)(keys, batch)}
        start_key, run_key = jax.random.split(key)
        starts = _chains.fresh(energy, latent, start_key, rows_in(batch))
        keys = jax.random.split(run_key, rows_in(batch))
        kernel = self._latent_kernel(energy, latent)
        drawn = _chains.run(kernel, energy, starts, batch, self.num_latent_steps, keys)[1]
        return {**batch, **jax.lax.stop_gradient(drawn)}

    def contrast(
        self, energy: Energy, batch: Values, completed: Values, negatives: Values
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss, and the mean energies of data and samples.

        `completed` is the batch with its latent variables; where they have a closed form they go
        unused, and are not drawn in the compiled step.
        """
        closed = posterior(energy, self.latent(energy, batch), row_shapes(batch))
        if closed is not None:
            energy, completed = closed.free_energy, batch
        negatives = jax.lax.stop_gradient(negatives)
        # one pass over both
        both = {name: jnp.concatenate([rows, negatives[name]]) for name, rows in completed.items()}
        positive, negative = jnp.split(jax.vmap(energy.at)(both), 2)
        gap = jnp.mean(positive) - jnp.mean(negative)
        size = jnp.mean(positive**2) + jnp.mean(negative**2)
        means = {"positives": jnp.mean(positive), "negatives": jnp.mean(negative)}
        return gap + self.energy_regularization * size, means


@registry.register("cd")
class CD(Contrastive):
    r"""Contrastive divergence: the samples are chains of k steps from the data.

    The gradient is $\nabla_\theta E$ averaged over the data, minus its average over what the data
    become in `num_steps` transitions. It is biased for small $k$, towards energies under which the
    chain leaves the data where they are: modes far from all data are not seen. At the truth, a
    kernel that leaves $e^{-E}$ invariant leaves the data's law as it is, and the gradient is zero.

    Args:
        sampler: a Markov kernel, or its name, with its numbers given, as it is not tuned here.
            None: `'langevin'` for continuous variables; `'gibbs'` where all others have known
            conditionals (a Boltzmann machine), else both, each for its own.
        num_steps: $k$, transitions from the data, at least 1.
        energy_regularization: $\alpha$, at least 0: adds $\alpha$ times the mean squares of the
            energies of data and samples, which keeps the energy's free constant bounded.
        latent_sampler: a Markov kernel, or its name, that draws latent variables given the data
            where they have no closed form; None: the natural one, as above.
        num_latent_steps: its transitions, from starts that know nothing of the data, at least 1.
        given: variables that are conditioned on.

    References:
        Hinton (2002), Training products of experts by minimizing contrastive divergence.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> digits = jax.random.bernoulli(jax.random.key(0), 0.3, (200, 6)).astype(float)
        >>> rbm = en.RBM(6, 4, key=jax.random.key(1))
        >>> fit = en.fit(rbm, digits, "cd", key=jax.random.key(2), num_steps=10)
        >>> sorted(fit.history)
        ['gradient_norm', 'loss', 'negatives', 'positives']
    """

    num_steps: jax.Array = eqx.field(default=1, converter=count("num_steps"), kw_only=True)

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, None]:
        return None, None

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        latent_key, chain_key = jax.random.split(key)
        completed = self.complete(energy, batch, latent_key)
        fixed = {name: batch[name] for name in self.given}
        moving = {name: rows for name, rows in completed.items() if name not in fixed}
        frozen = _chains.stopped(energy)
        _, negatives, told = _chains.run(
            self.kernel(energy, batch),
            frozen,
            _chains.unconstrained(frozen, moving, fixed),
            fixed,
            self.num_steps,
            jax.random.split(chain_key, rows_in(batch)),
        )
        loss, means = self.contrast(energy, batch, completed, {**negatives, **fixed})
        return loss, None, means | told
