"""The default reference: which terms are a prior, and what is fitted where there is none."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._factors import Categorical, Normal
from energia.energies._fitted import Fitted
from energia.energies._unconstrained import Unconstrained
from energia.paths import geometric, reference_for

DRAWS, MAX_Z = 20_000, 5.0


@en.energy(a=en.Real((2,)), b=en.Binary((3,)), k=en.Categorical(3), s=en.Spin())
def mixed(a, b, k, s):
    return jnp.sum((a - b[:2] * s) ** 2) + k * b[2]


@en.energy(tau=en.Positive())
def likelihood(mu, tau):
    return (mu - 1) ** 2 / tau + jnp.log(tau)


MACHINE = en.RBM.from_parameters([[1.0, -2.0], [0.5, 1.0]], [0.3, -0.2], [0.1, 0.7])
PRIOR = en.Normal("mu", 0.0, 2.0) + en.HalfNormal("tau", 1.0)
BOTH = "Normal(mu | loc=0.0, scale=2.0) + HalfNormal(tau | scale=1.0)"
NORMAL = en.Gaussian(np.zeros(2), scale=3.0)


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        (NORMAL + en.Ring(), "Gaussian(x)"),
        (en.Ring() + NORMAL, "Gaussian(x)"),
        (en.Gaussian(0.0) + en.Gaussian(2.0), "Gaussian(x)"),
        (PRIOR + likelihood, BOTH),
        (likelihood + PRIOR, BOTH),
        (
            en.Normal("x", "mu", 1.0) + likelihood + PRIOR,
            f"Normal(x | mu, scale=1.0) + {BOTH}",
        ),
        (
            Unconstrained(PRIOR + likelihood),
            BOTH,
        ),
        (en.GaussianMixture([[0.0], [1.0]], scales=1.0), "GaussianMixture(x)"),  # its own
    ],
    ids=lambda value: value._formula() if isinstance(value, en.Energy) else "",
)
def test_prior(energy: en.Energy, expected: str) -> None:
    reference = reference_for(energy)
    assert reference._formula() == expected
    assert reference._exact({}) is not None
    assert isinstance(reference, Unconstrained) == isinstance(energy, Unconstrained)


@pytest.mark.parametrize(
    "energy",
    [
        en.Ring(),
        MACHINE,
        en.Ring() - NORMAL,  # no normaliser
        en.Bernoulli("v", [0.1, 0.2]) + MACHINE,  # of h there is no prior
        Unconstrained(en.HalfNormal("tau", 1.0) + likelihood.constrain(mu=en.Real())),
    ],
    ids=lambda value: value._formula(),
)
def test_no_prior(energy: en.Energy) -> None:
    reference = reference_for(energy)
    assert isinstance(reference, Fitted)
    assert reference.variables == energy.variables
    assert reference.supports == energy.supports


def test_what_both_ends_share_is_evaluated_once() -> None:
    calls = []

    @en.energy
    def data(mu):
        calls.append("data")
        return (mu - 3) ** 2

    class Prior(en.Energy):
        def __call__(self, mu):
            calls.append("prior")
            return 0.5 * mu**2

    for target in [Prior() + data, data + Prior()]:
        prior = next(term for term in target._terms() if isinstance(term, Prior))
        path = geometric(prior, target)
        for beta in [0.0, 0.25, 1.0]:
            calls.clear()
            found = float(path(beta)(mu=jnp.asarray(2.0)))
            assert sorted(calls) == ["data", "prior"]
            assert math.isclose(found, 2 + beta, rel_tol=1e-6)
        assert path.variables == ("mu",)
        assert eqx.tree_equal(path.reference, prior)
    other = geometric(Prior(), Prior() + data)  # equal, not the same: no one can know
    assert math.isclose(float(other(0.25)(mu=jnp.asarray(2.0))), 2.25, rel_tol=1e-6)
    whole = Prior() + data
    assert math.isclose(
        float(geometric(whole, whole)(0.25)(mu=jnp.asarray(2.0))), 3.0, rel_tol=1e-6
    )


def test_paths_of_unconstrained_energies() -> None:
    """One Jacobian at every level: a weight does not commute with it."""
    target = Unconstrained(PRIOR + likelihood)
    path = geometric(reference_for(target), target)
    values = {"mu": jnp.asarray(0.7), "tau": jnp.asarray(0.4)}
    inside = {"mu": 0.7, "tau": math.exp(0.4)}
    for beta in [0.0, 0.3, 1.0]:
        expected = PRIOR.at(inside) + beta * likelihood.at(inside) - 0.4
        np.testing.assert_allclose(path(beta).at(values), expected, rtol=1e-5)
    exact = path.exact()
    assert exact is not None
    assert path.supports == {"mu": en.Real(), "tau": en.Real()}


def test_unit() -> None:
    unit = Fitted.unit(mixed)
    values = {"a": np.ones(2), "b": np.ones(3), "k": 2, "s": -1.0}
    expected = math.log(2 * math.pi) + 1 + 3 * math.log(2) + math.log(3) + math.log(2)
    np.testing.assert_allclose(unit.at(values), expected, rtol=1e-6)


def test_fit(key: jax.Array) -> None:
    """Draws are of the law that it was fitted to, and the law is the one of the draws."""
    rng = np.random.default_rng(0)
    count = 50_000
    a = rng.normal(size=(count, 2)) @ np.array([[2.0, 0.5], [0.0, 0.3]]) + [1.0, -3.0]
    b = rng.uniform(size=(count, 3)) < [0.1, 0.5, 0.99]
    k, s = rng.choice(3, count, p=[0.2, 0.7, 0.1]), rng.choice([-1.0, 1.0], count, p=[0.25, 0.75])
    positions = {"a": a.astype(np.float32), "b": b.astype(np.float32), "k": k, "s": s}
    fitted = reference_for(mixed, positions)
    exact = fitted._exact({})
    assert exact is not None
    draws = jax.jit(jax.vmap(exact.draw))(jax.random.split(key, DRAWS))
    second: dict[str, Any] = {
        "a": lambda a, **_: a,
        "a²": lambda a, **_: a**2,
        "a a": lambda a, **_: a[:, 0] * a[:, 1],
        "b": lambda b, **_: b,
        "k = 1": lambda k, **_: k == 1,
        "s": lambda s, **_: s,
    }
    for text, function in second.items():
        values = np.asarray(function(**draws), np.float64)
        expected = np.mean(np.asarray(function(**positions), np.float64), axis=0)
        error = values.std(axis=0) * math.sqrt(1 / DRAWS + 1 / count)
        assert np.all(np.abs(values.mean(axis=0) - expected) <= MAX_Z * error), text
    # it is normalised: the mean of its density over that of wider draws is 1
    assert isinstance(fitted, Fitted)
    even = Fitted.unit(mixed).log_odds
    wide = Fitted(fitted.declared, fitted.mean, 1.5 * fitted.factor, even)
    proposals = jax.jit(jax.vmap(wide._draw))(jax.random.split(key, DRAWS))
    log_ratio = jax.jit(jax.vmap(lambda values: wide.at(values) - fitted.at(values)))(proposals)
    weights = np.exp(np.asarray(log_ratio, np.float64))
    assert abs(weights.mean() - 1) <= MAX_Z * weights.std() / math.sqrt(DRAWS)


def test_few_draws_leave_room() -> None:
    """No variance vanishes, and few draws tell no correlations."""
    fitted = reference_for(en.Ring(), {"x": np.array([[2.0, 2.0], [2.0, 2.0]], np.float32)})
    assert isinstance(fitted, Fitted)
    np.testing.assert_allclose(fitted.mean, [2.0, 2.0])
    np.testing.assert_allclose(fitted.factor @ fitted.factor.T, 5 / 7 * np.eye(2), rtol=1e-6)
    odds = reference_for(MACHINE, {"v": np.ones((2, 2)), "h": np.zeros((2, 2))})
    assert isinstance(odds, Fitted)
    np.testing.assert_allclose(np.exp(odds.log_odds["v"])[:, 1], (2 + 2.5) / 7, rtol=1e-6)


def test_correlations_of_few_effective_draws() -> None:
    """Strong ones stay, and those that could be noise go."""
    rng = np.random.default_rng(0)
    wide = en.energy(x=en.Real((20,)))(lambda x: jnp.sum(x))
    unit, common = Fitted.unit(wide), rng.normal(size=(40, 1))
    kept = {}
    for name, shared in (("none", 0.0), ("strong", 3.0)):
        rows = {"x": rng.normal(size=(40, 20)) + shared * common}
        summary = unit.summary(rows)
        for count in (40, 1e6):
            fitted = unit.fit(summary, np.float32(1e6), np.float32(count))
            got = np.asarray(fitted.factor @ fitted.factor.T, float)
            sample = np.cov(rows["x"].T, ddof=0)
            np.testing.assert_allclose(np.diag(got), np.diag(sample), rtol=1e-3)
            away = ~np.eye(20, dtype=bool)
            kept[name, count] = np.median(got[away] / sample[away])
    assert kept["none", 40] < 0.2
    assert kept["strong", 40] > 0.9
    assert min(kept["none", 1e6], kept["strong", 1e6]) > 0.999


def test_conditionals_of_a_fitted_law() -> None:
    """Against differences of its energies."""
    wide = en.energy(x=en.Real((40,)), z=en.Spin((2,)))(lambda x, z: jnp.sum(x) + jnp.sum(z))
    rng = np.random.default_rng(1)
    positions = {"x": rng.normal(size=(9, 40)), "z": rng.choice([-1.0, 1.0], (9, 2))}
    fitted = reference_for(wide, positions)
    assert isinstance(fitted, Fitted)
    assert fitted.factor.ndim == 1
    values = {"x": jnp.asarray(rng.normal(size=40), float), "z": jnp.asarray([1.0, -1.0])}
    normal, odds = fitted._factorize("x", values), fitted._factorize("z", values)
    assert isinstance(normal, Normal)
    assert isinstance(odds, Categorical)
    x = values["x"]
    quadratic = normal.base - jnp.sum(normal.linear * x) + 0.5 * jnp.sum(normal.precision * x**2)
    np.testing.assert_allclose(quadratic, fitted.at(values), rtol=1e-5)
    np.testing.assert_allclose(
        odds.base - odds.logits[0, 1] - odds.logits[1, 0], fitted.at(values), rtol=1e-5
    )
    np.testing.assert_allclose(odds.free_energy(), odds.base, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reference_for(likelihood.condition(mu=0.0)), "is positive.*: give reference="),
        (lambda: reference_for(en.energy(lambda x: x**2)), "which is None: give reference="),
        (
            lambda: reference_for(en.energy(n=en.Natural())(lambda n: n)),
            "no reference can be fitted to 'n'",
        ),
        (lambda: reference_for(MACHINE, {"v": np.ones((2, 2))}), r"positions= lacks \['h'\]"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
