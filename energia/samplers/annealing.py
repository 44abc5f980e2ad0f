"""Annealing: particles moved along a path, level by level."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, is_concrete
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path, geometric, reference_for, tempering, unconstrained
from energia.samplers._combined import a_count, as_kernel, optional_kernel
from energia.samplers._following import (
    GAIN,
    Numbers,
    check_followed,
    first_numbers,
    next_metric,
    next_step_size,
    with_numbers,
)
from energia.samplers._noise import is_noise_ladder, noised
from energia.samplers._sampler import (
    AlongPath,
    Biased,
    Kernel,
    Minimiser,
    ParticleSampler,
    Starts,
    registry,
)
from energia.samplers.gibbs import Gibbs
from energia.samplers.langevin import MALA, Langevin

DEFAULT_LEVELS = 32


def _steps(value: Any) -> jax.Array:
    steps = a_count(value, "steps_per_level")
    if steps.ndim:
        raise ValueError(f"steps_per_level= must be one number, got shape {steps.shape}")
    return steps


def _annealed_kernel(config: Any) -> Kernel | None:
    return None if config == "langevin" else as_kernel(config, "Annealed")


def _annealing_kernel(config: Any) -> Kernel | None:
    return optional_kernel(config, "SimulatedAnnealing")


@registry.register("annealed_langevin")
class Annealed(ParticleSampler, AlongPath, Biased):
    r"""Annealed sampling: particles moved at each level of a path in turn, from easy to target.

    At each level the kernel moves every particle `steps_per_level` times on the energy of that
    level. The particles begin as exact draws of the first level, where it has them, else as
    starting points. Biased by design: a particle follows the levels with a lag, and no weight makes
    up for it (`en.evaluate.log_partition` has the weights).

    On a path of noise levels, of real variables along `sigma`, noise of the first level is added
    to the starting points; and the name `'langevin'` is annealed Langevin dynamics there, with
    steps of $\epsilon_i = \sigma_i^2 / 10$ in the units of `Langevin`.

    Numbers that the kernel lacks follow the particles: a step size their mean acceptance rate,
    after every step and by less the longer a level lasts, so that each level has its own; an
    inverse mass matrix their variances, after every level. Of a handful of particles this is a bias
    of its own: give the numbers, or take tens. `acceptance_rate` of a draw is its particle's mean
    at the last level.

    Args:
        kernel: what moves the particles, or its name. A vector given for its `step_size` has one
            for each level.
        steps_per_level: steps at each level, at least 1.

    Raises:
        TypeError: when the kernel is none.
        ValueError: when there are no steps, or the kernel lacks another number.

    References:
        Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution.
        Neal (2001), Annealed importance sampling.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> @en.energy(x=en.Real((2,)))
        ... def blurred(x, sigma):
        ...     return 0.5 * jnp.sum(x**2) / (1 + sigma**2)
        >>> path = en.Path(blurred, sigma=jnp.geomspace(10.0, 0.1, 8))
        >>> draws = en.sample(path, "annealed_langevin", key=jax.random.key(0))
        >>> draws["x"].shape
        (4, 1000, 2)
    """

    kernel: Kernel | None = eqx.field(default="langevin", converter=_annealed_kernel)
    steps_per_level: jax.Array = eqx.field(default=10, converter=_steps, kw_only=True)

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or (self.kernel or Langevin()).has(marker)

    def bias(self) -> str:
        own = "annealing in finitely many steps lags behind its levels"
        inner = (self.kernel or Langevin()).bias()
        return own if inner is None else f"{own}; {inner}"

    def along(self, target: Energy | Path, positions: Starts) -> Path:
        path = target
        if not isinstance(path, Path):
            path = geometric(reference_for(path, positions), path, DEFAULT_LEVELS)
        kernel = self._chosen(path)
        if is_noise_ladder(path) and is_concrete(path.levels):
            levels = np.asarray(path.levels)
            if np.any(levels <= 0) or np.any(np.diff(levels) > 0):
                raise ValueError(
                    "Annealed() goes down noise levels, which must be positive and not rise; got "
                    f"{levels.tolist()}"
                )
        kernel.check(path.target, path.variables)
        check_followed(kernel)
        step_size = getattr(kernel, "step_size", None)
        if step_size is not None and step_size.shape not in ((), (path.num_levels,)):
            raise ValueError(
                f"step_size= must be a number, or one for each of {path.num_levels} levels; got "
                f"shape {step_size.shape}"
            )
        return path

    def draw(
        self, target: Energy | Path, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        path = target if isinstance(target, Path) else self.along(target, positions)
        exact = path.exact()
        if exact is not None:
            key, key_first = jax.random.split(key)
            count = len(next(iter(positions.values())))
            drawn = jax.vmap(exact.draw)(jax.random.split(key_first, count))
            positions = {name: drawn[name].astype(x.dtype) for name, x in positions.items()}
        elif is_noise_ladder(path):
            key, key_first = jax.random.split(key)
            positions = noised(positions, path.levels[0], key_first)
        return _anneal(self._chosen(path), path, positions, self.steps_per_level, key)

    def _chosen(self, path: Path) -> Kernel:
        if self.kernel is not None:
            return self.kernel
        levels = path.levels
        return Langevin(step_size=levels**2 / 10) if is_noise_ladder(path) else Langevin()


@registry.register("simulated_annealing")
class SimulatedAnnealing(ParticleSampler, Minimiser):
    r"""Simulated annealing: low points of an energy, by particles that are cooled.

    The kernel samples $E / T$ at each temperature in turn. What comes out are no draws of
    $e^{-E}$: `en.minimize` takes the lowest. Numbers that the kernel lacks follow the particles.

    Args:
        kernel: what moves the particles, or its name; None: `'mala'`, and `'gibbs'` where every
            variable is discrete.
        temperatures: $T$, positive and decreasing, in units of the energy, shape (n,).
        steps_per_level: steps at each temperature, at least 1.

    Raises:
        TypeError: when the kernel is none.
        ValueError: when there are no steps, the temperatures are not positive and decreasing, or
            the kernel lacks another number.

    References:
        Kirkpatrick, Gelatt and Vecchi (1983), Optimization by simulated annealing.

    Example:
        >>> import energia as en
        >>> en.samplers.SimulatedAnnealing("hmc").temperatures.shape
        (100,)
    """

    kernel: Kernel | None = eqx.field(default=None, converter=_annealing_kernel)
    temperatures: jax.Array = eqx.field(
        default_factory=lambda: np.geomspace(10.0, 1e-3, 100), converter=as_float, kw_only=True
    )
    steps_per_level: jax.Array = eqx.field(default=10, converter=_steps, kw_only=True)

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or (self.kernel is not None and self.kernel.has(marker))

    def along(self, target: Energy | Path, positions: Starts) -> Path:
        if isinstance(target, Path):
            raise TypeError(
                f"SimulatedAnnealing cools one energy, and {target!r} is many: give path.target"
            )
        kernel = self._chosen(target)
        kernel.check(target, target.variables)
        check_followed(kernel)
        if isinstance(target, Unconstrained):
            return unconstrained(tempering(target.energy, self.temperatures))
        return tempering(target, self.temperatures)

    def draw(
        self, target: Energy | Path, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        path = target if isinstance(target, Path) else self.along(target, positions)
        return _anneal(self._chosen(path.target), path, positions, self.steps_per_level, key)

    def _chosen(self, target: Energy) -> Kernel:
        if self.kernel is not None:
            return self.kernel
        discrete = [s is not None and s.discrete for s in target.supports.values()]
        return Gibbs() if all(discrete) else MALA()


def _anneal(
    kernel: Kernel, path: Path, positions: Values, steps: jax.Array, key: jax.Array
) -> tuple[Values, dict[str, jax.Array]]:
    """Particles moved at each level in turn, with what the kernel lacks following them."""
    count = len(next(iter(positions.values())))
    given = getattr(kernel, "step_size", None)
    by_level = given is not None and given.ndim == 1

    def split(key: jax.Array, step: Any) -> jax.Array:
        return jax.random.split(jax.random.fold_in(key, step), count)

    def own(numbers: Numbers, index: Any) -> Kernel:
        chosen = with_numbers(kernel, numbers)
        return chosen.replace(step_size=given[index]) if by_level else chosen  # pyright: ignore

    def at_level(index: jax.Array, carry: tuple[Any, Numbers, jax.Array]) -> Any:
        states, numbers, _ = carry
        energy, level_key = path(path.levels[index]), jax.random.fold_in(key, index)

        def renew(state: Any, key: jax.Array) -> Any:
            return own(numbers, index).renew(energy, state, state.position, key)

        def step(t: jax.Array, carry: tuple[Any, Numbers, jax.Array]) -> Any:
            states, numbers, sums = carry
            chosen = own(numbers, index)
            states, info = jax.vmap(lambda state, key: chosen.step(energy, state, key))(
                states, split(level_key, t)
            )
            rates = jnp.broadcast_to(info.get("acceptance_rate", 1.0), (count,))
            # a gain that shrinks, so that few particles do not steer the steps by their own place
            numbers = next_step_size(chosen, numbers, jnp.mean(rates), GAIN / jnp.sqrt(1.0 + t))
            return states, numbers, sums + rates / steps

        states = jax.vmap(renew)(states, split(level_key, steps))
        states, numbers, rates = jax.lax.fori_loop(
            0, steps, step, (states, numbers, jnp.zeros(count))
        )
        return states, next_metric(numbers, states.position), rates

    numbers = first_numbers(kernel, positions)
    first, chosen = path(path.levels[0]), own(numbers, 0)
    states = jax.vmap(lambda x, key: chosen.init(first, x, key))(
        positions, split(key, path.num_levels)
    )
    start = states, numbers, jnp.ones(count)
    states, _, rates = jax.lax.fori_loop(0, path.num_levels, at_level, start)
    return states.position, {"acceptance_rate": rates}
