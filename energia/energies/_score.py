"""Energies made from scores: networks that predict a gradient, or noise."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_float, check_count, parameters_of
from energia.energies._checks import check_supports
from energia.energies._energy import Energy
from energia.energies._function import OfFunction
from energia.supports import Support


class ScoreEnergy(OfFunction):
    """The energy whose slope along rays from the origin is minus a score; see `from_score`."""

    num_points: int = eqx.field(static=True)

    def __call__(self, /, *args: Any, **kwargs: Any) -> jax.Array:
        values = self._bind(args, kwargs)
        x = as_float(values.pop(self.names[0]), self.names[0])
        return _along_ray(x, (self._field, values, self.num_points))

    @property
    def _field(self) -> Callable[..., Any]:
        return eqx.Partial(_scored, self.function, self.names[0])


def _scored(function: Callable[..., Any], name: str, x: jax.Array, values: Any) -> jax.Array:
    score = as_float(function(x, **values), "a score")
    if score.shape != x.shape:
        raise ValueError(
            f"the score must have the shape {x.shape} of {name!r}, its first parameter; got "
            f"{score.shape}"
        )
    return score


def _integral(x: jax.Array, rest: Any) -> jax.Array:
    field, values, num_points = rest
    points, weights = np.polynomial.legendre.leggauss(num_points)
    along = jax.vmap(lambda t: jnp.vdot(field(t * x, values), x))
    slopes = along(jnp.asarray((1 + points) / 2, x.dtype))
    return -jnp.asarray(weights / 2, x.dtype) @ slopes


@eqx.filter_custom_jvp
def _along_ray(x: jax.Array, rest: Any) -> jax.Array:
    return _integral(x, rest)


@_along_ray.def_jvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """By x the slope is minus the score itself; by all else that of the integral."""
    (x, rest), (dx, drest) = primals, tangents
    value = _along_ray(x, rest)
    slope = jnp.zeros_like(value)
    if dx is not None:
        field, values, _ = rest
        slope = slope - jnp.vdot(field(x, values), dx)
    if any(leaf is not None for leaf in jax.tree.leaves(drest)):
        slope = slope + eqx.filter_jvp(lambda rest: _integral(x, rest), (rest,), (drest,))[1]
    return value, slope


def from_score(
    score: Callable[..., Any],
    supports: Mapping[str, Support] | Support | None = None,
    /,
    *,
    num_points: int = 16,
) -> Energy:
    r"""The energy of a network that predicts a score, $s(x, \dots) \approx \nabla_x \log p$.

    Its value is the integral of the score along the ray from the origin,

    $E(x) = -\int_0^1 s(tx) \cdot x\, dt$,

    by Gauss-Legendre quadrature, and its gradient by x is declared to be $-s(x)$, one evaluation.
    Where the score is a gradient, $s = -\nabla E$, it is that energy up to a constant, by the
    quadrature's accuracy. It adds, scales and conditions like any other; a noise-conditional score
    runs down `en.Path(E, sigma=...)`. A network that predicts the noise $\epsilon(x, \sigma)$ in
    data of noise $\sigma$ has the score $-\epsilon(x, \sigma) / \sigma$; one for data that are
    shrunk (variance-preserving), $\tilde x = x / \sqrt{1 + \sigma^2}$, has
    $-\epsilon(x / \sqrt{1 + \sigma^2}, \sigma) / \sigma$.

    What is lost: a network of free outputs is no gradient exactly. Then no energy has this score:
    the value and the declared gradient part by
    $\nabla E(x) + s(x) = \int_0^1 t\,(J(tx) - J(tx)^\top)\,x\, dt$ with $J$ the Jacobian of $s$.
    Corrected kernels (`'mala'`, `'hmc'`) still draw from $e^{-E}$ exactly, since any field may
    guide a proposal; unadjusted ones follow the score; the two disagree by this much, and `'nuts'`
    is slower by the rejections. A constant that depends on the other variables is lost too: $E$ is
    0 at $x = 0$ for every $\sigma$ and label, so that weights between such energies in a mixture,
    and posteriors of a label, mean nothing. And a value costs `num_points` evaluations, where an
    energy learned as one costs one.

    Args:
        score: a function of x and other variables, by its parameters' names, x first, with values
            of the shape of x. Arrays inside an Equinox module are trained.
        supports: the support of each variable by name, of those that are known; or that of x alone.
            The ray from the origin has to lie within that of x, as it does for positive numbers.
        num_points: of the quadrature, at least 1.

    Raises:
        TypeError: when what is given is no function.
        ValueError: when a support is given for what is no variable, or x is discrete; when
            evaluated, where a score has not the shape of x.

    References:
        Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (2021), Score-based generative modeling
        through stochastic differential equations. Sjöberg, Lindqvist, Önnheim, Jirstrand and
        Svensson (2023), MCMC-correction of score-based diffusion models for model composition
        (line integrals of a score in the Metropolis step).

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> E = en.from_score(lambda x, sigma: -x / (1 + sigma**2), {"x": en.Real((2,))})
        >>> E.variables, round(float(E(x=jnp.array([3.0, 4.0]), sigma=2.0)), 4)
        (('x', 'sigma'), 2.5)
    """
    if not callable(score) or isinstance(score, type | Energy):
        raise TypeError(f"from_score() takes a function, got {score!r}")
    name = getattr(score, "__name__", type(score).__name__)
    names: tuple[str, ...] = parameters_of(score, name)
    declared = {names[0]: supports} if isinstance(supports, Support) else dict(supports or {})
    count = check_count(num_points, "num_points", 1)
    made = ScoreEnergy(score, names, tuple(declared.items()), count)
    check_supports(made, declared)
    if (own := declared.get(names[0])) is not None and own.discrete:
        raise ValueError(f"from_score(): {names[0]!r} is discrete ({own}), and has no score")
    return made
