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
    """What forms of score matching share: the energy of one row, in one vector."""

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

        def row_loss(row: Values, vectors: jax.Array) -> jax.Array:
            x, energy_at = flat(row)
            return self._row_loss(energy_at, x, vectors)

        rows = jax.eval_shape(jax.vmap(lambda row: flat(row)[0]), batch)
        return jnp.mean(jax.vmap(row_loss)(batch, self._vectors(rows, key))), None, {}

    @abc.abstractmethod
    def _vectors(self, rows: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        """Random vectors for every row, of shape (row, vector, entry), by the shape of all rows."""

    @abc.abstractmethod
    def _row_loss(
        self, energy: Callable[[jax.Array], jax.Array], x: jax.Array, vectors: jax.Array
    ) -> jax.Array:
        """The loss of one row."""


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

    def _vectors(self, rows: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        return jnp.zeros((rows.shape[0], 0, rows.shape[1]), rows.dtype)  # every axis is taken

    def _row_loss(
        self, energy: Callable[[jax.Array], jax.Array], x: jax.Array, vectors: jax.Array
    ) -> jax.Array:
        slope, curve = jax.linearize(jax.grad(energy), x)

        # what the derivative of the loss needs of each entry is computed again, not kept
        @jax.checkpoint
        def second(index: jax.Array) -> jax.Array:
            return curve(jax.nn.one_hot(index, x.size, dtype=x.dtype))[index]

        return 0.5 * jnp.sum(slope**2) - _total(second, jnp.arange(x.size), x.dtype)


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

    def _vectors(self, rows: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        # drawn for all rows at once: a key for each would cost more than the numbers
        draw = signs if self.projections == "rademacher" else normal
        return draw(key, (rows.shape[0], self.num_projections, rows.shape[1]), rows.dtype)

    def _row_loss(
        self, energy: Callable[[jax.Array], jax.Array], x: jax.Array, vectors: jax.Array
    ) -> jax.Array:
        if self.num_projections == 1:  # a pass of its own is cheaper than one that others share
            slope, curved = jax.jvp(jax.grad(energy), (x,), (vectors[0],))
            second = jnp.sum(vectors[0] * curved)
        else:
            slope, curve = jax.linearize(jax.grad(energy), x)
            second = _total(lambda v: jnp.vdot(v, curve(v)), vectors, x.dtype)
        first = jnp.sum(slope**2) if self.variance_reduction else jnp.mean((vectors @ slope) ** 2)
        return 0.5 * first - second / self.num_projections
