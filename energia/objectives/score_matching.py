"""Score matching: the score of the model fitted to that of the data, which need not be known."""

import abc
from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from energia._types import Values, check_count
from energia.energies._energy import Energy
from energia.energies._uniform import normal, signs
from energia.objectives._objective import (
    Objective,
    Shapes,
    check_continuous,
    conditioned,
    registry,
)

CHUNK = 16  # second derivatives taken side by side, for each row
UNROLLED = 4
Projections = Literal["rademacher", "gaussian"]


class _ScoreMatching(Objective):
    """What forms of score matching share: the gradients of all rows, each in one vector.

    Derivatives are taken of the rows together. Side by side, row by row, they are the same and take
    up to a fifth longer.
    """

    def check(self, energy: Energy, data: Shapes) -> None:
        self.free_energy(energy, data)
        name = type(self).__name__
        check_continuous(self, energy, data, f"{name} differentiates with respect to the data")

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, None]:
        return None, None

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        energy = self.free_energy(energy, batch)

        def flat(row: Values) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
            fixed = {name: row[name] for name in self.given}
            target = conditioned(energy, fixed)
            moving = {name: value for name, value in row.items() if name not in fixed}
            x, unravel = ravel_pytree(target.unconstrain(moving))
            return x, lambda x: target.at(unravel(x))

        def slopes(x: jax.Array) -> jax.Array:
            return jax.vmap(lambda row, x: jax.grad(flat(row)[1])(x))(batch, x)

        x = jax.vmap(lambda row: flat(row)[0])(batch)
        return self._sum(slopes, x, key) / len(x), None, {}

    @abc.abstractmethod
    def _sum(
        self, slopes: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array
    ) -> jax.Array:
        """The loss, summed over rows, by the gradients at all rows, shape (row, entry)."""


@registry.register("sm")
class SM(_ScoreMatching):
    r"""Score matching, with the exact trace of the Hessian.

    $J = \mathbb{E}\,[\, \tfrac12 \lVert \nabla E(x) \rVert^2 - \mathrm{tr}\, \nabla^2 E(x) \,]$

    is, up to a constant, half the mean squared distance between the scores of model and data. Its
    minimum over normal models is at the mean and the covariance $C$ of the data, where
    $J = -\tfrac12 \mathrm{tr}\, C^{-1}$: on $D$ whitened variables $-D/2$. Each entry of the
    diagonal costs a forward derivative of the gradient, so that a step costs $D$ times as much as
    one of `'ssm'`; the diagonal is taken a few entries at a time, so that memory does not.

    A bounded variable is matched in unconstrained coordinates, by the density that its image has
    there: score matching on the support itself would need densities that vanish at the bounds.

    Args:
        given: variables that are conditioned on.

    References:
        Hyvärinen (2005), Estimation of non-normalized statistical models by score matching.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> whitened = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> normal = en.Gaussian(jnp.zeros(2))
        >>> sm = en.objectives.SM()
        >>> float(sm.loss(normal, None, {"x": whitened}, None, jax.random.key(0))[0])
        -1.0
    """

    def _sum(
        self, slopes: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array
    ) -> jax.Array:
        slope, curve = jax.linearize(slopes, x)

        # what the derivative of the loss needs of each entry is computed again, not kept
        @jax.checkpoint
        def second(index: jax.Array) -> jax.Array:
            axis = jax.nn.one_hot(index, x.shape[1], dtype=x.dtype)
            return jnp.sum(curve(jnp.broadcast_to(axis, x.shape))[:, index])

        return 0.5 * jnp.sum(slope**2) - _total(second, jnp.arange(x.shape[1]), x.dtype)


def _total(function: Callable[[jax.Array], jax.Array], values: jax.Array, dtype: Any) -> jax.Array:
    """The sum of a function over values."""
    if jax.default_backend() == "cpu":  # there, products side by side take twice as long
        zero, unroll = jnp.zeros((), dtype), min(len(values), UNROLLED)
        return jax.lax.scan(lambda s, v: (s + function(v), None), zero, values, unroll=unroll)[0]
    return jnp.sum(jax.lax.map(function, values, batch_size=min(len(values), CHUNK)))


def _projections(value: Any) -> Any:
    if value not in get_args(Projections):
        raise ValueError(f"projections= must be 'rademacher' or 'gaussian', got {value!r}")
    return value


@registry.register("ssm")
class SSM(_ScoreMatching):
    r"""Sliced score matching: the trace of the Hessian by random projections.

    $J = \mathbb{E}\,[\, \tfrac12 \lVert \nabla E(x) \rVert^2 - v^\top \nabla^2 E(x)\, v \,]$

    over random $v$ with $\mathbb{E}\, v v^\top = I$ has the expectation of score matching. Without
    variance reduction the first term is $\tfrac12 (v^\top \nabla E(x))^2$. Gradient and
    Hessian-vector product come from one pass, forward over reverse, and no Hessian is formed.

    A bounded variable is matched in unconstrained coordinates, as in `'sm'`.

    Args:
        num_projections: vectors $v$ for each row, at least 1.
        projections: the law of $v$: `'rademacher'` ($\pm 1$, of least variance; exact where the
            Hessian is diagonal) or `'gaussian'`.
        variance_reduction: whether the first term is taken exactly; costs nothing.
        given: variables that are conditioned on.

    References:
        Song, Garg, Shi and Ermon (2019), Sliced score matching: a scalable approach to density and
        score estimation. Hutchinson (1989), A stochastic estimator of the trace of the influence
        matrix for Laplacian smoothing splines.

    Example:
        >>> import energia as en
        >>> en.objectives.SSM(num_projections=4, projections="gaussian").variance_reduction
        True
    """

    num_projections: int = eqx.field(default=1, static=True, kw_only=True)
    projections: Projections = eqx.field(
        default="rademacher", converter=_projections, static=True, kw_only=True
    )
    variance_reduction: bool = eqx.field(default=True, static=True, kw_only=True)

    def __check_init__(self):
        check_count(self.num_projections, "num_projections", 1)

    def _sum(
        self, slopes: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array
    ) -> jax.Array:
        draw = signs if self.projections == "rademacher" else normal
        vectors = draw(key, (self.num_projections, *x.shape), x.dtype)
        slope, curve = jax.linearize(slopes, x)
        first = jnp.sum(slope**2)
        if not self.variance_reduction:
            first = jnp.sum(jnp.sum(vectors * slope, -1) ** 2) / self.num_projections
        second = _total(lambda v: jnp.sum(v * curve(v)), vectors, x.dtype)
        return 0.5 * first - second / self.num_projections
