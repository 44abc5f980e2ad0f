"""Generation from noise, level by level, each given its noisier neighbour."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, is_concrete
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.samplers._combined import a_count, class_name, optional_kernel
from energia.samplers._noise import NOISE, is_noise_ladder, noised
from energia.samplers._sampler import (
    AlongPath,
    Biased,
    Kernel,
    ParticleSampler,
    Starts,
    registry,
)
from energia.supports import Positive, Real, Support


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


def _kernel(config: Any) -> Kernel | None:
    return optional_kernel(config, "ReverseDiffusion")


def _levels(values: Any) -> jax.Array | None:
    return None if values is None else as_float(values, "levels")


def _count(value: Any) -> jax.Array:
    return a_count(value, "num_steps")


@registry.register("reverse_diffusion")
class ReverseDiffusion(ParticleSampler, AlongPath, Biased):
    r"""The reverse chain of conditionals of an energy $E(x, \sigma)$ learned at many noise levels.

    A particle begins at the noisiest level, and moves for $i = L - 1, \dots, 0$ on to a draw of
    what it was with less noise,

    $p(x_i \mid x_{i+1}) \propto \exp(-E(x_i, \sigma_i) - \lVert x_{i+1} - x_i \rVert^2 / 2 s_i^2)$,
    $s_i^2 = \sigma_{i+1}^2 - \sigma_i^2$.

    With no kernel that is ancestral sampling, by the normal law that the conditional tends to for
    close levels,

    $x_i = x_{i+1} - s_i^2 \nabla E(x_{i+1}, \sigma_{i+1}) + (\sigma_i / \sigma_{i+1})\, s_i\, \xi$,

    one gradient a level. It does not depend on whether noise is thought of as added
    (variance-exploding) or data as shrunk beside it (variance-preserving,
    $\tilde x = x / \sqrt{1 + \sigma^2}$): in the other coordinates it is the update of a denoising
    diffusion model. With a kernel, as diffusion recovery likelihood trains it, `num_steps`
    transitions draw from the conditional itself, from $x_{i+1}$ on.

    Where $e^{-E(\cdot, \sigma_i)}$ is the density of the data with noise of level $\sigma_i$, and
    levels are many, the particle ends as a draw of the data with the noise of the lowest level.
    A composition of such energies is at no level but the lowest the noised density of what the
    composition says, and then the chain follows the composition only roughly; kernels that are run
    to equilibrium at each level, `Annealed('hmc')`, do better. Biased: levels are finitely many.

    Args:
        kernel: a Markov kernel for $u = (x_i - x_{i+1}) / s_i$ with its numbers given, or its name;
            None: ancestral sampling.
        num_steps: transitions of the kernel at each level, at least 1.
        levels: $\sigma_0 < \dots < \sigma_L$, positive, shape (L + 1,), for an energy that is no
            path; None: those of the path.
        mean: by variable, the mean of the normal law at the noisiest level; None: particles begin
            as exact draws of that level, where it has them, else as starting points with its noise.
        scale: by variable, the standard deviations of that law, where `mean` is given.

    Raises:
        TypeError: when what moves particles is no kernel.
        ValueError: when the path is none of falling noise levels, or there are no levels.

    References:
        Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (2021), Score-based generative modeling
        through stochastic differential equations (appendix F, ancestral sampling). Ho, Jain and
        Abbeel (2020), Denoising diffusion probabilistic models. Gao, Song, Poole, Wu and Kingma
        (2021), Learning energy-based models by diffusion recovery likelihood.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> @en.energy(x=en.Real((2,)))
        ... def blurred(x, sigma):
        ...     return 0.5 * jnp.sum(x**2) / (1 + sigma**2)
        >>> path = en.Path(blurred, sigma=jnp.geomspace(10.0, 0.1, 100))
        >>> draws = en.sample(path, "reverse_diffusion", key=jax.random.key(0))
        >>> draws["x"].shape
        (4, 1000, 2)
    """

    kernel: Kernel | None = eqx.field(default=None, converter=_kernel)
    levels: jax.Array | None = eqx.field(default=None, converter=_levels, kw_only=True)
    mean: Values | None = eqx.field(default=None, kw_only=True)
    scale: Values | None = eqx.field(default=None, kw_only=True)
    num_steps: jax.Array = eqx.field(default=30, converter=_count, kw_only=True)

    def __check_init__(self):
        if (self.mean is None) != (self.scale is None):
            raise ValueError("ReverseDiffusion takes mean= and scale= together")
        if self.levels is not None:
            _check_levels(self.levels, "ReverseDiffusion(levels=...)")

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or (self.kernel is not None and self.kernel.has(marker))

    def bias(self) -> str:
        if self.kernel is None:
            return (
                "ancestral sampling takes each level for a normal law given its noisier neighbour"
            )
        return "each level is drawn by a chain of finitely many steps from its noisier neighbour"

    def supports(self) -> dict[str, Support]:
        shapes = {name: jnp.shape(mean) for name, mean in (self.mean or {}).items()}
        return {NOISE: Positive(), **{name: Real(shape) for name, shape in shapes.items()}}

    def along(self, target: Energy | Path, positions: Starts) -> Energy | Path:
        if isinstance(target, Path):
            if self.levels is not None:
                raise ValueError(
                    "ReverseDiffusion(levels=...) stands beside the levels of the path: give one"
                )
            if not is_noise_ladder(target):
                inner = target.energy
                inner = inner.energy if isinstance(inner, Unconstrained) else inner
                told = ", ".join(f"{name!r}: {inner.supports[name]}" for name in target.variables)
                raise ValueError(
                    "ReverseDiffusion runs down noise levels of real variables, "
                    f"en.Path(E, {NOISE}=...); got {target!r} of {told}"
                )
            _check_levels(target.levels, f"en.Path(E, {NOISE}=...)", falling=True)
        elif self.levels is None:
            raise ValueError(
                "ReverseDiffusion runs down noise levels, and one energy has none: give "
                f"en.Path(E, {NOISE}=...), from the noisiest to the least"
            )
        if self.kernel is not None:
            if missing := self.kernel.unset():
                raise ValueError(
                    f"ReverseDiffusion does not tune {class_name(self.kernel)}: give it {missing}"
                )
            energy = target.target if isinstance(target, Path) else target
            self.kernel.check(energy, [name for name in energy.variables if name != NOISE])
        return target

    def draw(
        self, target: Energy | Path, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        """One draw for each of the positions; of which, given `mean`, only the number matters."""
        levels = target.levels[::-1] if isinstance(target, Path) else self.levels
        assert levels is not None
        inner = target.energy if isinstance(target, Path) else target
        energy = inner.energy if isinstance(inner, Unconstrained) else inner
        start_key, run_key = jax.random.split(key)
        x = self._begin(target, positions, levels[-1], start_key)
        above = len(levels) - 1
        count = len(next(iter(positions.values())))

        def descend(t: jax.Array, carry: tuple[Values, jax.Array]) -> Any:
            x, rates = carry
            sigma, noisier = levels[above - 1 - t], levels[above - t]
            keys = jax.random.split(jax.random.fold_in(run_key, t), count)
            one = self._ancestral if self.kernel is None else self._by_kernel
            x, rate = jax.vmap(lambda x, key: one(energy, x, sigma, noisier, key))(x, keys)
            return x, rates + rate / above

        x, rates = jax.lax.fori_loop(0, above, descend, (x, jnp.zeros(count)))
        names = target.variables
        if NOISE in names:
            x = {**x, NOISE: jnp.full(count, levels[0])}
            if isinstance(inner, Unconstrained):
                x = jax.vmap(inner.unconstrain)(x)
        return {name: x[name] for name in names}, {"acceptance_rate": rates}

    def _begin(
        self, target: Energy | Path, positions: Values, sigma: jax.Array, key: jax.Array
    ) -> Values:
        """Particles at the noisiest level."""
        count = len(next(iter(positions.values())))
        if self.mean is None or self.scale is None:
            exact = target.exact() if isinstance(target, Path) else None
            if exact is not None:
                return jax.vmap(exact.draw)(jax.random.split(key, count))
            own = {name: x for name, x in positions.items() if name != NOISE}
            return noised(own, sigma, key)
        keys = jax.random.split(key, len(self.mean))
        return {
            name: mean
            + self.scale[name] * jax.random.normal(subkey, (count, *mean.shape), mean.dtype)
            for (name, mean), subkey in zip(self.mean.items(), keys, strict=True)
        }

    def _ancestral(
        self, energy: Energy, noisy: Values, sigma: jax.Array, above: jax.Array, key: jax.Array
    ) -> tuple[Values, jax.Array]:
        slope = jax.grad(_at(energy, above).at)(noisy)
        variance = above**2 - sigma**2
        mean = {name: x - variance * slope[name] for name, x in noisy.items()}
        return noised(mean, sigma / above * jnp.sqrt(variance), key), jnp.ones(())

    def _by_kernel(
        self, energy: Energy, noisy: Values, sigma: jax.Array, above: jax.Array, key: jax.Array
    ) -> tuple[Values, jax.Array]:
        """A draw at a level, given the one above, and the mean acceptance rate."""
        kernel = self.kernel
        assert kernel is not None
        target = Tethered(_at(energy, sigma), noisy, jnp.sqrt(above**2 - sigma**2))
        start_key, step_key = jax.random.split(key)
        start = {name: jnp.zeros_like(value) for name, value in noisy.items()}
        state = kernel.init(target, start, start_key)

        def step(t: jax.Array, carry: Any) -> Any:
            state, info = kernel.step(target, carry[0], jax.random.fold_in(step_key, t))
            return state, carry[1] + info.get("acceptance_rate", 1.0) / self.num_steps

        state, rate = jax.lax.fori_loop(0, self.num_steps, step, (state, as_float(0.0)))
        return target.place(state.position), rate


def _at(energy: Energy, sigma: jax.Array) -> Energy:
    return energy.condition(**{NOISE: sigma}) if NOISE in energy.variables else energy


def _check_levels(levels: jax.Array, what: str, falling: bool = False) -> None:
    if levels.ndim != 1 or levels.size < 2:
        raise ValueError(f"{what} must be a vector of two levels at least, got {levels.shape}")
    if is_concrete(levels):
        values = np.asarray(levels)
        steps = np.diff(-values if falling else values)
        if not (np.all(np.isfinite(values)) and np.all(values > 0) and np.all(steps > 0)):
            order = "largest to the smallest" if falling else "smallest to the largest"
            raise ValueError(
                f"{what} must be positive noise levels that differ, in order from the {order}; got "
                f"{values.tolist()}"
            )
