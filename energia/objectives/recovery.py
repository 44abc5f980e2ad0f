"""Diffusion recovery likelihood: each noise level learned given its noisier neighbour."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.energies._trainable import constant
from energia.objectives import _chains
from energia.objectives._objective import (
    Objective,
    Shapes,
    check_real,
    level_supplied,
    registry,
    rows_in,
    steps,
)
from energia.samplers import MALA, Kernel, ReverseDiffusion
from energia.samplers._noise import NOISE, noised
from energia.samplers.reverse_diffusion import Tethered


class Noisiest(eqx.Module):
    """The normal law of the data at the highest noise level, from which generation starts."""

    mean: Values = constant()
    scale: Values = constant()


@registry.register("drl")
class DRL(Objective):
    r"""Diffusion recovery likelihood.

    On a geometric ladder $\sigma_0 < \dots < \sigma_L$ the energy at each level but the last is
    learned by the likelihood of the data given their noisier selves. With $x_i$ the data noised to
    the level $\sigma_i$ and $x_{i+1} = x_i + s_i \epsilon$,
    $s_i^2 = \sigma_{i+1}^2 - \sigma_i^2$,

    $p(x_i \mid x_{i+1}) \propto
    \exp(-E(x_i, \sigma_i) - \lVert x_{i+1} - x_i \rVert^2 / 2 s_i^2)$,

    which is far easier to sample than $e^{-E}$: nearly normal around $x_{i+1}$ where the ladder is
    fine. The loss is $\overline{E(x_i, \sigma_i)} - \overline{E(\hat x_i, \sigma_i)}$, where
    $\hat x_i$ ends a chain of `num_steps` from $x_{i+1}$, with no gradient through it, at a level
    drawn for each row. After training $e^{-E(\cdot, \sigma_i)}$ is, up to a factor, the density of
    the data with noise of that level.

    The learned chain of conditionals is the model. $e^{-E(\cdot, \sigma_0)}$ alone is as good a
    density as the network is at that level: on two moons, a network that was half a nat below the
    data's law at its lowest level after 1,200 steps was so by `'dsm'` with the same levels, too.
    Nothing bounds the energies: Adam at 2e-3 made them explode there, with a Metropolis step or
    without, with clipped gradients and with batches of 1,024; at 5e-4 it did not.

    The chains run in $u = (x_i - x_{i+1}) / s_i$, so that one step size serves all levels: the
    curvature in $u$ lies between 1 and $(\sigma_{i+1} / \sigma_i)^2$.

    Args:
        sampler: a Markov kernel for $u$, or its name, with its numbers given.
        num_levels: $L$, noise levels that the energy learns, at least 1; an energy with no variable
            `sigma` learns one.
        num_steps: transitions of a chain, at least 1.
        sigma_min: $\sigma_0$, positive, in the units of the data.
        sigma_max: $\sigma_L$, above `sigma_min`: several times as wide as the data.
        given: variables that are conditioned on, with no noise added (labels, say).

    References:
        Gao, Song, Poole, Wu and Kingma (2021), Learning energy-based models by diffusion recovery
        likelihood. Bengio, Yao, Alain and Vincent (2013), Generalized denoising auto-encoders as
        generative models.

    Example:
        >>> import energia as en
        >>> [round(float(s), 3) for s in en.objectives.DRL(num_levels=2).levels]
        [0.03, 0.3, 3.0]
    """

    sampler: Kernel = eqx.field(
        default_factory=lambda: MALA(step_size=0.1), converter=_chains.as_kernel, kw_only=True
    )
    num_levels: int = eqx.field(default=6, static=True, kw_only=True)
    num_steps: jax.Array = eqx.field(default=30, converter=steps("num_steps"), kw_only=True)
    sigma_min: jax.Array = eqx.field(default=0.03, converter=as_float, kw_only=True)
    sigma_max: jax.Array = eqx.field(default=3.0, converter=as_float, kw_only=True)

    def __check_init__(self):
        check_count(self.num_levels, "num_levels", 1)
        low, high = self.sigma_min, self.sigma_max
        if is_concrete(low) and is_concrete(high) and not 0 < float(low) < float(high) < np.inf:
            raise ValueError(f"DRL needs 0 < sigma_min < sigma_max, got {low} and {high}")

    @property
    def levels(self) -> jax.Array:
        """The ladder, shape (num_levels + 1,), ascending."""
        share = jnp.arange(self.num_levels + 1) / self.num_levels
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** share

    def supplies(self, energy: Energy) -> tuple[str, ...]:
        return level_supplied(energy)

    def check(self, energy: Energy, data: Shapes) -> None:
        check_real(self, energy, data, "DRL adds Gaussian noise")
        self.free_energy(energy, data)
        if self.num_levels > 1 and not self.supplies(energy):
            raise ValueError(
                f"DRL with {self.num_levels} noise levels needs an energy with a variable "
                f"{NOISE!r}, {energy._formula()} has {energy.variables}: write E(x, sigma), or "
                "learn one level, DRL(num_levels=1)"
            )
        self.sampler.check_set()

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[Noisiest, None]:
        rows = {name: data[name] for name in self.modelled(energy, data)}
        mean = {name: jnp.mean(values, 0) for name, values in rows.items()}
        top = self.sigma_max**2
        scale = {name: jnp.sqrt(jnp.var(values, 0) + top) for name, values in rows.items()}
        return Noisiest(mean, scale), None

    def loss(
        self, energy: Energy, learned: Noisiest, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        modelled, supplied = self.modelled(energy, batch), self.supplies(energy)
        energy, levels = self.free_energy(energy, batch), self.levels
        frozen = _chains.stopped(energy)

        def recover(row: Values, key: jax.Array) -> Any:
            level_key, clean_key, noisy_key, chain_key = jax.random.split(key, 4)
            level = jax.random.randint(level_key, (), 0, self.num_levels)
            sigma, scale = levels[level], jnp.sqrt(levels[level + 1] ** 2 - levels[level] ** 2)
            clean = noised({name: row[name] for name in modelled}, sigma, clean_key)
            noisy = noised(clean, scale, noisy_key)
            fixed = {name: row[name] for name in self.given} | dict.fromkeys(supplied, sigma)
            target = Tethered(frozen.condition(**fixed) if fixed else frozen, noisy, scale)
            start = {name: jnp.zeros_like(value) for name, value in noisy.items()}
            end, info = _chains.chain(self.sampler, target, start, self.num_steps, chain_key)
            return {**clean, **fixed}, {**target.place(end.position), **fixed}, info

        keys = jax.random.split(key, rows_in(batch))
        positives, negatives, info = jax.vmap(recover)(batch, keys)
        negatives = jax.lax.stop_gradient(negatives)
        up, down = (jnp.mean(jax.vmap(energy.at)(v)) for v in (positives, negatives))
        return up - down, None, {"positives": up, "negatives": down} | _chains.told(info)

    def sampler_for(self, energy: Energy, learned: Noisiest) -> ReverseDiffusion:
        return ReverseDiffusion(
            self.sampler,
            levels=self.levels,
            mean=learned.mean,
            scale=learned.scale,
            num_steps=self.num_steps,
        )
