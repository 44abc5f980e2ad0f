"""NumPyro's models as energies and energies as NumPyro's models."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import energia as en

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
X = np.random.default_rng(0).normal(size=(60, 3))
LABELS = (np.random.default_rng(1).random(60) < 1 / (1 + np.exp(-X @ [1.0, -1.0, 0.5]))) * 1.0


def eight_schools(errors, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", errors.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, errors), obs=y)


def logistic(x, y):
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def dependent():
    a: Any = numpyro.sample("a", dist.Uniform(0, 1))
    b = numpyro.sample("b", dist.Uniform(0, 1 - a))
    numpyro.sample("c", dist.TruncatedNormal(a, 1.0, low=b))
    numpyro.factor("tilt", -a)


def kinds():
    numpyro.sample("simplex", dist.Dirichlet(jnp.ones((2, 3))))
    numpyro.sample("chol", dist.LKJCholesky(3, 2.0))
    numpyro.sample("corr", dist.LKJ(2, 2.0))
    numpyro.sample("order", dist.ImproperUniform(dist.constraints.ordered_vector, (), (3,)))
    numpyro.sample("below", dist.RightTruncatedDistribution(dist.Normal(0.0, 1.0), 2.0))
    numpyro.sample("flag", dist.Bernoulli(0.3))
    numpyro.sample("state", dist.CategoricalProbs(jnp.array([0.2, 0.3, 0.5])).expand([2]))
    numpyro.sample("count", dist.Poisson(2.0))
    numpyro.sample("angle", dist.VonMises(0.0, 1.0))


MODELS = {
    "eight_schools": (eight_schools, (ERRORS,), {"y": EFFECTS}),
    "logistic": (logistic, (X, LABELS), {}),
    "dependent": (dependent, (), {}),
    "kinds": (kinds, (), {}),
}


@pytest.mark.parametrize(
    "name", [n if n != "kinds" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_the_energy_is_numpyros_log_density_and_keeps_the_laws(name):
    model, args, kwargs = MODELS[name]
    energy = en.interop.from_numpyro(model, *args, **kwargs)
    seeded = numpyro.handlers.substitute(
        numpyro.handlers.seed(model, 0), substitute_fn=numpyro.infer.init_to_uniform
    )
    trace = numpyro.handlers.trace(seeded).get_trace(*args, **kwargs)
    values = {n: trace[n]["value"] for n in energy.variables}
    assert energy.at(values) == -log_density(model, args, kwargs, values)[0]
    en.testing.check_energy(energy)
    if "count" in values:  # NumPyro has no flat site for counts without an end
        energy = energy.constrain(count=en.Categorical(100))
    again = en.interop.to_numpyro(energy)
    np.testing.assert_allclose(log_density(again, (), {}, values)[0], -energy.at(values), rtol=1e-6)
    back = en.interop.from_numpyro(again)
    np.testing.assert_allclose(back.at(values), energy.at(values), rtol=1e-6)
    for variable, support in energy.supports.items():
        assert support is not None
        if not support.discrete and not support.functional:
            assert back.supports[variable] == support


def test_supports():
    supports = en.interop.from_numpyro(kinds).supports
    assert supports["simplex"] == en.Simplex(3, batch=2)
    assert supports["chol"] == en.CholeskyCorrelation(3)
    assert supports["order"] == en.Ordered(3)
    assert supports["below"] == en.Interval(-np.inf, 2.0)
    assert supports["flag"] == en.Binary()
    assert supports["state"] == en.Categorical(3, 2)
    assert supports["count"] == en.Natural()
    assert supports["corr"] is not None
    assert supports["corr"].shape == (2, 2)
    supports = en.interop.from_numpyro(dependent).supports
    assert supports["b"].depends == ("a",)  # pyright: ignore[reportOptionalMemberAccess]
    assert supports["c"].depends == ("a", "b")  # pyright: ignore[reportOptionalMemberAccess]
    latent_data = en.interop.from_numpyro(eight_schools, ERRORS)
    assert latent_data.supports["y"] == en.Real(8)


def test_distributions():
    gamma = en.interop.from_numpyro(dist.Gamma(2.0, 3.0), name="rate")
    assert gamma.variables == ("rate",)
    assert str(gamma).startswith("Gamma(rate)")
    np.testing.assert_allclose(gamma(1.5), en.Gamma(2.0, 3.0)(1.5), rtol=1e-6)
    box = en.interop.from_numpyro(dist.Uniform(0.0, 2.0))
    assert box.supports == {"x": en.Interval(0.0, 2.0)}


def test_other_data_of_the_same_shape_compile_nothing(compilations):
    energies = [en.interop.from_numpyro(logistic, X, y) for y in (LABELS, 1 - LABELS)]
    value = eqx.filter_jit(lambda energy, beta: energy(beta))
    beta = jnp.zeros(3) + 0.1
    first = value(energies[0], beta)
    with compilations() as seen:
        second = value(energies[1], beta)
    assert seen.count == 0, seen.compiled
    assert first != second


def moments(draws: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard error of each entry of (chain, draw, entries), by batches of a chain."""
    chains = draws.reshape(draws.shape[0], draws.shape[1], -1)
    batches = chains.reshape(-1, 100, chains.shape[-1]).mean(1)
    return batches.mean(0), batches.std(0, ddof=1) / np.sqrt(len(batches))


def numpyro_draws(model, *args, **kwargs):
    mcmc = MCMC(
        NUTS(model, target_accept_prob=0.9),
        num_warmup=500,
        num_samples=2000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), *args, **kwargs)
    return {n: np.asarray(x) for n, x in mcmc.get_samples(group_by_chain=True).items()}


def check_same(one, other, names):
    for name in names:
        for power in (1, 2):
            (a, error_a), (b, error_b) = (
                moments(np.asarray(d[name]) ** power) for d in (one, other)
            )
            z = (a - b) / np.hypot(error_a, error_b)
            assert np.all(np.abs(z) < 5), f"{name}^{power}: z = {z}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")  # one transition may diverge
@pytest.mark.parametrize("name", ["eight_schools", "logistic", "dependent"])
def test_nuts_of_both_libraries_agree(name, key):
    model, args, kwargs = MODELS[name]
    energy = en.interop.from_numpyro(model, *args, **kwargs)
    nuts = en.samplers.NUTS(target_acceptance_rate=0.9)
    ours = en.sample(energy, nuts, key=key, num_chains=4, num_warmup=500, num_samples=2000)
    ours = {n: np.asarray(ours[n]) for n in energy.variables}
    for theirs in (
        numpyro_draws(model, *args, **kwargs),
        numpyro_draws(en.interop.to_numpyro(energy)),
    ):
        if "tau" in ours:  # heavy tails: compare their logarithm
            ours["tau"], theirs["tau"] = np.log1p(ours["tau"]), np.log1p(theirs["tau"])
        check_same(ours, theirs, energy.variables)
        if "tau" in ours:
            ours["tau"] = np.expm1(ours["tau"])


def subsampled():
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 100, subsample_size=10):
        numpyro.sample("y", dist.Normal(mu, 1), obs=jnp.zeros(10))


def with_param():
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1))


def reads_numbers(groups):
    with numpyro.plate("groups", int(groups.max()) + 1):
        numpyro.sample("x", dist.Normal(0, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: en.interop.from_numpyro(subsampled), ValueError, "leave out subsample_size"),
        (lambda: en.interop.from_numpyro(with_param), ValueError, "param site"),
        (lambda: en.interop.from_numpyro(lambda: None), ValueError, "no latent sample site"),
        (
            lambda: en.interop.from_numpyro(reads_numbers, np.array([0, 1, 2])),
            TypeError,
            "close over",
        ),
        (
            lambda: en.interop.from_numpyro(dist.DiscreteUniform(1, 6)),
            ValueError,
            "shift it in the model",
        ),
        (lambda: en.interop.from_numpyro(3), TypeError, "a model or a distribution"),
        (lambda: en.interop.from_numpyro(dist.Normal(), 1), TypeError, "takes name="),
        (lambda: en.interop.to_numpyro(en.energy(lambda x: x)), ValueError, "unknown"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_closing_over_what_must_be_numbers():
    energy = en.interop.from_numpyro(lambda: reads_numbers(np.array([0, 1, 2])))
    assert energy.supports == {"x": en.Real(3)}


# --- log densities


def test_from_log_density():
    def log_density(tau, theta):
        return -tau * jnp.sum(theta**2) + jnp.log(tau)

    supports = {"tau": en.Positive(), "theta": en.Real(2)}
    energy = en.from_log_density(log_density, supports)
    assert energy.supports == supports
    of_dict = en.from_log_density(lambda values: log_density(**values), supports)
    assert of_dict.supports == supports
    theta = jnp.array([1.0, 2.0])
    for each in (energy, of_dict):
        np.testing.assert_allclose(each(tau=0.5, theta=theta), 2.5 - np.log(0.5), rtol=1e-6)
        en.testing.check_energy(each)
    one = en.from_log_density(lambda x: -jnp.sum(x**2), en.Real(2))
    assert one.supports == {"x": en.Real(2)}
    assert en.from_log_density(log_density).supports == {"tau": None, "theta": None}
    assert en.interop.from_log_density is en.from_log_density


@pytest.mark.parametrize(
    ("supports", "error", "message"),
    [
        ({"other": en.Real()}, ValueError, "'other'"),
        (en.Real(), ValueError, "one support for the variables"),
    ],
)
def test_errors_of_log_densities(supports, error, message):
    with pytest.raises(error, match=message):
        en.from_log_density(lambda x, y: x + y, supports)


def test_bounds_beside_discrete_sites_are_refused():
    @en.energy(a=en.Interval(0, 1), b=en.Interval(lambda a: a, 1), k=en.Binary())
    def bounded(a, b, k):
        return a + b - k

    with pytest.raises(ValueError, match=r"beside the discrete \['k'\].*marginalize\('k'\)"):
        en.interop.to_numpyro(bounded)


def test_models_index_by_bernoulli_sites():
    def model(y):
        mu: Any = numpyro.sample("mu", dist.Normal(0, 5).expand([2]).to_event(1))
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    y = np.arange(3.0)
    energy, mu = en.interop.from_numpyro(model, y), jnp.array([0.5, -1.0])
    logs = [log_density(model, (y,), {}, {"mu": mu, "z": jnp.array(z)})[0] for z in (0, 1)]
    np.testing.assert_allclose(
        energy.marginalize("z").at({"mu": mu}), -jnp.logaddexp(*logs), rtol=1e-6
    )
