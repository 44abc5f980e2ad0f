"""Targets: energies whose moments are known exactly."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia.energies import Energy, Gaussian, energy, mixture
from energia.supports import Interval, Positive, Real, Simplex, Spin


@dataclasses.dataclass(frozen=True)
class Target:
    r"""An energy, and expectations under $e^{-E}$ that are known exactly.

    Args:
        name: what to call it in a message.
        energy: the energy.
        mean: $\mathbb E\,x$ by variable, in the variable's shape.
        variance: $\mathbb E\,(x - \mathbb E\,x)^2$ by variable, entry by entry.
        expectations: further ones by a text that says what they are: a function of one
            configuration, called with its variables by name, and the exact expectation.
        init: starts, as `en.sample` takes them; needed where a support is unknown.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> target = en.testing.Target(
        ...     "a normal", en.Gaussian(1.0), mean={"x": 1.0}, variance={"x": 1.0},
        ...     expectations={"P(x > 1)": (lambda x: x > 1, 0.5)})
        >>> target.name
        'a normal'
    """

    name: str
    energy: Energy
    mean: Mapping[str, Any]
    variance: Mapping[str, Any]
    expectations: Mapping[str, tuple[Callable[..., Any], float]] = dataclasses.field(
        default_factory=dict
    )
    init: Any = None


@functools.cache
def continuous() -> tuple[Target, ...]:
    """What every exact sampler of continuous variables must sample.

    The first two are one energy with other numbers, and the third holds positive, interval and
    simplex bounds at once: two programs to compile instead of six.
    """
    return (
        _normals(
            "a Gaussian of correlation 0.95", [[0.5, -1], [0.5, -1]], [0.95, 0.95], [0.5, 0.5]
        ),
        _normals("a mixture of two Gaussians", [[-1.5, 0], [1.5, 0.5]], [0.5, -0.3], [0.3, 0.7]),
        _bounded(),
    )


@functools.cache
def discrete() -> tuple[Target, ...]:
    """What every exact sampler of discrete variables must sample."""
    return (_spins(),)


def _normals(name: str, means: Any, correlations: Any, weights: Any) -> Target:
    means, weights = np.array(means, float), np.array(weights)
    parts = [
        Gaussian(mean, covariance=[[1, rho], [rho, 1]])
        for mean, rho in zip(means, correlations, strict=True)
    ]
    mean = weights @ means
    second = np.zeros((2, 2))
    for w, m, rho in zip(weights, means, correlations, strict=True):
        second += w * (np.array([[1, rho], [rho, 1]]) + np.outer(m - mean, m - mean))
    above = [0.5 * math.erfc(-m / math.sqrt(2)) for m in means[:, 0]]
    return Target(
        name,
        mixture(parts, weights=weights),
        mean={"x": mean},
        variance={"x": np.diag(second)},
        expectations={
            "Cov(x[0], x[1])": (lambda x: (x[0] - mean[0]) * (x[1] - mean[1]), second[0, 1]),
            "P(x[0] > 0)": (lambda x: x[0] > 0, float(weights @ above)),
        },
    )


def _bounded() -> Target:
    """Independent but for x, which is normal with the gamma variable tau for its precision."""
    shape, rate, first, second = 5.0, 4.0, 2.0, 3.0
    low, high, concentration = -1.0, 3.0, np.array([2.0, 3.0, 4.0])

    @energy(x=Real(), tau=Positive(), share=Interval(low, high), parts=Simplex(3))
    def bounded(x, tau, share, parts):
        gamma = rate * tau - (shape - 1) * jnp.log(tau)
        normal = 0.5 * tau * x**2 - 0.5 * jnp.log(tau)
        beta = -(first - 1) * jnp.log(share - low) - (second - 1) * jnp.log(high - share)
        dirichlet = -jnp.sum((concentration - 1) * jnp.log(parts))
        return gamma + normal + beta + dirichlet

    total, beta_mean = concentration.sum(), first / (first + second)
    share = concentration / total
    return Target(
        "gamma, Student's t, beta and Dirichlet variables",
        bounded,
        mean={
            "x": 0.0,
            "tau": shape / rate,
            "share": low + (high - low) * beta_mean,
            "parts": share,
        },
        variance={
            "x": rate / (shape - 1),
            "tau": shape / rate**2,
            "share": (high - low) ** 2 * beta_mean * (1 - beta_mean) / (first + second + 1),
            "parts": share * (1 - share) / (total + 1),
        },
        expectations={"E x² tau": (lambda x, tau, **_: x**2 * tau, 1.0)},
    )


def _spins() -> Target:
    """Three coupled spins, enumerated."""
    field, coupling = np.array([0.3, -0.2, 0.1]), np.array([0.7, -0.5])

    @energy(s=Spin((3,)))
    def spins(s):
        return -jnp.sum(field * s) - jnp.sum(coupling * s[1:] * s[:-1])

    states = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    weights = np.exp(states @ field + (states[:, 1:] * states[:, :-1]) @ coupling)
    weights /= weights.sum()
    mean = weights @ states
    return Target(
        "three coupled spins",
        spins,
        mean={"s": mean},
        variance={"s": 1 - mean**2},
        expectations={
            "E s[0] s[1]": (lambda s: s[0] * s[1], float(weights @ (states[:, 0] * states[:, 1])))
        },
    )


def functionals(target: Target, draws: Mapping[str, jax.Array]) -> dict[str, tuple[Any, float]]:
    """What has a known expectation: its values over (chain, draw) and the expectation, by name."""
    found: dict[str, tuple[Any, float]] = {}
    for name in target.mean:
        values = np.asarray(draws[name], np.float64)
        mean = np.broadcast_to(np.asarray(target.mean[name], np.float64), values.shape[2:])
        found |= _entries(f"E {name}", values, mean)
    for name in target.variance:
        values = np.asarray(draws[name], np.float64)
        variance = np.broadcast_to(np.asarray(target.variance[name], np.float64), values.shape[2:])
        found |= _entries(f"Var {name}", (values - np.asarray(target.mean[name])) ** 2, variance)
    for text, (function, expected) in target.expectations.items():
        over_draws = jax.vmap(jax.vmap(lambda values, f=function: jnp.asarray(f(**values))))
        values = np.asarray(over_draws({name: draws[name] for name in draws}), np.float64)
        found[text] = values, float(expected)
    return found


def _entries(label: str, values: np.ndarray, expected: np.ndarray) -> dict[str, tuple[Any, float]]:
    return {
        label + (f"[{', '.join(map(str, where))}]" if where else ""): (
            np.ascontiguousarray(values[(..., *where)]),
            float(expected[where]),
        )
        for where in np.ndindex(expected.shape)
    }
