"""Hamiltonian Monte Carlo."""

from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from blackjax.mcmc.metrics import LowRankInverseMassMatrix

from energia._types import Values, as_array, as_float, check_count, is_concrete, optional_float
from energia.energies._energy import Energy
from energia.samplers._adaptation import StepSizeTuned
from energia.samplers._blackjax import BlackJAXKernel, euclidean, unadjusted_hmc
from energia.samplers._metric import METRICS
from energia.samplers._sampler import (
    Biased,
    GradientBased,
    VariableLength,
    positive,
    positive_definite,
    registry,
)

InverseMassMatrix = jax.Array | LowRankInverseMassMatrix


def _inverse_mass_matrix(value: Any) -> Any:
    """Numbers as arrays; a low-rank one, from a run that tuned it, with its parts as arrays."""
    if isinstance(value, LowRankInverseMassMatrix):
        return jax.tree.map(as_float, value)
    return optional_float(value)


class _Hamiltonian(BlackJAXKernel, StepSizeTuned, GradientBased):
    tunable = ("step_size", "inverse_mass_matrix")

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    inverse_mass_matrix: InverseMassMatrix | None = eqx.field(
        default=None, converter=_inverse_mass_matrix, kw_only=True
    )
    metric: str = eqx.field(default="auto", static=True, kw_only=True)
    target_acceptance_rate: jax.Array | None = eqx.field(
        default=None, converter=optional_float, kw_only=True
    )

    def __check_init__(self):
        positive(self, "step_size")
        if self.metric not in METRICS:
            raise ValueError(
                f"{type(self).__name__}(metric=...) must be one of {METRICS}, got {self.metric!r}"
            )
        matrix = self.inverse_mass_matrix
        if isinstance(matrix, jax.Array) and matrix.ndim == 1:
            positive(self, "inverse_mass_matrix")
        if isinstance(matrix, jax.Array) and matrix.ndim == 2:
            positive_definite(self, "inverse_mass_matrix")

    def metric_kind(self) -> str:
        return self.metric

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        size, matrix = sum(leaf.size for leaf in position.values()), self.inverse_mass_matrix
        if isinstance(matrix, LowRankInverseMassMatrix):
            matrix = matrix.sigma
        if matrix is not None and matrix.shape not in ((size,), (size, size)):
            raise ValueError(
                f"{type(self).__name__}(inverse_mass_matrix=...) must have shape ({size},) or "
                f"({size}, {size}), for the {size} entries of {sorted(position)} in unconstrained "
                f"space; got {matrix.shape}"
            )
        return super().init(energy, position, key)

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "energy": info.energy,
            "n_steps": jnp.asarray(info.num_integration_steps, jnp.int32),
            "step_size": jnp.asarray(self.step_size),
        }


def _check_fraction(kernel: Any, name: str) -> None:
    value = getattr(kernel, name)
    if is_concrete(value) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) < 1)):
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


class _FixedLength(_Hamiltonian):
    num_integration_steps: jax.Array = eqx.field(default=10, converter=as_array, kw_only=True)
    step_size_jitter: jax.Array = eqx.field(default=0.3, converter=as_float, kw_only=True)

    def __check_init__(self):
        steps = self.num_integration_steps
        if is_concrete(steps) and steps.ndim == 0:
            check_count(steps.item(), "num_integration_steps", 1)
        _check_fraction(self, "step_size_jitter")

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        key_jitter, key = jax.random.split(key)
        jitter = self.step_size_jitter
        factor = jax.random.uniform(key_jitter, (), jitter.dtype, 1 - jitter, 1 + jitter)
        step_size = jnp.asarray(self.step_size) * factor
        return BlackJAXKernel.step(self.replace(step_size=step_size), energy, state, key)


@registry.register("hmc")
class HMC(_FixedLength):
    r"""Hamiltonian Monte Carlo with a fixed number of leapfrog steps.

    Warm-up tunes the step size to the target acceptance rate (dual averaging) and the inverse mass
    matrix to the covariance of the draws (`metric`). Each transition draws its own step size,
    $\epsilon\,\mathrm{Uniform}(1 - j, 1 + j)$: with one length for all, trajectories may come back
    to where they began, and on a Gaussian with a tuned metric all coordinates do so at once.

    Args:
        step_size: of the leapfrog integrator, positive; None: tuned.
        inverse_mass_matrix: shape (n,) for a diagonal or (n, n), over the variables sorted by name
            and flattened, in unconstrained space, or what a run with a low-rank metric tuned; None:
            tuned.
        metric: what is tuned where `inverse_mass_matrix` is None: 'diagonal' (variances), 'dense'
            (covariances, shrunk to the diagonal while draws are few; costs n² a step and n³ a
            transition), 'low_rank' (a diagonal and ten directions, from draws and gradients), or
            'auto': for n up to 32 dense where correlations are strong, else diagonal.
        num_integration_steps: leapfrog steps a transition, at least 1.
        step_size_jitter: $j$, in [0, 1); 0: every transition has the same step size.
        target_acceptance_rate: in (0, 1); None: 0.8, or 0.95 where warm-up meets sharp curvature,
            as of `NUTS`.

    References:
        Duane et al. (1987), Hybrid Monte Carlo. Neal (2011), MCMC using Hamiltonian dynamics
        (random step sizes). Hoffman and Gelman (2014), The No-U-Turn sampler (dual averaging).
        Seyboldt et al. (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher
        divergence (overlapping windows, low-rank metric).

    Example:
        >>> import energia as en
        >>> en.samplers.HMC(num_integration_steps=20).unset()
        ('step_size', 'inverse_mass_matrix')
    """

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.hmc(
            log_density,
            self.step_size,
            euclidean(self.inverse_mass_matrix),
            self.num_integration_steps,
        )


@registry.register("unadjusted_hmc")
class UnadjustedHMC(_FixedLength, Biased):
    r"""Hamiltonian dynamics with no Metropolis step: biased by order $\epsilon^2$.

    Each transition refreshes the momentum, $p \leftarrow \alpha p + \sqrt{1 - \alpha^2}\,\xi$ with
    $\xi \sim N(0, M)$, runs the leapfrog integrator and keeps where it ends; only a trajectory
    that diverges, by an error of the Hamiltonian above 1,000, is left out. On a Gaussian of
    precision $\lambda$, with unit mass and no jitter, the chain's variance is
    $1 / \lambda(1 - \epsilon^2\lambda/4)$; `'hmc'` is exact. It serves where energies are not known
    up to rejections, as scores of a network that is no gradient, and as the peer of `'langevin'`
    with longer moves. `acceptance_rate` is what a Metropolis step would have, and warm-up tunes the
    step size to it: 0.95 leaves variances a quarter too large in one dimension, and less in more.

    Args:
        step_size: $\epsilon$ of the leapfrog integrator, positive; None: tuned.
        inverse_mass_matrix, metric: as of `HMC`.
        num_integration_steps: leapfrog steps a transition, at least 1.
        step_size_jitter: $j$, in [0, 1): each transition has the step size
            $\epsilon\,\mathrm{Uniform}(1 - j, 1 + j)$.
        persistence: $\alpha$, in [0, 1); 0: momenta are drawn afresh. Near 1, with one leapfrog
            step a transition, it is underdamped Langevin dynamics.
        target_acceptance_rate: in (0, 1).

    References:
        Horowitz (1991), A generalized guided Monte Carlo algorithm. Bou-Rabee and Eberle (2023),
        Mixing time guarantees for unadjusted Hamiltonian Monte Carlo. Du et al. (2023), Reduce,
        reuse, recycle: compositional generation with energy-based diffusion models and MCMC.

    Example:
        >>> import energia as en
        >>> print(en.samplers.UnadjustedHMC(step_size=0.1).bias())
        no Metropolis step: biased by order step_size squared
    """

    persistence: jax.Array = eqx.field(default=0.0, converter=as_float, kw_only=True)
    target_acceptance_rate: jax.Array = eqx.field(default=0.95, converter=as_float, kw_only=True)

    def __check_init__(self):
        _check_fraction(self, "persistence")

    def bias(self) -> str:
        return "no Metropolis step: biased by order step_size squared"

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        return self.init(energy, position, key)._replace(momentum=state.momentum)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return unadjusted_hmc(
            log_density,
            self.step_size,
            self.inverse_mass_matrix,
            self.num_integration_steps,
            self.persistence,
        )


@registry.register("nuts")
class NUTS(_Hamiltonian, VariableLength):
    r"""The No-U-Turn sampler: Hamiltonian Monte Carlo that chooses its own trajectory length.

    Warm-up tunes the step size to the target acceptance rate (dual averaging) and the inverse mass
    matrix to the covariance of the draws (`metric`).

    Args:
        step_size: of the leapfrog integrator, positive; None: tuned.
        inverse_mass_matrix: shape (n,) for a diagonal or (n, n), over the variables sorted by name
            and flattened, in unconstrained space, or what a run with a low-rank metric tuned; None:
            tuned.
        metric: what is tuned where `inverse_mass_matrix` is None: 'diagonal' (variances), 'dense'
            (covariances, shrunk to the diagonal while draws are few; costs n² a step and n³ a
            transition), 'low_rank' (a diagonal and ten directions, from draws and gradients), or
            'auto': for n up to 32 dense where correlations are strong, else diagonal.
        target_acceptance_rate: in (0, 1). The step size meets it closely: Stan's 0.8 ends near
            0.89, since it averages over 50 noisy steps alone. None: 0.8, and 0.95 for a chain that
            meets sharp curvature, as a transition tells that goes astray (it diverges, or has an
            acceptance rate below 1e-12) after the first quarter of warm-up. Where none does, 0.8
            needs 0.2 to 0.9 times the gradients of 0.95 for the same effective sample size.
        max_num_doublings: a trajectory has at most 2 to this power leapfrog steps.

    References:
        Hoffman and Gelman (2014), The No-U-Turn sampler. Betancourt (2017), A conceptual
        introduction to Hamiltonian Monte Carlo. Seyboldt et al. (2026), Preconditioning
        Hamiltonian Monte Carlo by minimizing Fisher divergence (overlapping windows, low-rank
        metric).

    Example:
        >>> import energia as en
        >>> en.samplers.NUTS(step_size=0.1).unset()
        ('inverse_mass_matrix',)
    """

    max_num_doublings: int = eqx.field(default=10, static=True, kw_only=True)

    def __check_init__(self):
        check_count(self.max_num_doublings, "max_num_doublings", 1)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        return blackjax.nuts(
            log_density,
            self.step_size,  # pyright: ignore[reportArgumentType]
            euclidean(self.inverse_mass_matrix),
            max_num_doublings=self.max_num_doublings,
        )

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        return {
            **super()._info(state, info),
            "tree_depth": jnp.asarray(info.num_trajectory_expansions, jnp.int32),
            "reached_max_treedepth": jnp.asarray(
                (info.num_trajectory_expansions >= self.max_num_doublings) & ~info.is_turning
            ),
        }
