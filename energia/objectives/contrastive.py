"""Contrastive divergence: data down, samples up."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._mesh import shared
from energia._types import Values, as_float, is_concrete
from energia.energies._energy import Energy
from energia.energies._exact import Exact
from energia.energies._mean_field import MeanField, draw, has_mean_field, mean_field
from energia.objectives import _chains
from energia.objectives._objective import (
    Objective,
    Shapes,
    registry,
    row_shapes,
    rows_in,
    steps,
    support_shapes,
)
from energia.samplers import Kernel


class Contrastive(Objective):
    r"""What contrastive objectives share: two phases, and the difference of their energies.

    The gradient of the negative log-likelihood is $\nabla_\theta E$ averaged over the data, minus
    its average over the model. The loss is

    $\overline{E(x^+)} - \overline{E(x^-)}
    + \alpha\,(\overline{E(x^+)^2} + \overline{E(x^-)^2})$

    with no gradient through the chains that make $x^-$, which move latent variables too. Where
    latent variables have a closed form given the data, $E$ in it is the free energy: their average
    is taken exactly in both phases. Else they are drawn given the data, by chains of their own, or
    have their mean field: then $E(x^+)$ is the variational free energy $E_q[E] - H(q)$.
    """

    sampler: Kernel | None = eqx.field(
        default=None, converter=_chains.optional_kernel, kw_only=True
    )
    energy_regularization: jax.Array = eqx.field(default=0.0, converter=as_float, kw_only=True)
    latent_sampler: Kernel | None = eqx.field(
        default=None, converter=_chains.optional_kernel, kw_only=True
    )
    num_latent_steps: jax.Array = eqx.field(
        default=20, converter=steps("num_latent_steps"), kw_only=True
    )
    mean_field: bool = eqx.field(default=False, static=True, kw_only=True)

    def __check_init__(self):
        weight = self.energy_regularization
        if is_concrete(weight) and not float(weight) >= 0:
            raise ValueError(f"energy_regularization= must be at least 0, got {weight}")

    def kernel(self, energy: Energy) -> Kernel:
        """The kernel of the chains: the one that was given, else the energy's natural one."""
        return self.sampler or _chains.natural_kernel(energy, self.moving(energy))

    def moving(self, energy: Energy) -> tuple[str, ...]:
        """The variables that chains move: all that are not given."""
        return tuple(name for name in energy.variables if name not in self.given)

    def check(self, energy: Energy, data: Shapes) -> None:
        kernel = self.kernel(energy)
        kernel.check(energy, self.moving(energy))
        kernel.check_set()
        latent = self.latent(energy, data)
        if latent and not _known(energy, data):
            if self.mean_field:
                self._check_mean_field(energy, latent, data)
                return
            kernel = self._latent_kernel(energy, latent)
            kernel.check(energy, latent)
            kernel.check_set()

    def _check_mean_field(self, energy: Energy, latent: Sequence[str], data: Shapes) -> None:
        if self.latent_sampler is not None:
            raise ValueError(
                "latent_sampler= draws latent variables and mean_field=True has their means: "
                "give one of them"
            )
        if not has_mean_field(energy, latent, data):
            raise ValueError(
                f"mean_field=True needs an energy that is linear in each entry of {latent}, of "
                f"finitely many values, and says so, as a Boltzmann machine does; of "
                f"{energy._formula()} no mean field is known: leave it out, and they are drawn"
            )

    def _averages(self, energy: Energy, data: Shapes) -> bool:
        """Whether latent variables have their mean field, given the data."""
        return self.mean_field and bool(self.latent(energy, data)) and not _known(energy, data)

    def _latent_kernel(self, energy: Energy, latent: Sequence[str]) -> Kernel:
        return self.latent_sampler or _chains.natural_kernel(energy, latent)

    def fields(self, energy: Energy, batch: Values) -> MeanField | None:
        """The mean fields of latent variables given each row of the data, where they are wanted."""
        if not self._averages(energy, row_shapes(batch)):
            return None
        latent = self.latent(energy, batch)
        return jax.vmap(lambda row: mean_field(energy, latent, row))(batch)

    def complete(
        self, energy: Energy, batch: Values, fields: MeanField | None, key: jax.Array
    ) -> Values:
        """The data, and a draw of what is latent given each row of it."""
        latent, energy = self.latent(energy, batch), _chains.stopped(energy)
        if not latent:
            return batch
        start_key, draw_key = jax.random.split(key)
        keys = jax.random.split(draw_key, rows_in(batch))
        if _known(energy, row_shapes(batch)):
            drawn = jax.vmap(lambda row, key: _posterior(energy, row).draw(key))(batch, keys)
            supports = support_shapes(energy, latent)
            return {**batch, **{n: x.astype(supports[n].dtype) for n, x in drawn.items()}}
        if fields is not None:
            means = jax.lax.stop_gradient(fields.means)
            drawn = jax.vmap(lambda means, key: draw(energy, means, key))(means, keys)
            return {**batch, **drawn}
        starts = _chains.fresh(energy, latent, start_key, rows_in(batch))
        kernel = self._latent_kernel(energy, latent)
        drawn = _chains.run(kernel, energy, starts, batch, self.num_latent_steps, keys)[1]
        return {**batch, **drawn}

    def contrast(
        self,
        energy: Energy,
        batch: Values,
        fields: MeanField | None,
        completed: Values,
        negatives: Values,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss; mean energies of data and samples; the samples' spread, the data's being 1.

        `completed` is the batch with its latent variables; where they have a closed form or their
        mean fields they go unused, and are not drawn in the compiled step.
        """

        def value(row: Values) -> jax.Array:
            free = len(row) < len(energy.variables)
            return -_posterior(energy, row).log_partition if free else energy.at(row)

        negatives = jax.lax.stop_gradient(negatives)
        if fields is not None:
            positive = fields.free_energy
            negative = jax.vmap(energy.at)(negatives)
        else:
            positives = batch if _known(energy, row_shapes(batch)) else completed
            both = {n: jnp.concatenate([rows, negatives[n]]) for n, rows in positives.items()}
            positive, negative = jnp.split(jax.vmap(value)(shared(both)), 2)  # one pass over both
        gap = jnp.mean(positive) - jnp.mean(negative)
        size = jnp.mean(positive**2) + jnp.mean(negative**2)
        means = {"positives": jnp.mean(positive), "negatives": jnp.mean(negative)}
        modelled = self.modelled(energy, batch)
        spread = spread_of({n: negatives[n] for n in modelled}, {n: batch[n] for n in modelled})
        return gap + self.energy_regularization * size, means | {"spread": spread}


def spread_of(rows: Values, others: Values) -> jax.Array:
    """The root mean variance over rows, relative to that of other rows; 1 where these are alike."""

    def variance(rows: Values) -> jax.Array:
        return sum((jnp.sum(jnp.var(x.astype(float), 0)) for x in rows.values()), jnp.zeros(()))

    above, below = variance(rows), variance(others)
    return jnp.where(below > 0, jnp.sqrt(above / jnp.where(below > 0, below, 1)), 1.0)


def _posterior(energy: Energy, values: Values) -> Exact:
    """Latent variables given all others: their draws, and minus the free energy."""
    exact = energy._exact(values)
    assert exact is not None
    return exact


def _known(energy: Energy, data: Shapes) -> bool:
    """Whether the variables that the data lacks have a closed form given the data."""
    return bool(eqx.filter_eval_shape(lambda row: energy._exact(row) is not None, dict(data)))


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
        mean_field: whether such latent variables have their mean field in place of draws, as is
            usual for a deep Boltzmann machine: what is learned is a lower bound of the likelihood,
            from which the energy is drawn towards posteriors near to independent ones.
        given: variables that are conditioned on.

    References:
        Hinton (2002), Training products of experts by minimizing contrastive divergence.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> digits = jax.random.bernoulli(jax.random.key(0), 0.3, (200, 6)).astype(float)
        >>> rbm = en.RBM(6, 4, key=jax.random.key(1))
        >>> fit = en.fit(rbm, digits, "cd", key=jax.random.key(2), num_steps=10)
        >>> sorted(fit.history)
        ['gradient_norm', 'loss', 'negatives', 'positives', 'spread']
    """

    num_steps: jax.Array = eqx.field(default=1, converter=steps("num_steps"), kw_only=True)

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, None]:
        return None, None

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        latent_key, chain_key = jax.random.split(key)
        fields = self.fields(energy, batch)
        completed = self.complete(energy, batch, fields, latent_key)
        fixed = {name: batch[name] for name in self.given}
        moving = {name: rows for name, rows in completed.items() if name not in fixed}
        frozen = _chains.stopped(energy)
        _, negatives, told = _chains.run(
            self.kernel(energy),
            frozen,
            _chains.unconstrained(frozen, moving, fixed),
            fixed,
            self.num_steps,
            jax.random.split(chain_key, rows_in(batch)),
        )
        loss, means = self.contrast(energy, batch, fields, completed, {**negatives, **fixed})
        return loss, None, means | told
