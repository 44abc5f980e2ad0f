"""The verb `log_partition`."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from energia._mesh import check_mesh
from energia._types import check_count, check_key, strong_tree
from energia.energies._energy import Energy
from energia.evaluate._annealer import path_to, prepare
from energia.evaluate._bridge import check_known_supports, target_of
from energia.evaluate._estimate import LogPartition, warn
from energia.evaluate._exact import Impossible, exact
from energia.evaluate._sides import backward, bracket, forward, given_draws
from energia.evaluate._stepping import from_swaps, stepping_stones
from energia.paths import Path
from energia.samplers._sampler import Kernel

METHODS = ("auto", "exact", "ais", "smc", "raise", "bracket", "tempering")


def log_partition(
    energy: Energy | Path,
    method: str = "auto",
    *,
    key: jax.Array | None = None,
    reference: Energy | None = None,
    kernel: str | Kernel = "auto",
    num_chains: int = 128,
    num_steps: int = 1000,
    levels: Any = None,
    draws: Any = None,
    mesh: Mesh | None = None,
) -> LogPartition:
    r"""Estimate $\log Z$, with $Z = \int e^{-E}$ over all variables, a sum over discrete ones.

    - `'exact'`: a known normaliser; else sums over states and closed forms, as `marginalize` has
      them; else quadrature, for at most two continuous entries, with its error.
    - `'ais'`: annealed importance sampling. Chains begin at exact draws of a reference, and go
      through `num_steps` levels to the target with a step of a kernel at each. The weights'
      mean is an unbiased estimate of Z, so that its logarithm is at most $\log Z$ on average:
      a lower side.
    - `'smc'`: the same, with chains resampled where fewer than half of the weights are effective.
    - `'raise'`: the reverse, from draws of the target to the reference: the mean weight is an
      unbiased estimate of 1/Z, which gives the upper side. The draws are `draws=`, or exact where
      they are known, or else ends of another run of 'smc'; then the side is an upper one as far
      as these have found the target's mass.
    - `'bracket'`: both. The value is the mean of the two sides, whose biases are opposite.
    - `'tempering'`: parallel tempering, with a stepping stone at each level: between neighbours
      the ratio of their Z comes from the draws of both (Bennett's estimate). Where modes are far
      apart, swaps go on mixing where chains of 'ais' go one way once.
    - `'auto'`: 'exact' where it is possible and can be trusted, else 'bracket'.

    A pilot run of other chains comes first ('tempering' has a warm-up). It spaces the levels such
    that from each to the next the same share of weights stays effective, and tunes the kernel at
    each of them; what it sets is fixed before the first weighted chain starts. Where a variable
    after the first has a closed form given the others (the hidden layer of a Boltzmann machine),
    weights are made of the free energy without it.

    Args:
        energy: an energy of variables whose supports are known, or a path from an energy with exact
            draws to the target.
        method: see above.
        key: a typed JAX key; needed but for 'exact'.
        reference: an energy of the same variables with exact draws, where the path begins. None:
            the terms of the energy that have exact draws of all variables (a prior of named
            distributions); else a normal law of the real variables and independent laws of the
            discrete ones, fitted to where a pilot run from a standard normal ends.
        kernel: what moves the chains, by name or configured: must leave $e^{-E}$ invariant. 'auto':
            `'hmc'` for continuous variables, `'gibbs'` for discrete ones (where they are many and
            have no closed forms `'gibbs_with_gradients'`), both in turn for both.
            For 'tempering' also a configured `ParallelTempering`.
        num_chains: how many weights, at least 2; the pilot run has as many chains. For 'tempering'
            how many replicas in all, 16 in a run or as many as it is configured with; at least
            four runs.
        num_steps: levels after the first, at least 1; another number compiles nothing. For
            'tempering' the steps of a run, after as many of warm-up.
        levels: in their place: values of the path's variable from the first to the last, for an
            energy inverse temperatures from 0 to 1.
        draws: for 'raise' and 'bracket', draws of the target: `Draws`, or arrays by variable name
            with a leading axis over rows (or one array, where there is one variable); of more than
            `num_chains`, that many far apart are taken, and counted as independent. For 'tempering'
            the `Draws` of a `ParallelTempering`: nothing is run.
        mesh: devices to share the chains out to, `jax.make_mesh((8,), ("chains",))`: CPU devices,
            GPUs, or those of all processes that `jax.distributed` joins, of which each calls
            `log_partition` alike and gets the estimate. `num_chains` is a multiple of their number
            (so are the rows of `draws`, where they are fewer). The random numbers of a chain do not
            depend on the devices, and what is seen of all chains together (spacing, tuning,
            resampling) each device computes from all of them: the estimate is that of one device
            up to the rounding of programs for other numbers of chains. Long trajectories, as those
            of 'hmc' between modes, make much of it: estimates then differ by about their error.
            'auto' needs a mesh only where 'exact' is impossible. None: one device.

    Returns:
        A `LogPartition`; an `EvaluationWarning` tells why it cannot be trusted, where it cannot.

    Raises:
        TypeError, ValueError: for arguments that do not fit, a method that is impossible, a kernel
            that is biased, weights of which none is finite, and a mesh that cannot share the
            chains out evenly, or is given where none run.

    References:
        Neal (2001), Annealed importance sampling. Salakhutdinov and Murray (2008), On the
        quantitative analysis of deep belief networks. Burda, Grosse and Salakhutdinov (2015),
        Accurate and conservative estimates of MRF log-likelihood using reverse annealing. Grosse,
        Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte
        Carlo. Zhou, Johansen and Aston (2016), Toward automatic model comparison (spacing).
        Bennett (1976), Efficient estimation of free energy differences from Monte Carlo data.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> en.evaluate.log_partition(en.DoubleWell(3.0))  # quadrature
        LogPartition(log Z = 0.114006 ± 1e-06 in [0.114005, 0.114007] by quadrature)
        >>> result = en.evaluate.log_partition(
        ...     en.DoubleWell(3.0), "ais", key=jax.random.key(0), num_steps=100,
        ...     reference=en.Gaussian(0.0))
        >>> abs(result.value - 0.114) < 4 * result.stderr
        True
    """
    result = log_partition_of(
        energy,
        method,
        key=key,
        reference=reference,
        kernel=kernel,
        num_chains=num_chains,
        num_steps=num_steps,
        levels=levels,
        draws=draws,
        mesh=mesh,
    )
    warn(result.problems)
    return result


def log_partition_of(
    energy: Energy | Path,
    method: str,
    *,
    key: jax.Array | None,
    reference: Energy | None,
    kernel: str | Kernel,
    num_chains: int,
    num_steps: int,
    levels: Any,
    draws: Any = None,
    data: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
) -> LogPartition:
    """`log_partition` without its warning, and with data to fit a reference to."""
    if method not in METHODS:
        raise ValueError(f"method= must be one of {METHODS}, got {method!r}")
    target = target_of(energy) if isinstance(energy, Path) else energy
    if not isinstance(target, Energy):
        raise TypeError(f"log_partition() takes an energy or a path, got {energy!r}")
    check_known_supports(target)
    if mesh is not None and method == "exact":
        raise ValueError("method='exact' runs no chains: mesh= has none to share out")
    if mesh is not None and method == "tempering":
        raise ValueError(
            "method='tempering' tunes its ladder on all runs together, which mesh= cannot share "
            "out: take 'ais', 'smc', 'raise' or 'bracket', or leave it away"
        )
    if method in ("auto", "exact"):
        try:
            result = exact(strong_tree(target))
        except Impossible:
            if method == "exact":
                raise
        else:
            if method == "exact" or result.ok or key is None:
                return result
        method = "bracket"
    if method == "tempering" and draws is not None:
        return from_swaps(draws)
    if key is None:
        raise TypeError(
            f"log Z by method={method!r} needs key=, a typed JAX key: no exact answer is known, or "
            "wanted"
        )
    num_chains = check_count(num_chains, "num_chains", 2)
    num_steps = check_count(num_steps, "num_steps", 1)
    key = check_key(key)
    if method == "tempering":
        if levels is not None:
            raise ValueError(
                "levels= is not for 'tempering', which spaces them in warm-up: how many is said by "
                "kernel=ParallelTempering(..., num_replicas=...), or by a path"
            )
        return stepping_stones(
            energy, kernel, reference, num_chains=num_chains, num_steps=num_steps, key=key
        )
    mesh = check_mesh(mesh, num_chains, f"num_chains={num_chains}")
    path = path_to(energy, reference, kernel, num_chains, key, mesh, data)
    annealer = prepare(
        path, kernel, num_chains=num_chains, num_steps=num_steps, levels=levels, key=key, mesh=mesh
    )
    positions = None
    if draws is not None and method in ("raise", "bracket"):
        positions = given_draws(annealer, path, draws)
    match method:
        case "raise":
            return backward(annealer, path, positions)
        case "bracket":
            return bracket(annealer, path, positions)
        case _:
            return forward(annealer, resample=method == "smc")
