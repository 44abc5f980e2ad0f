"""The kernel Stein discrepancy: how far a sample is from an energy's law, without log Z."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energia._types import Values, as_array
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.evaluate._mmd import bandwidth_of, squares
from energia.evaluate._rows import over_rows, rows_of
from energia.evaluate._scores import without_latents
from energia.supports import Continuous

KERNELS = ("imq", "rbf")


def ksd(
    energy: Energy,
    samples: Any,
    *,
    kernel: str = "imq",
    bandwidth: Any = None,
) -> float:
    r"""The squared kernel Stein discrepancy of a sample from $p \propto e^{-E}$, without $\log Z$.

    With the score $s = -\nabla E$ and a kernel $k$, $\mathrm{KSD}^2 = \mathbb{E}\, u(x, x')$ over
    independent draws, where

    $u(x, x') = s^\top s'\, k + s^\top \nabla_{x'} k + s'^\top \nabla_x k + \operatorname{tr}
    \nabla_x \nabla_{x'} k$,

    is zero where the sample's law is $p$, and positive elsewhere. The estimate leaves each point's
    pair with itself out (a U-statistic) and is unbiased: at $p$ it is as often negative as
    positive.

    Bounded variables are compared in unconstrained coordinates, with the Jacobian of the map.
    A discrepancy of scores hardly sees how much mass lies in modes that are far apart.

    Args:
        energy: of continuous variables; others are summed out.
        samples: independent draws, shape (n, \*shape), n at least 2: an array, values of the
            energy's first variable, or a dict of them by variable name.
        kernel: 'imq', $(1 + r^2 / h^2)^{-1/2}$ with $r = \lVert x - x' \rVert$, which also sees
            mass that escapes to infinity; or 'rbf', $e^{-r^2 / 2 h^2}$, which in three dimensions
            and more does not.
        bandwidth: $h$, positive; None: the median distance of draws (of 1,000 of them at equal
            distances, where there are more).

    Returns:
        The estimate of the square.

    Raises:
        TypeError, ValueError: for samples that do not fit, variables that have no score, and scores
            that are not finite.

    References:
        Liu, Lee and Jordan (2016), A kernelized Stein discrepancy for goodness-of-fit tests.
        Chwialkowski, Strathmann and Gretton (2016), A kernel test of goodness of fit. Gorham and
        Mackey (2017), Measuring sample quality with kernels.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
        >>> target = en.Gaussian(jnp.zeros(2))
        >>> abs(en.evaluate.ksd(target, x)) < 0.02, en.evaluate.ksd(target, x + 1) > 0.5
        (True, True)
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"ksd() takes an energy, got {energy!r}")
    if kernel not in KERNELS:
        raise ValueError(f"kernel= must be one of {KERNELS}, got {kernel!r}")
    rows = rows_of(energy, samples, unknown=True)
    _check_continuous(energy, rows)
    if len(next(iter(rows.values()))) < 2:
        raise ValueError("ksd() needs at least 2 rows of samples, got 1")
    free = Unconstrained(without_latents(energy, rows))
    x, score = over_rows(_scored, free, rows)
    if not (np.isfinite(x).all() and np.isfinite(score).all()):
        broken = ~(np.isfinite(x).all(1) & np.isfinite(score).all(1))
        first = int(np.flatnonzero(broken)[0])
        raise ValueError(f"the score of row {first} is not finite: its density may be zero there")
    width = bandwidth_of(bandwidth, as_array(x), "ksd")
    means = _means(x, score, width, kernel == "imq")
    return float(np.mean(np.asarray(means, float)))


def _check_continuous(energy: Energy, rows: Mapping[str, jax.Array]) -> None:
    supports = energy.supports
    for name, array in rows.items():
        known = supports[name]
        continuous = known is None or isinstance(known, Continuous)
        if not continuous or not jnp.issubdtype(array.dtype, jnp.floating):
            what = str(known or array.dtype)
            raise TypeError(
                f"ksd() compares continuous variables by their score, and {name!r} is {what}: left "
                "out of the samples it is summed out"
            )


def _scored(free: Unconstrained, row: Values) -> tuple[jax.Array, jax.Array]:
    """A row in unconstrained coordinates, flat, and its score."""
    flat, unravel = ravel_pytree(free.unconstrain(row))
    return flat, -jax.grad(lambda flat: free._scalar_at(unravel(flat)))(flat)


@functools.partial(jax.jit, static_argnums=3)
def _means(x: jax.Array, score: jax.Array, width: jax.Array, imq: bool) -> jax.Array:
    """Of each row, the mean over all others of u."""
    count, size = x.shape

    def mean(index: jax.Array) -> jax.Array:
        # a row at a time: the matrix of all pairs may not fit in memory
        gaps = squares(x[index], x) / width**2
        if imq:  # k = f(r² / h²), and its derivatives
            value = (1 + gaps) ** -0.5
            first, second = -0.5 * (1 + gaps) ** -1.5, 0.75 * (1 + gaps) ** -2.5
        else:
            value = jnp.exp(-gaps / 2)
            first, second = -value / 2, value / 4
        along = jnp.sum((score[index] - score) * (x[index] - x), axis=-1)
        u = (score @ score[index]) * value - 2 * first / width**2 * (along + size)
        u = u - 4 * second * gaps / width**2
        return jnp.sum(jnp.where(jnp.arange(count) == index, 0.0, u)) / (count - 1)

    return jax.lax.map(mean, jnp.arange(count))
