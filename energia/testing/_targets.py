"""Targets: energies whose moments are known exactly."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia.energies import RBM, Energy, Gaussian, Ising, energy, mixture
from energia.supports import (
    Binary,
    Categorical,
    Discrete,
    Interval,
    Positive,
    Real,
    Simplex,
    Spin,
)


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
    """What every exact sampler of discrete variables must sample.

    The first has no closed form; in the second the entries are independent colour by colour, and
    layer by layer.
    """
    return _kinds(), _closed_forms()


@functools.cache
def mixed() -> Target:
    """What an exact sampler of discrete and continuous variables must sample.

    Given its label, x is normal and tau exponential.
    """
    weights, means = np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.5, 2.0])
    rates, log_weights = np.array([1.0, 2.0, 0.5]), np.log(weights)

    @energy(x=Real(), tau=Positive(), z=Categorical(3))
    def labelled(x, tau, z):
        mean, rate, weight = (jnp.asarray(a)[z] for a in (means, rates, log_weights))
        return 0.5 * (x - mean) ** 2 + rate * tau - jnp.log(rate) - weight

    states, mean, tau = np.arange(3), weights @ means, weights @ (1 / rates)
    label = weights @ states
    return Target(
        "a normal and an exponential variable with labels",
        labelled,
        mean={"x": mean, "tau": tau, "z": label},
        variance={
            "x": 1 + weights @ (means - mean) ** 2,
            "tau": weights @ (2 / rates**2) - tau**2,
            "z": weights @ (states - label) ** 2,
        },
        expectations={
            "E x z": (lambda x, z, **_: x * z, float(weights @ (means * states))),
            "E x tau": (lambda x, tau, **_: x * tau, float(weights @ (means / rates))),
        },
    )


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


def _kinds() -> Target:
    """Coupled binary, spin and categorical variables."""
    field, coupling = np.array([0.3, -0.2]), np.array([[0.5, -0.4, 0.1], [-0.3, 0.2, 0.6]])

    @energy(b=Binary((2,)), s=Spin((2, 1)), k=Categorical(3, (2,)))
    def kinds(b, s, k):
        spins = -jnp.sum(jnp.asarray(field) * s[:, 0]) - 0.6 * s[0, 0] * s[1, 0]
        labels = -0.7 * (k[0] == k[1]) - jnp.sum(jnp.asarray(coupling)[b.astype(int), k])
        return spins + labels + 0.8 * b[0] * b[1] - 0.5 * s[0, 0] * (b[1] - 0.5) * (k[0] - 1)

    return enumerate_target(
        "binary, spin and categorical variables",
        kinds,
        {
            "E s[0] s[1]": lambda s, **_: s[0, 0] * s[1, 0],
            "E b[0] b[1]": lambda b, **_: b[0] * b[1],
            "P(k[0] = k[1])": lambda k, **_: k[0] == k[1],
            "E s[0] k[0]": lambda s, k, **_: s[0, 0] * k[0],
            "E b[0] k[0]": lambda b, k, **_: b[0] * k[0],
        },
    )


def _closed_forms() -> Target:
    """An Ising model on a torus of odd side, and a restricted Boltzmann machine."""
    lattice = Ising((2, 3), coupling=0.25, field=[0.3, -0.2, 0.1])
    weights = [[1.0, -0.8], [-0.5, 0.6], [0.7, 0.9]]
    machine = RBM.from_parameters(weights, [0.2, -0.3, 0.1], [-0.4, 0.3])
    return enumerate_target(
        "an Ising model and a Boltzmann machine",
        lattice + machine,
        {
            "E x[0, 0] x[0, 1]": lambda x, **_: x[0, 0] * x[0, 1],
            "E x[0, 0] x[1, 0]": lambda x, **_: x[0, 0] * x[1, 0],
            "E v[0] h[0]": lambda v, h, **_: v[0] * h[0],
            "E v[0] v[2]": lambda v, **_: v[0] * v[2],
        },
    )


def enumerate_target(
    name: str, energy: Energy, expectations: Mapping[str, Callable[..., Any]]
) -> Target:
    """A target of discrete variables: every expectation is a sum over all states."""
    supports = {n: s for n, s in energy.supports.items() if isinstance(s, Discrete)}
    counts = [support.num_states for support in supports.values()]
    numbers = np.unravel_index(np.arange(math.prod(counts)), counts)
    states = {
        n: jax.vmap(support.state)(jnp.asarray(index, jnp.int32))
        for (n, support), index in zip(supports.items(), numbers, strict=True)
    }

    @jax.jit
    def evaluate(states: Any) -> Any:
        values = {text: jax.vmap(lambda s, f=f: f(**s))(states) for text, f in expectations.items()}
        return jax.vmap(energy.at)(states), values

    energies, values = evaluate(states)
    log_weights = -np.asarray(energies, np.float64)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()

    def expect(values: Any) -> Any:
        return np.tensordot(weights, np.asarray(values, np.float64), 1)

    mean = {n: expect(values) for n, values in states.items()}
    return Target(
        name,
        energy,
        mean=mean,
        variance={n: expect((np.asarray(v, np.float64) - mean[n]) ** 2) for n, v in states.items()},
        expectations={
            text: (function, float(expect(values[text]))) for text, function in expectations.items()
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
