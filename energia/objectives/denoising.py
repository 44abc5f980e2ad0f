"""Denoising score matching: the score of the model fitted to the score of noised data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, is_concrete
from energia.energies._energy import Energy
from energia.energies._uniform import normal
from energia.objectives._objective import (
    Objective,
    Shapes,
    check_real,
    level_supplied,
    registry,
    rows_in,
)
from energia.samplers._noise import NOISE


@registry.register("dsm")
class DSM(Objective):
    r"""Denoising score matching.

    With $\tilde x = x + \sigma\epsilon$, $\epsilon \sim N(0, I)$, the loss

    $\tfrac12\, \mathbb{E}\, \lVert \nabla E(\tilde x) - \epsilon / \sigma \rVert^2$

    is least where $e^{-E}$ is the density of the noised data: on Gaussian data of covariance $C$ it
    learns $C + \sigma^2 I$, with the value
    $D / 2\sigma^2 - \tfrac12 \mathrm{tr}(C + \sigma^2 I)^{-1}$.

    With a ladder of levels, one is drawn for each row, the energy takes the level as its variable
    `sigma`, and the loss is weighted with $\sigma^2$, so that levels count alike.

    Args:
        sigma: $\sigma$, positive, in the units of the data: one level, or an array of them for an
            energy with a variable `sigma`, which is given the level.
        given: variables that are conditioned on, with no noise added (labels, say).

    References:
        Vincent (2011), A connection between score matching and denoising autoencoders. Song and
        Ermon (2019), Generative modeling by estimating gradients of the data distribution.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.objectives.DSM(sigma=jnp.geomspace(1.0, 0.05, 10)).sigma.shape
        (10,)
    """

    sigma: jax.Array = eqx.field(default=0.1, converter=as_float, kw_only=True)

    def __check_init__(self):
        if self.sigma.ndim > 1 or self.sigma.size == 0:
            raise ValueError(f"sigma= must be a number or a vector, got shape {self.sigma.shape}")
        if is_concrete(self.sigma):
            levels = np.asarray(self.sigma)
            if not np.all((levels > 0) & np.isfinite(levels)):
                raise ValueError(f"sigma= must be positive and finite, got {self.sigma}")

    def supplies(self, energy: Energy) -> tuple[str, ...]:
        return level_supplied(energy)

    def check(self, energy: Energy, data: Shapes) -> None:
        check_real(self, energy, data, "DSM adds Gaussian noise")
        self.free_energy(energy, data)
        if self.sigma.ndim and not self.supplies(energy):
            raise ValueError(
                f"DSM with {self.sigma.size} noise levels needs an energy with a variable "
                f"{NOISE!r}, {energy._formula()} has {energy.variables}: give one level, or write "
                "E(x, sigma)"
            )
        if not self.sigma.ndim and self.supplies(energy):
            raise ValueError(
                f"DSM with one noise level, {self.sigma:.6g}, would teach {energy._formula()} no "
                f"other {NOISE}: give a ladder, DSM(sigma=jnp.geomspace(2.0, 0.1, 16)), or fix the "
                f"level, E.condition({NOISE}={self.sigma:.6g})"
            )

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, None]:
        return None, None

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        modelled, supplied = self.modelled(energy, batch), self.supplies(energy)
        energy = self.free_energy(energy, batch)
        level_key, noise_key = jax.random.split(key)
        # drawn for all rows at once: a key for each would cost more than the numbers
        noises = {
            name: normal(jax.random.fold_in(noise_key, index), batch[name].shape, batch[name].dtype)
            for index, name in enumerate(modelled)
        }
        levels, ladder = self.sigma, self.sigma.ndim > 0
        if ladder:
            levels = jax.random.choice(level_key, self.sigma, (rows_in(batch),))

        def row_loss(row: Values, noise: Values, sigma: jax.Array) -> jax.Array:
            fixed = {**row, **dict.fromkeys(supplied, sigma)}
            noised = {name: row[name] + sigma * noise[name] for name in modelled}
            slope = jax.grad(lambda moving: energy.at({**fixed, **moving}))(noised)
            residual = [jnp.sum((slope[n] - noise[n] / sigma) ** 2) for n in modelled]
            weight = sigma**2 if ladder else 1.0
            return 0.5 * weight * sum(residual, start=jnp.zeros(()))

        axes = 0, 0, 0 if ladder else None
        return jnp.mean(jax.vmap(row_loss, axes)(batch, noises, levels)), None, {}
