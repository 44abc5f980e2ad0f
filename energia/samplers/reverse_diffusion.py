"""Generation from noise, level by level, each given its noisier neighbour."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import Values, as_array, as_float
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.samplers._combined import as_kernel
from energia.samplers._sampler import Biased, Kernel, ParticleSampler
from energia.supports import Positive, Real, Support

LEVEL = "sigma"


class Tethered(Energy):
    r"""$E(c + su) + \tfrac12 \lVert u \rVert^2$: of what was noised to $c$ with the deviation $s$.

    In these coordinates a step of one size serves every noise level.
    """

    energy: Energy
    centre: Values
    scale: jax.Array

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs)
        tether = sum((jnp.sum(u**2) for u in values.values()), start=jnp.zeros(()))
        return self.energy.at(self.place(values)) + 0.5 * tether

    @property
    def variables(self) -> tuple[str, ...]:
        return self.energy.variables

    def _supports(self) -> Mapping[str, Support]:
        return {name: Real(jnp.shape(value)) for name, value in self.centre.items()}

    def place(self, values: Values) -> Values:
        """From these coordinates to the energy's."""
        return {name: self.centre[name] + self.scale * u for name, u in values.items()}


class ReverseDiffusion(ParticleSampler, Biased):
    r"""The reverse chain of conditionals of an energy $E(x, \sigma)$ learned at many noise levels.

    A particle begins at the noisiest level $\sigma_L$ as a draw of a normal law. For
    $i = L - 1, \dots, 0$ it moves on to a draw of

    $p(x_i \mid x_{i+1}) \propto \exp(-E(x_i, \sigma_i) - \lVert x_{i+1} - x_i \rVert^2 / 2 s_i^2)$,
    $s_i^2 = \sigma_{i+1}^2 - \sigma_i^2$,

    by `num_steps` transitions from $x_{i+1}$. Where $e^{-E(\cdot, \sigma_i)}$ is the density of the
    data with noise of level $\sigma_i$, and chains are long, the particle ends as a draw of the
    data with the noise of the lowest level. Biased: chains are finite.

    Args:
        kernel: a Markov kernel for $u = (x_i - x_{i+1}) / s_i$, with its numbers given.
        levels: $\sigma_0 < \dots < \sigma_L$, shape (L + 1,).
        mean: by variable, the mean of the normal law at the noisiest level.
        scale: by variable, its standard deviations.
        num_steps: transitions at each level, at least 1.

    References:
        Gao, Song, Poole, Wu and Kingma (2021), Learning energy-based models by diffusion recovery
        likelihood.
    """

    kernel: Kernel = eqx.field(converter=lambda kernel: as_kernel(kernel, "ReverseDiffusion"))
    levels: jax.Array = eqx.field(converter=as_float, kw_only=True)
    mean: Values = eqx.field(kw_only=True)
    scale: Values = eqx.field(kw_only=True)
    num_steps: jax.Array = eqx.field(default=30, converter=as_array, kw_only=True)

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or self.kernel.has(marker)

    def bias(self) -> str:
        return "each level is drawn by a chain of finitely many steps from its noisier neighbour"

    def supports(self) -> dict[str, Support]:
        shapes = {name: jnp.shape(mean) for name, mean in self.mean.items()}
        return {LEVEL: Positive(), **{name: Real(shape) for name, shape in shapes.items()}}

    def draw(
        self, target: Energy, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        """One draw for each of the positions, of which only the number matters."""
        energy = target.energy if isinstance(target, Unconstrained) else target
        count = len(next(iter(positions.values())))

        def particle(key: jax.Array) -> tuple[Values, jax.Array]:
            start_key, run_key = jax.random.split(key)
            keys = jax.random.split(start_key, len(self.mean))
            x = {
                name: mean + self.scale[name] * jax.random.normal(subkey, mean.shape, mean.dtype)
                for (name, mean), subkey in zip(self.mean.items(), keys, strict=True)
            }
            count = len(self.levels) - 1

            def descend(t: jax.Array, carry: tuple[Values, jax.Array]) -> Any:
                x, rate = carry
                level = count - 1 - t
                x, info = self._one_level(energy, x, level, jax.random.fold_in(run_key, t))
                return x, rate + jnp.mean(info.get("acceptance_rate", jnp.ones(()))) / count

            x, rate = jax.lax.fori_loop(0, count, descend, (x, jnp.zeros(())))
            if LEVEL in energy.variables:
                x = {**x, LEVEL: self.levels[0]}
            if isinstance(target, Unconstrained):
                x = target.unconstrain(x)
            return {name: x[name] for name in target.variables}, rate

        drawn, rates = jax.vmap(particle)(jax.random.split(key, count))
        return drawn, {"acceptance_rate": rates}

    def _one_level(
        self, energy: Energy, noisy: Values, level: jax.Array, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        """A draw at a level, given the one above."""
        sigma, above = self.levels[level], self.levels[level + 1]
        if LEVEL in energy.variables:
            energy = energy.condition(**{LEVEL: sigma})
        target = Tethered(energy, noisy, jnp.sqrt(above**2 - sigma**2))
        start_key, step_key = jax.random.split(key)
        start = {name: jnp.zeros_like(value) for name, value in noisy.items()}
        state = self.kernel.init(target, start, start_key)

        def step(t: jax.Array, carry: Any) -> Any:
            return self.kernel.step(target, carry[0], jax.random.fold_in(step_key, t))

        info = jax.eval_shape(lambda: step(jnp.int32(0), (state, None))[1])
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)
        state, info = jax.lax.fori_loop(0, self.num_steps, step, (state, nothing))
        return target.place(state.position), info
