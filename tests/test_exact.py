"""Exact draws: one table of energies, and what each must give in closed form or by quadrature."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import energia as en
from energia.energies._unconstrained import Unconstrained

DRAWS, MAX_Z = 20_000, 5.0
LOG_2PI = math.log(2 * math.pi)
GAUSSIAN = en.Gaussian([1.0, -2.0], covariance=[[2.0, 0.6], [0.6, 0.5]])
LOG_SUM = math.log(1 + math.exp(-0.5) + math.exp(-2.0))
GRID = np.linspace(-12, 12, 24_001)


@dataclasses.dataclass(frozen=True)
class Case:
    """An energy, its log normaliser, and expectations of its draws."""

    energy: en.Energy
    log_partition: float
    expectations: Mapping[str, tuple[Callable[..., Any], float]]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constant: bool = True


@en.energy
def quadratic(x, z):
    return (x - z) ** 2


@en.energy(k=en.Categorical(3))
def labels(k):
    return jnp.asarray([0.0, 0.5, 2.0])[k]


def on_grid(energy: en.Energy, **functions: Callable[[Any], Any]) -> tuple[float, dict[str, Any]]:
    """The normaliser of an energy of one real number, and expectations, by quadrature."""
    (name,) = energy.variables
    log_density = -np.asarray(jax.vmap(lambda x: energy.at({name: x}))(GRID), np.float64)
    log_sum = float(logsumexp(log_density))  # pyright: ignore[reportArgumentType]
    log_partition = log_sum + math.log(GRID[1] - GRID[0])
    weights = np.exp(log_density - log_sum)
    found = {text: (f, float(weights @ f(GRID))) for text, f in functions.items()}
    return log_partition, found


def shares() -> Case:
    """A mixture of energies that are not normalised: shares in proportion to w Z."""
    parts = [0.25 * en.Gaussian(-3.0, scale=0.5), 2 * en.Gaussian(3.0), en.Gaussian(0.0)]
    energy = en.mixture(parts, weights=[0.5, 0.3, 0.2])
    log_partition, found = on_grid(
        energy,
        **{"E x": lambda x: x, "E x²": lambda x: x**2, "P(x > 1.5)": lambda x: x > 1.5},
    )
    return Case(energy, log_partition, found, constant=True)


def hierarchy() -> en.Energy:
    return en.Normal("mu", 1.0, 2.0) + en.HalfNormal("tau", 1.0) + en.Normal("x", "mu", "tau")


def posterior() -> Case:
    """A prior and a data factor of one mean: the evidence is normal, n rows of correlation."""
    rows = np.array([0.5, 2.0, 1.5, -0.5])
    n, prior = len(rows), 2.0**2
    covariance = np.eye(n) + prior
    log_evidence = -0.5 * (
        n * LOG_2PI + np.linalg.slogdet(covariance)[1] + rows @ np.linalg.solve(covariance, rows)
    )
    variance = 1 / (n + 1 / prior)
    mean = variance * rows.sum()
    energy = en.Normal("mu", 0.0, 2.0) + en.total(en.Normal("y", "mu", 1.0), y=rows)
    return Case(
        energy,
        float(log_evidence),
        {"E mu": (lambda mu: mu, mean), "E mu²": (lambda mu: mu**2, mean**2 + variance)},
        constant=True,
    )


MACHINE = en.RBM.from_parameters([[1.0, -2.0], [0.5, 1.0]], [0.3, -0.2], [0.1, 0.7])
VISIBLE = jnp.asarray([1.0, 0.0])
ODDS = np.array([0.1 + 1.0, 0.7 - 2.0])

CASES: dict[str, Callable[[], Case]] = {
    "Gaussian, covariance": lambda: Case(
        GAUSSIAN,
        0.0,
        {
            "E x[0]": (lambda x: x[0], 1.0),
            "Var x[1]": (lambda x: (x[1] + 2) ** 2, 0.5),
            "Cov": (lambda x: (x[0] - 1) * (x[1] + 2), 0.6),
        },
    ),
    "Gaussian, scale": lambda: Case(
        en.Gaussian(np.ones(2), scale=[0.5, 3.0]),
        0.0,
        {
            "E x[1]": (lambda x: x[1], 1.0),
            "Var x[0]": (lambda x: (x[0] - 1) ** 2, 0.25),
            "Var x[1]": (lambda x: (x[1] - 1) ** 2, 9.0),
        },
    ),
    "tempered Gaussian": lambda: Case(
        en.Gaussian(1.0, scale=2.0) / 4,  # variance 16
        0.25 * -(math.log(2.0) + 0.5 * LOG_2PI) + math.log(4.0) + 0.5 * LOG_2PI,
        {"E x": (lambda x: x, 1.0), "Var x": (lambda x: (x - 1) ** 2, 16.0)},
    ),
    "product of Gaussians": lambda: Case(
        en.Gaussian(1.0) + en.Gaussian(-1.0, scale=2.0),  # N(1 - (-1); 0, 1 + 4)
        -0.5 * (LOG_2PI + math.log(5.0) + 4 / 5),
        {"E x": (lambda x: x, 0.6), "Var x": (lambda x: (x - 0.6) ** 2, 0.8)},
    ),
    "GaussianMixture": lambda: Case(
        en.GaussianMixture([[-2.0], [2.0]], scales=[1.0, 0.1], weights=[0.3, 0.7]),
        0.0,
        {
            "E x": (lambda x: x[0], 0.8),
            "E x²": (lambda x: x[0] ** 2, 4 + 0.3 * 1.0 + 0.7 * 0.01),
        },
    ),
    "Funnel": lambda: Case(
        en.Funnel(3, scale=1.0),
        0.0,
        {"Var x[0]": (lambda x: x[0] ** 2, 1.0), "E x[1]²": (lambda x: x[1] ** 2, math.exp(0.5))},
    ),
    "Uniform": lambda: Case(
        en.Uniform(1.0, 3.0, shape=2),
        0.0,
        {"E x[0]": (lambda x: x[0], 2.0), "Var x[1]": (lambda x: (x[1] - 2) ** 2, 4 / 12)},
    ),
    "Gamma": lambda: Case(
        en.Gamma("tau", 3.0, 2.0),
        0.0,
        {"E tau": (lambda tau: tau, 1.5), "Var tau": (lambda tau: (tau - 1.5) ** 2, 0.75)},
    ),
    "Dirichlet": lambda: Case(
        en.Dirichlet("p", [2.0, 1.0, 1.0]),
        0.0,
        {"E p[0]": (lambda p: p[0], 0.5), "E p[0]²": (lambda p: p[0] ** 2, 0.3)},
    ),
    "Bernoulli": lambda: Case(
        en.Bernoulli("b", [0.2, 0.7]),
        0.0,
        {"E b[0]": (lambda b: b[0], 0.2), "E b[0] b[1]": (lambda b: b[0] * b[1], 0.14)},
    ),
    "an energy of one label": lambda: Case(
        labels,
        LOG_SUM,
        {
            f"P(k = {k})": (
                lambda k, state=k: k == state,
                float(np.exp(-u - LOG_SUM)),
            )
            for k, u in enumerate([0.0, 0.5, 2.0])
        },
    ),
    "independent terms": lambda: Case(
        en.Gaussian(2.0).rename(x="a") + labels + en.Poisson("n", 3.0),
        LOG_SUM,
        {
            "E a": (lambda a, **_: a, 2.0),
            "E n": (lambda n, **_: n, 3.0),
            "E a n": (lambda a, n, **_: a * n, 6.0),
        },
    ),
    "one term after another": lambda: Case(
        hierarchy(),
        0.0,
        {
            "E x": (lambda x, **_: x, 1.0),
            "Var x": (lambda x, **_: (x - 1) ** 2, 4.0 + 1.0),
            "E mu x": (lambda mu, x, **_: mu * x, 1.0 + 4.0),
            "E (x - mu)² / tau²": (lambda mu, tau, x: (x - mu) ** 2 / tau**2, 1.0),
        },
    ),
    "the rest of a hierarchy": lambda: Case(
        hierarchy(),
        math.log(2.0) - 0.5 * LOG_2PI - 0.5 * 0.25,  # the half-normal density at 0.5
        {"E x": (lambda x, mu: x, 1.0), "Var x": (lambda x, mu: (x - 1) ** 2, 4.0 + 0.25)},
        given={"tau": 0.5},
        constant=False,
    ),
    "mixture of unnormalised parts": shares,
    "prior and data": posterior,
    "marginal": lambda: Case(
        hierarchy().marginalize("mu"),
        0.0,
        {"E x": (lambda x, tau: x, 1.0), "Var x": (lambda x, tau: (x - 1) ** 2, 5.0)},
    ),
    "Boltzmann machine given a layer": lambda: Case(
        MACHINE,
        0.3 + float(np.log1p(np.exp(ODDS)).sum()),
        {f"E h[{i}]": (lambda h, i=i: h[i], float(1 / (1 + np.exp(-ODDS[i])))) for i in (0, 1)},
        given={"v": VISIBLE},
        constant=False,
    ),
    "renamed, conditioned, frozen": lambda: Case(
        (en.Normal("x", "mu", 0.5).condition(mu=2.0).rename(x="z")).freeze(),
        0.0,
        {"E z": (lambda z: z, 2.0), "Var z": (lambda z: (z - 2) ** 2, 0.25)},
    ),
    "unconstrained": lambda: Case(
        Unconstrained(en.Gamma("tau", 3.0, 2.0) + en.Uniform(0.0, 1.0).rename(x="u")),
        0.0,
        {
            "E exp tau": (lambda tau, **_: jnp.exp(tau), 1.5),
            "E sigmoid u": (lambda u, **_: jax.nn.sigmoid(u), 0.5),
            "E (sigmoid u)²": (lambda u, **_: jax.nn.sigmoid(u) ** 2, 1 / 3),
        },
    ),
}


@eqx.filter_jit
def draw(energy: en.Energy, given: Mapping[str, Any], key: jax.Array) -> Any:
    exact = energy._exact(given)
    assert exact is not None
    return jax.vmap(exact.draw)(jax.random.split(key, DRAWS))


@pytest.mark.parametrize("name", CASES)
def test_draws_and_normaliser(name: str, key: jax.Array) -> None:
    case = CASES[name]()
    exact = case.energy._exact(case.given)
    assert exact is not None
    assert exact.constant == case.constant
    np.testing.assert_allclose(exact.log_partition, case.log_partition, rtol=1e-5, atol=1e-5)
    draws = draw(case.energy, case.given, key)
    assert set(draws) == set(case.energy.variables) - set(case.given)
    supports = case.energy.supports
    assert all(value.dtype == s.dtype for n, value in draws.items() if (s := supports[n]))
    for text, (function, expected) in case.expectations.items():
        values = np.asarray(jax.vmap(lambda values, f=function: f(**values))(draws), np.float64)
        error = values.std() / math.sqrt(DRAWS)
        assert abs(values.mean() - expected) <= MAX_Z * error, (text, values.mean(), expected)


def test_draws_of_a_wrong_law_are_rejected(key: jax.Array) -> None:
    """What five standard errors tell: a standard deviation that is 4 % off."""
    draws = draw(en.Gaussian(np.ones(2), scale=[0.5, 3.0 * 1.04]), {}, key)
    values = np.asarray((draws["x"][:, 1] - 1) ** 2, np.float64)
    assert abs(values.mean() - 9.0) > MAX_Z * values.std() / math.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("energy", "given"),
    [
        (MACHINE, {}),  # two variables that depend on each other
        (quadratic, {}),
        (en.Ising((2, 2), coupling=0.3), {}),  # entries of one colour only
        (en.Gaussian(np.zeros(2)) + en.Ring(), {}),
        (en.Normal("x", "mu", 1.0), {}),  # a conditional density has no law of its condition
        (2 * en.Gamma("tau", 3.0, 2.0), {}),  # tempered, it is another law
        (en.Normal("x", 0.0, 1.0).constrain(x=en.Positive()), {}),  # truncated, too
        # its normaliser varies with mu, so that mu does not follow its prior
        (en.Normal("mu", 0.0, 1.0) + 2 * en.Normal("x", "mu", 1.0), {}),
        (en.Normal("mu", 0.0, 1.0) + en.Normal("x", "mu", 1.0) + en.Gaussian(0.0), {}),
        (hierarchy(), {"x": 0.3}),
        (en.mixture([en.Gaussian(0.0), quadratic.condition(z=1.0)]), {}),
        (en.Normal("x", 0.0, 1.0).substitute(x=lambda z: z**3), {}),  # no Jacobian
    ],
    ids=lambda value: value._formula() if isinstance(value, en.Energy) else "",
)
def test_unknown(energy: en.Energy, given: Mapping[str, Any]) -> None:
    assert energy._exact(given) is None
