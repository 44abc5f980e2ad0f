"""Distributions by name: densities against SciPy, supports, parameters that are variables."""

import inspect
import itertools
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

import energia as en
from energia.energies._laws import LAWS
from energia.energies._unconstrained import Unconstrained

stats: Any = scipy.stats
COVARIANCE = np.array([[2.0, 0.6], [0.6, 1.0]])


class Case(NamedTuple):
    """A distribution, and SciPy's: `logpdf` of an array of draws."""

    parameters: dict[str, Any]
    exact: Any
    draws: Any


def scipy_case(frozen, **parameters):
    logp = frozen.logpdf if hasattr(frozen.dist, "pdf") else frozen.logpmf
    return Case(parameters, logp, frozen.rvs(20, random_state=1))


def ordered_logistic(x):
    cuts = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf])
    upper, lower = (stats.logistic(0.5).cdf(cuts[x + k]) for k in (1, 0))
    return np.log(upper - lower)


def asymmetric(x):
    return stats.laplace_asymmetric(1.5, 1.0, 2.0).logpdf(x)


def zero_inflated(x):
    return np.log(0.2 * (x == 0) + 0.8 * stats.poisson(3.0).pmf(x))


CASES = {
    "Normal": scipy_case(stats.norm(1.0, 2.0), loc=1.0, scale=2.0),
    "HalfNormal": scipy_case(stats.halfnorm(scale=2.0), scale=2.0),
    "LogNormal": scipy_case(stats.lognorm(0.5, scale=np.e), loc=1.0, scale=0.5),
    "TruncatedNormal": scipy_case(
        stats.truncnorm(-0.25, 1.0, loc=1.0, scale=2.0), loc=1.0, scale=2.0, low=0.5, high=3.0
    ),
    "Cauchy": scipy_case(stats.cauchy(1.0, 2.0), loc=1.0, scale=2.0),
    "HalfCauchy": scipy_case(stats.halfcauchy(scale=2.0), scale=2.0),
    "StudentT": scipy_case(stats.t(4.0, 1.0, 2.0), df=4.0, loc=1.0, scale=2.0),
    "Laplace": scipy_case(stats.laplace(1.0, 2.0), loc=1.0, scale=2.0),
    "AsymmetricLaplace": Case(
        # NumPyro's rates are asymmetry / scale above the location and 1 / (asymmetry scale) below
        {"loc": 1.0, "scale": 2.0, "asymmetry": 1.5},
        asymmetric,
        stats.laplace_asymmetric(1.5, 1.0, 2.0).rvs(20, random_state=1),
    ),
    "Logistic": scipy_case(stats.logistic(1.0, 2.0), loc=1.0, scale=2.0),
    "Gumbel": scipy_case(stats.gumbel_r(1.0, 2.0), loc=1.0, scale=2.0),
    "Exponential": scipy_case(stats.expon(scale=0.5), rate=2.0),
    "Gamma": scipy_case(stats.gamma(3.0, scale=0.5), concentration=3.0, rate=2.0),
    "InverseGamma": scipy_case(stats.invgamma(3.0, scale=2.0), concentration=3.0, rate=2.0),
    "Chi2": scipy_case(stats.chi2(3.0), df=3.0),
    "Weibull": scipy_case(stats.weibull_min(1.5, scale=2.0), scale=2.0, concentration=1.5),
    "Pareto": scipy_case(stats.pareto(3.0, scale=2.0), scale=2.0, alpha=3.0),
    "Beta": scipy_case(stats.beta(2.0, 3.0), concentration1=2.0, concentration0=3.0),
    "Uniform": scipy_case(stats.uniform(-1.0, 3.0), low=-1.0, high=2.0),
    "LogUniform": scipy_case(stats.loguniform(0.1, 10.0), low=0.1, high=10.0),
    "VonMises": scipy_case(stats.vonmises(2.0, loc=0.5), loc=0.5, concentration=2.0),
    "Bernoulli": scipy_case(stats.bernoulli(0.3), probs=0.3),
    "Discrete": Case(
        {"probs": [0.2, 0.3, 0.5]},
        lambda x: np.log(np.array([0.2, 0.3, 0.5])[x]),
        np.arange(18) % 3,
    ),
    "OrderedLogistic": Case(
        {"predictor": 0.5, "cutpoints": [-1.0, 0.0, 1.0]}, ordered_logistic, np.arange(16) % 4
    ),
    "Binomial": scipy_case(stats.binom(10, 0.3), total_count=10, probs=0.3),
    "BetaBinomial": scipy_case(
        stats.betabinom(10, 2.0, 3.0), concentration1=2.0, concentration0=3.0, total_count=10
    ),
    "Poisson": scipy_case(stats.poisson(3.0), rate=3.0),
    "ZeroInflatedPoisson": Case({"gate": 0.2, "rate": 3.0}, zero_inflated, np.arange(8)),
    "NegativeBinomial": scipy_case(stats.nbinom(3.0, 0.6), total_count=3.0, probs=0.4),
    "NegativeBinomial2": scipy_case(stats.nbinom(2.0, 0.4), mean=3.0, concentration=2.0),
    "Geometric": scipy_case(stats.geom(0.3, loc=-1), probs=0.3),
    "Dirichlet": Case(
        {"concentration": [1.0, 2.0, 3.0]},
        lambda x: np.array([stats.dirichlet([1.0, 2.0, 3.0]).logpdf(row) for row in x]),
        stats.dirichlet([1.0, 2.0, 3.0]).rvs(20, random_state=1),
    ),
    "MultivariateNormal": Case(
        {"loc": [1.0, -1.0], "covariance_matrix": COVARIANCE},
        stats.multivariate_normal([1.0, -1.0], COVARIANCE).logpdf,
        stats.multivariate_normal([1.0, -1.0], COVARIANCE).rvs(20, random_state=1),
    ),
}
# JAX's betaln has seven digits where both arguments are large, in 64 bits as well.
INEXACT = {"BetaBinomial": 1e-6, "NegativeBinomial2": 1e-6}
TABLE = pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)


def made(name, case, **options):
    return getattr(en, name)("y", **case.parameters, **options)


def test_every_distribution_is_exported_and_in_the_table():
    assert set(CASES) | {"LKJ"} == set(LAWS)
    assert set(LAWS) <= set(en.__all__)


@TABLE
def test_densities_are_scipys(name, case):
    exact = case.exact(case.draws)
    scale = 1 + np.abs(exact)
    got = np.asarray(jax.jit(jax.vmap(made(name, case).log_density))(case.draws))
    np.testing.assert_allclose((got - exact) / scale, 0, atol=1e-5)
    with jax.enable_x64(True):
        got = np.asarray(jax.jit(jax.vmap(made(name, case).log_density))(case.draws))
        np.testing.assert_allclose((got - exact) / scale, 0, atol=INEXACT.get(name, 1e-10))


@TABLE
def test_gradients_are_finite_and_supports_hold_the_draws(name, case):
    energy = made(name, case)
    support = energy.supports["y"]
    assert support is not None
    draws = np.asarray(case.draws).astype(support.dtype)
    assert support.shape == draws.shape[1:]
    assert np.all(support.contains(draws))
    if not support.discrete:
        assert np.isfinite(jax.vmap(energy.score)(draws)).all()


@pytest.mark.slow
@TABLE
def test_energies_keep_the_laws(name, case):
    energy = made(name, case)
    support = energy.supports["y"]
    assert support is not None
    en.testing.check_energy(energy, {"y": case.draws[0].astype(support.dtype)})


@TABLE
def test_parameters_may_be_numbers_variables_or_functions(name, case):
    y = np.asarray(case.draws)[0]
    numbers = {n: jnp.asarray(p) for n, p in case.parameters.items()}
    expected = made(name, case)(y)
    shape = np.shape(y)
    make = getattr(en, name)
    named = make("y", **{n: f"the_{n}" for n in numbers}, shape=shape)
    assert named.variables == ("y", *(f"the_{n}" for n in numbers))
    values = {f"the_{n}": p for n, p in numbers.items()}
    np.testing.assert_allclose(named.at({"y": y, **values}), expected, rtol=1e-6)
    bound = named.condition(**values)
    np.testing.assert_allclose(bound(y), expected, rtol=1e-6)
    first = next(iter(numbers))
    functions = {**numbers, first: lambda scale, half: half + half + 0 * scale}
    computed = make("y", **functions, shape=shape)  # its arguments are no parameters
    assert computed.variables == ("y", "scale", "half")
    got = computed(y=y, scale=jnp.array(3.0), half=numbers[first] / 2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    alone = make("y", **{n: f"the_{n}" for n in numbers})  # a scalar, unless draws are arrays
    support = alone.supports["y"]
    assert (support is None) == (y.ndim > 0 or name in ("Discrete", "OrderedLogistic"))
    assert support is None or support.shape == ()
    np.testing.assert_allclose(alone.at({"y": y, **values}), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("energy", "size", "concentration"), [(en.LKJ("y", 2, 1.5), 1, 1.5), (en.LKJ(3, 2.0), 3, 2.0)]
)
def test_lkj_is_normalised_and_has_beta_marginals(energy, size, concentration):
    energy = Unconstrained(energy)
    line = np.linspace(-9, 9, 61)
    z: Any = np.array(list(itertools.product(line, repeat=size)), np.float32)
    weights = np.exp(-np.asarray(jax.jit(jax.vmap(energy))(z), float)) * (line[1] - line[0]) ** size
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-4)
    (support,) = energy.energy.supports.values()
    r = np.asarray(jax.jit(jax.vmap(lambda z: support.constrain(z)[0]))(z))[:, 1, 0]  # pyright: ignore
    dimension = 2 if size == 1 else 3
    a = concentration - 1 + dimension / 2
    exact = stats.beta(a, a, loc=-1, scale=2)
    for moment in (2, 4):
        np.testing.assert_allclose((weights * r**moment).sum(), exact.moment(moment), rtol=1e-3)


def test_logits_and_the_forms_of_a_covariance():
    logits = np.log(0.3 / 0.7)
    for probs, other in [
        (en.Bernoulli(0.3), en.Bernoulli(logits=logits)),
        (en.Binomial(10, 0.3), en.Binomial(total_count=10, logits=logits)),
        (en.Geometric(0.3), en.Geometric(logits=logits)),
        (en.Discrete([0.3, 0.7]), en.Discrete(logits=[0.0, -logits])),
    ]:
        np.testing.assert_allclose(probs(1), other(1), rtol=1e-5)
    forms = {
        "covariance_matrix": COVARIANCE,
        "precision_matrix": np.linalg.inv(COVARIANCE),
        "scale_tril": np.linalg.cholesky(COVARIANCE),
    }
    x = np.array([0.3, -2.0])
    values = [en.MultivariateNormal([0.0, 1.0], **{n: m})(x) for n, m in forms.items()]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_shapes_and_supports():
    assert en.Normal("mu", 0.0, 5.0).supports == {"mu": en.Real()}
    assert en.Normal(0.0, [1.0, 2.0]).supports == {"x": en.Real(2)}
    assert en.HalfNormal(1.0, shape=(2, 3)).supports == {"x": en.Positive((2, 3))}
    assert en.Bernoulli("z", "p", shape=4).supports == {"z": en.Binary(4), "p": None}
    assert en.Discrete(np.full((5, 3), 1 / 3)).supports == {"x": en.Categorical(3, 5)}
    assert en.Binomial(3, "p", shape=2).supports["x"] == en.Categorical(4, 2)
    assert en.Binomial([3, 4], 0.5).supports == {"x": en.Natural(2)}
    assert en.Dirichlet(np.ones((2, 3))).supports == {"x": en.Simplex(3, batch=2)}
    assert en.LKJ("L", 3, 1.0).supports == {"L": en.CholeskyCorrelation(3)}
    assert en.TruncatedNormal(0.0, 1.0, low=1.0).supports == {"x": en.Interval(1.0, np.inf)}
    for bounded in (
        en.Uniform("b", 0.0, "a", shape=()),
        en.Pareto("b", lambda a: 2 * a, 1.0, shape=()),
    ):
        support = bounded.supports["b"]
        assert support is not None
        assert support.depends == ("a",)


def test_bounds_that_are_variables_are_sampled_inside(key):
    energy = en.Uniform("a", 0.0, 1.0) + en.Uniform("b", 0.0, lambda a: 1 - a, shape=())
    draws = en.sample(energy, "nuts", key=key, num_chains=4, num_warmup=300, num_samples=2000)
    a, b = draws["a"], draws["b"]
    assert np.all(a + b < 1)
    assert abs(np.mean(a) - 0.5) < 0.05  # b is uniform given a, which stays uniform
    assert abs(np.mean(b) - 0.25) < 0.03


def test_an_unknown_support_is_no_excuse_to_leave_it():
    energy = en.Dirichlet("s", "alpha")
    inside, outside = jnp.array([0.5, 0.5]), jnp.array([-0.5, 1.5])
    assert energy(s=outside, alpha=jnp.ones(2)) == jnp.inf
    assert energy(s=inside, alpha=jnp.ones(2)) == en.Dirichlet(jnp.ones(2))(inside)


def test_a_scalar_unless_a_shape_is_said():
    assert en.HalfNormal("s", "tau").supports["s"] == en.Positive()
    assert en.Normal("y", "mu", jnp.ones(3)).supports["y"] == en.Real(3)
    with pytest.raises(ValueError, match=r"shape= says what one value is.*\(8,\).*\(\)"):
        en.Normal("theta", "mu", 1.0)(theta=0.0, mu=jnp.zeros(8))
    with pytest.raises(ValueError, match=r"outside its support natural .* -1.* at index \(1,\)"):
        en.total(en.Poisson("y", "rate"), y=[1, -1])


def test_eight_schools_reads_like_the_model():
    effects, errors = np.array([28.0, 8.0, -3.0]), np.array([15.0, 10.0, 16.0])
    E = (
        en.Normal("mu", 0.0, 5.0)
        + en.HalfCauchy("tau", 5.0)
        + en.Normal("theta", "mu", "tau", shape=3)
        + en.Normal("y", "theta", errors, shape=3).condition(y=effects)
    )
    assert E.variables == ("mu", "tau", "theta")
    assert str(E) == (
        "Normal(mu | loc=0.0, scale=5.0) + HalfCauchy(tau | scale=5.0) + Normal(theta | mu, tau) + "
        "Normal(y=[28.  8. -3.] | theta, scale=[15. 10. 16.])  "
        "[mu: real (), tau: positive (), theta: real (3,); 0 parameters]"
    )
    theta = np.array([1.0, 2.0, 3.0])
    exact = (
        stats.norm(0, 5).logpdf(1.5)
        + stats.halfcauchy(scale=5).logpdf(0.7)
        + stats.norm(1.5, 0.7).logpdf(theta).sum()
        + stats.norm(theta, errors).logpdf(effects).sum()
    )
    np.testing.assert_allclose(E.log_density(mu=1.5, tau=0.7, theta=theta), exact, rtol=1e-5)


# --- closed forms


def test_normal_factors_integrate_the_value_and_the_location():
    sigma = np.array([1.0, 2.0, 0.5])
    y = np.array([0.3, -1.0, 2.0])
    prior = en.Normal("mu", 1.0, 2.0)
    middle = en.Normal("theta", "mu", "tau", shape=3)
    data = en.Normal("y", "theta", sigma, shape=3).condition(y=y)
    free = (prior + middle + data).marginalize("theta")
    assert set(free.variables) == {"mu", "tau"}
    for tau in (0.3, 1.7):
        exact = stats.norm(-0.5, np.hypot(sigma, tau)).logpdf(y).sum()
        exact += stats.norm(1, 2).logpdf(-0.5)
        np.testing.assert_allclose(free.log_density(tau=tau, mu=-0.5), exact, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 3)], ids=str)
def test_a_location_narrower_than_the_value(shape):
    y = np.arange(6.0).reshape(2, 3)
    data = en.Normal("y", "mu", "s", shape=(2, 3)).condition(y=y)
    free = (en.Normal("mu", 0.0, 1.0, shape=shape) + data).marginalize("mu")
    group = np.broadcast_to(np.arange(np.prod(shape)).reshape(shape), (2, 3)).ravel()
    covariance = 4 * np.eye(6) + (group[:, None] == group)
    exact = stats.multivariate_normal(np.zeros(6), covariance).logpdf(y.ravel())
    np.testing.assert_allclose(free.log_density(s=2.0), exact, rtol=1e-5)


@pytest.mark.parametrize(
    "prior",
    [
        en.Bernoulli("z", "p", shape=3),
        en.Discrete("z", lambda p: jnp.stack([1 - p, p / 2, p / 2]), shape=3).constrain(
            z=en.Categorical(3, 3)
        ),
        en.Binomial("z", 2, "p", shape=3),
        en.BetaBinomial("z", lambda p: 3 * p, 2.0, 2, shape=3),
        en.OrderedLogistic("z", "p", [0.0, 1.0], shape=3),
    ],
    ids=["bernoulli", "discrete", "binomial", "beta-binomial", "ordered"],
)
def test_discrete_factors_agree_with_enumeration(prior):
    count = len(prior.supports["z"].states)
    factors = prior._factorize("z", {"p": jnp.array(0.3)})
    assert factors is not None
    states = np.array(list(itertools.product(range(count), repeat=3)))
    from_factors = np.asarray(factors.base) - np.asarray(factors.logits)[range(3), states].sum(1)
    rows = states.astype(prior.supports["z"].dtype)
    energies = jax.jit(jax.vmap(lambda z: prior(z=z, p=0.3)))(rows)
    np.testing.assert_allclose(from_factors, energies, rtol=1e-5, atol=1e-6)
    log_sum: Any = logsumexp(-from_factors)
    np.testing.assert_allclose(-factors.free_energy(), log_sum, atol=1e-6)


def test_tied_parameters():
    energy = en.Gamma("g", "nu", "nu", shape=())
    assert energy.variables == ("g", "nu")
    exact = stats.gamma(2.0, scale=0.5).logpdf(1.3)
    np.testing.assert_allclose(energy.log_density(g=1.3, nu=2.0), exact, rtol=1e-5)
    tied = en.Normal("y", lambda y: 2 * y, 1.0, shape=2)  # a function of the value itself
    assert tied._factorize("y", {}) is None


# --- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: en.Normal("x", 0.0), TypeError, "needs scale"),
        (lambda: en.Normal("x", 0.0, 1.0, 2.0), TypeError, "got 3 parameters by position"),
        (lambda: en.Normal("x", 0.0, sigma=1.0), TypeError, "unknown parameter 'sigma'"),
        (lambda: en.Normal("x", 0.0, 1.0, loc=1.0), TypeError, "got 'loc' twice"),
        (lambda: en.Bernoulli(0.3, logits=0.1), TypeError, "probs or logits, and one of them"),
        (lambda: en.TruncatedNormal(0.0, 1.0), TypeError, "needs low or high"),
        (lambda: en.Normal(0.0, -1.0), ValueError, r"scale= must be finite and in Positive.*-1"),
        (lambda: en.Normal(np.nan, 1.0), ValueError, "loc= must be finite"),
        (lambda: en.Bernoulli(1.5), ValueError, r"probs= must be .*UnitInterval.*1\.5"),
        (lambda: en.Dirichlet(1.0), ValueError, "at least 1 axes"),
        (lambda: en.Uniform(1.0, 0.0), ValueError, "low < high"),
        (lambda: en.Uniform("u", [1.0], [0.0]), ValueError, "low < high"),
        (lambda: en.Normal([0.0, 1.0], [1.0, 1.0, 1.0]), ValueError, "do not fit together"),
        (lambda: en.Normal([0.0, 1.0], 1.0, shape=3), ValueError, "does not broadcast"),
        (lambda: en.Dirichlet([1.0, 1.0], shape=3), ValueError, "draws of shape"),
        (lambda: en.Dirichlet("a", "b", shape=()), ValueError, "draws of 1 axes"),
        (lambda: en.Normal("x", "x", 1.0), ValueError, "its own parameter"),
        (lambda: en.Normal("my x", 0.0, 1.0), ValueError, "no Python name"),
        (lambda: en.Normal("x", en.Ring(), 1.0), TypeError, "the name of a variable"),
        (lambda: en.LKJ("L", 1, 1.0), ValueError, "dimension= must be at least 2"),
        (lambda: en.Normal("x", 0.0, 1.0)(jnp.zeros(3)), ValueError, "one value of shape"),
        (lambda: en.Normal("x", "m", 1.0)(x=0.0, m=jnp.zeros(3)), ValueError, "does not broadcast"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numbers_are_never_trained_and_recompile_nothing(compilations):
    assert "0 parameters" in str(en.Normal("x", 0.0, 1.0))
    value = jax.jit(lambda energy, x: energy(x))
    x = jnp.array(0.5)
    energies = [en.Normal("x", loc, 2.0) for loc in (0.0, 1.0)]
    value(energies[0], x)
    with compilations() as seen:
        value(energies[1], x)
    assert seen.count == 0, seen.compiled


def test_signatures_and_help():
    assert str(inspect.signature(en.Binomial)) == (
        "(name, total_count, probs, *, logits=None, shape=None)"
    )
    assert en.Normal.__name__ == "Normal"
    assert "scale: scale, positive" in str(en.Normal.__doc__)


def test_numpyro_is_imported_where_it_is_needed_and_its_absence_is_told():
    script = """
import sys
sys.modules["numpyro"] = None
import energia as en
print(en.Uniform("u", 0.0, 2.0)(1.0), en.interop.from_log_density(lambda x: -x)(1.0))
for call in (lambda: en.Normal(0.0, 1.0), lambda: en.interop.from_numpyro(print),
             lambda: en.interop.to_numpyro(en.Ring())):
    try:
        call()
    except ImportError as error:
        assert "pip install 'energia[numpyro]'" in str(error), error
    else:
        raise AssertionError("no ImportError")
del sys.modules["numpyro"]
assert not any(name.startswith("numpyro") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
