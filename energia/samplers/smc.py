"""Sequential Monte Carlo."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._reference import check_reference, given_reference
from energia._types import Values, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.paths import LEVEL, Path, geometric, reference_for
from energia.samplers import _blackjax
from energia.samplers._combined import as_kernel
from energia.samplers._following import (
    Numbers,
    check_followed,
    first_numbers,
    next_numbers,
    with_numbers,
)
from energia.samplers._sampler import AlongPath, Kernel, ParticleSampler, Starts, registry
from energia.supports import Support

HUGE = 1e30  # in place of an infinite energy: 0 times infinity is no number
MAX_LEVELS = 1000
LogDensity = Callable[[Values], jax.Array]


def _kernel(config: Any) -> Kernel:
    return as_kernel(config, "SMC")


@registry.register("smc")
class SMC(ParticleSampler, AlongPath):
    r"""Adaptive tempered sequential Monte Carlo: BlackJAX's.

    Particles begin as exact draws of a reference $E_0$. At each level of
    $E_\beta = (1 - \beta) E_0 + \beta E$ they are resampled by their weights and moved by the
    kernel; the next level is where the effective sample size of their weights,
    $(\sum w)^2 / \sum w^2$, has dropped to `target_ess` of their number. At the target they are
    resampled and moved once more, so that draws have equal weights. `draws.stats` has the estimate
    `log_partition` of $\log \int e^{-E}$ of each run, consistent as particles grow in number (they
    choose levels and steps themselves), and `num_levels`.

    Exact as the number of particles grows. Particles of one run share ancestors and are not
    independent: compare runs (`num_chains`). What the reference does not cover is not found.

    Args:
        kernel: what moves the particles, or its name. A step size that it lacks follows the
            acceptance rate, an inverse mass matrix the particles' variances.
        num_mcmc_steps: steps of the kernel at each level, at least 1.
        target_ess: in (0, 1).
        reference: $E_0$, an energy of the target's variables with exact draws; None: the prior,
            where terms of the energy have exact draws of all variables together, else a law fitted
            to the starting points. Give a geometric `en.Path` in place of the energy, or this.

    Raises:
        TypeError: when the kernel is none, or the reference no energy.
        ValueError: when a number is out of range, or the kernel lacks another one.

    References:
        Del Moral, Doucet and Jasra (2006), Sequential Monte Carlo samplers. Buchholz, Chopin and
        Jacob (2021), Adaptive tuning of Hamiltonian Monte Carlo within sequential Monte Carlo.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> posterior = en.Gaussian(jnp.zeros(2), scale=5.0) + en.Ring()
        >>> draws = en.sample(posterior, "smc", key=jax.random.key(0), num_samples=500)
        >>> draws["x"].shape, draws.stats["log_partition"].shape
        ((4, 500, 2), (4, 500))
    """

    kernel: Kernel = eqx.field(default="hmc", converter=_kernel)
    num_mcmc_steps: int = eqx.field(default=10, static=True, kw_only=True)
    target_ess: jax.Array = eqx.field(default=0.5, converter=as_float, kw_only=True)
    reference: Energy | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_count(self.num_mcmc_steps, "num_mcmc_steps", 1)
        if is_concrete(self.target_ess) and not 0 < float(self.target_ess) < 1:
            raise ValueError(f"target_ess= must lie in (0, 1), got {self.target_ess}")
        check_reference(self.reference)

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or self.kernel.has(marker)

    def bias(self) -> str | None:
        return self.kernel.bias()

    def along(self, target: Energy | Path, positions: Starts) -> Path:
        path = target
        if not isinstance(path, Path):
            path = geometric(self._reference(path, positions), path, levels=2)
        if path.name != LEVEL or path.reference is None:
            raise ValueError(
                f"SMC runs along a path from a reference, en.paths.geometric(reference, E), and "
                f"{path!r} is none: 'annealed_langevin' and 'parallel_tempering' take any path"
            )
        if path.exact() is None:
            raise ValueError(
                f"SMC begins with exact draws, and {path.reference._formula()} has none: give "
                "another reference, a Gaussian or a prior of named distributions"
            )
        self.kernel.check(path.target, path.variables)
        check_followed(self.kernel)
        return path

    def _reference(self, target: Energy, positions: Starts) -> Energy:
        if self.reference is None:
            return reference_for(target, positions)
        return given_reference(self.reference, target)

    def draw(
        self, target: Energy | Path, positions: Values, key: jax.Array
    ) -> tuple[Values, dict[str, jax.Array]]:
        path = target if isinstance(target, Path) else self.along(target, positions)
        exact, count = path.exact(), len(next(iter(positions.values())))
        assert exact is not None
        key, key_first = jax.random.split(key)
        drawn = jax.vmap(exact.draw)(jax.random.split(key_first, count))
        particles = {name: drawn[name].astype(x.dtype) for name, x in positions.items()}

        def step(run: _Run) -> _Run:
            return self._level(path, run, jax.random.fold_in(key, run.num_levels))

        zero = as_float(0.0)
        run = _Run(
            _blackjax.smc_init(particles),
            first_numbers(self.kernel, particles),
            zero,
            zero,
            jnp.zeros((), jnp.int32),
        )
        run = jax.lax.while_loop(
            lambda run: (run.state.tempering_param < 1) & (run.num_levels < MAX_LEVELS), step, run
        )
        run = step(run)  # resampling spends the last weights, and moves are at the target
        reached = run.state.tempering_param >= 1
        log_partition = exact.log_partition + run.log_ratio
        return run.state.particles, {
            "log_partition": jnp.where(reached, log_partition, jnp.nan),
            "num_levels": run.num_levels,
            "acceptance_rate": run.acceptance_rate,
        }

    def _level(self, path: Path, run: "_Run", key: jax.Array) -> "_Run":
        kernel, first, last = self.kernel, path(0.0), path(1.0)
        declared = tuple(path.supports.items())

        def log_prior(position: Values) -> jax.Array:
            return -first.at(position)

        def log_likelihood(position: Values) -> jax.Array:
            log_ratio = first.at(position) - last.at(position)
            log_ratio = jnp.where(jnp.isnan(log_ratio), -HUGE, log_ratio)
            return jnp.clip(log_ratio, -HUGE, HUGE)

        def init(position: Values, log_density: LogDensity) -> Any:
            own = with_numbers(kernel, run.numbers)
            return own.init(_Density(log_density, declared), position, key)

        def step(key: jax.Array, state: Any, log_density: LogDensity, **numbers: jax.Array) -> Any:
            energy = _Density(log_density, declared)
            state, info = with_numbers(kernel, numbers).step(energy, state, key)
            return state, info.get("acceptance_rate", as_float(1.0))

        state, info = _blackjax.smc_step(
            key,
            run.state,
            (log_prior, log_likelihood),
            (init, step),
            run.numbers,
            self.num_mcmc_steps,
            self.target_ess,
        )
        rate = jnp.mean(info.update_info)
        numbers = next_numbers(kernel, run.numbers, rate, state.particles, state.weights)
        log_ratio = run.log_ratio + info.log_likelihood_increment
        return _Run(state, numbers, log_ratio, rate, run.num_levels + 1)


class _Run(NamedTuple):
    """A run of sequential Monte Carlo, from level to level."""

    state: Any
    numbers: Numbers
    log_ratio: jax.Array
    acceptance_rate: jax.Array
    num_levels: jax.Array


class _Density(Energy):
    """The energy of a log density that BlackJAX hands out."""

    function: LogDensity = eqx.field(static=True)
    declared: tuple[tuple[str, Support | None], ...] = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        return -self.function(self._bind(args, kwargs))

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.declared)

    def _supports(self) -> Mapping[str, Support | None]:
        return dict(self.declared)
