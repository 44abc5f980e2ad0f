"""Functions of draws, and leave-one-out: against closed forms, saved and handed to ArviZ."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.sampling import _predictive

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")

SPREAD, WIDTH = 1.5, 2.0  # of a row around mu, and of mu's prior
Y = np.array([1.3, -0.4, 2.9, 0.7, 1.1, -2.6, 3.8, 0.2, 1.9, 6.0], np.float32)


@en.energy
def normal(mu, y):
    return 0.5 * ((y - mu) / SPREAD) ** 2 + jnp.log(SPREAD) + 0.5 * jnp.log(2 * jnp.pi)


@en.energy
def unnormalised(mu, y):
    return 0.5 * ((y - mu) / SPREAD) ** 2


PRIOR = en.Gaussian(0.0, scale=WIDTH).rename(x="mu")
POSTERIOR = PRIOR + en.total(normal, y=Y)
PRECISION = 1 / WIDTH**2 + len(Y) / SPREAD**2
MEAN = Y.sum() / SPREAD**2 / PRECISION


def replicate(mu, key):
    return mu + SPREAD * jax.random.normal(key, Y.shape)


@pytest.fixture(scope="module")
def draws() -> en.Draws:
    sampler = en.samplers.HMC(num_integration_steps=3)
    return en.sample(POSTERIOR, sampler, key=jax.random.key(5), num_chains=40)


# --- predictive


@pytest.mark.smoke
def test_posterior_predictive_moments(draws, key):
    y = draws.predictive(replicate, key=key, name="y").groups["posterior_predictive"]["y"]
    assert y.shape == (40, 1000, 10)
    each = np.asarray(y, float).mean(axis=(1, 2))
    assert abs(each.mean() - MEAN) < 5 * each.std(ddof=1) / np.sqrt(40)
    # rows of one draw share mu, and no noise: the covariance of two is the variance of mu
    centred = np.asarray(y, float) - MEAN
    variance = (centred**2).mean(axis=(1, 2))
    covariance = (centred[..., 0] * centred[..., 1]).mean(axis=1)
    for found, exact in [(variance, SPREAD**2 + 1 / PRECISION), (covariance, 1 / PRECISION)]:
        assert abs(found.mean() - exact) < 5 * found.std(ddof=1) / np.sqrt(40)
    # one key for all draws would pass for the mean of rows, not for this
    assert len(np.unique(np.asarray(y - draws["mu"][..., None])[..., 0])) > 20_000


def test_result_does_not_depend_on_chunks_or_on_how_many_draws(draws, key, monkeypatch):
    whole = draws.predictive(replicate, key=key).groups["posterior_predictive"]["replicate"]
    monkeypatch.setattr(_predictive, "CHUNK_BYTES", 40 * 700)  # 700 draws, which do not divide
    cut = draws.predictive(replicate, key=key).groups["posterior_predictive"]["replicate"]
    np.testing.assert_allclose(cut, whole, rtol=1e-6)
    longer = en.sample(POSTERIOR, "mala", key=key, num_samples=100)
    before = longer.predictive(replicate, key=key).groups["posterior_predictive"]["replicate"]
    after = longer.extend(37).predictive(replicate, key=key)
    assert after.groups["posterior_predictive"]["replicate"].shape == (4, 137, 10)
    np.testing.assert_allclose(
        after.groups["posterior_predictive"]["replicate"][:, :100], before, rtol=1e-6
    )


def test_what_is_large_inside_cuts_chunks(draws):
    def spread(mu):
        return jnp.sin(mu * jnp.arange(100_000.0)).mean()  # 0.4 MB, of which one number stays

    values = {"mu": draws.positions["mu"].reshape(-1)}
    assert _predictive._largest(_predictive._Named(spread, None), values, None) == 400_000


def test_a_second_call_compiles_nothing(draws, key, compilations):
    def fresh(mu, key):
        return mu + jax.random.uniform(key)

    other = jax.random.fold_in(key, 1)
    with compilations() as seen:
        draws.predictive(fresh, key=key)
    assert seen.count == 1, seen.compiled
    with compilations() as seen:
        draws.predictive(fresh, key=other)
    assert seen.count == 0, seen.compiled


def test_arrays_of_a_module_are_arguments(draws, compilations):
    class Line(eqx.Module):
        slope: jax.Array

        def __call__(self, mu):
            return self.slope * mu

    lines = [Line(jnp.array(2.0)), Line(jnp.array(3.0))]
    draws.predictive(lines[0])
    with compilations() as seen:
        made = draws.predictive(lines[1]).groups["posterior_predictive"]["Line"]
    assert seen.count == 0, seen.compiled
    np.testing.assert_allclose(made, 3 * draws["mu"], rtol=1e-6)


def test_dicts_groups_and_discrete_results(draws, key):
    def several(mu, key):
        return {"above": mu > 0, "count": jnp.int32(2), "pair": jnp.stack([mu, -mu])}

    more = draws.predictive(several, key=key).predictive(lambda mu: mu**2, name="square")
    more = more.predictive(lambda mu: 7 * mu, name="y", group="predictions")
    assert list(more.groups) == ["posterior_predictive", "predictions"]
    made = more.groups["posterior_predictive"]
    assert list(made) == ["above", "count", "pair", "square"]
    assert made["above"].dtype == bool
    assert made["count"].shape == (40, 1000)
    np.testing.assert_array_equal(made["above"], draws["mu"] > 0)
    again = more.predictive(lambda mu: -mu, name="square").groups["posterior_predictive"]
    np.testing.assert_array_equal(again["square"], -draws["mu"])
    assert draws.groups == {}


def test_arviz_saving_and_going_on(key, tmp_path):
    draws = en.sample(POSTERIOR, "mala", key=key, num_samples=50)
    draws = draws.predictive(replicate, key=key, name="y", observed={"y": Y})
    draws = draws.predictive(lambda mu: mu + 1, name="y", group="predictions")
    tree = draws.to_arviz()
    assert tree.posterior_predictive["y"].dims == ("chain", "draw", "y_dim_0")
    assert tree.observed_data["y"].dims == ("y_dim_0",)
    assert tree.predictions["y"].dims == ("chain", "draw")
    assert tree.posterior_predictive.attrs["inference_library"] == "energia"
    assert list(draws.summary().index) == ["mu"]
    path = tmp_path / "draws.npz"
    draws.save(path)
    loaded = en.Draws.load(path, energy=POSTERIOR)
    assert list(loaded.groups) == list(draws.groups)
    for group, made in draws.groups.items():
        np.testing.assert_array_equal(loaded.groups[group]["y"], made["y"])
    longer = loaded.extend(10)
    assert list(longer.groups) == ["observed_data"]
    np.testing.assert_array_equal(longer.groups["observed_data"]["y"], Y)


@pytest.mark.parametrize(
    ("fn", "options", "error", "message"),
    [
        (3, {}, TypeError, "takes a function of variables, got 3"),
        (lambda nu: nu, {}, ValueError, r"takes \['nu'\]; the draws have \['mu'\]"),
        (lambda **mu: mu, {}, TypeError, "variables are the names of parameters"),
        (replicate, {}, ValueError, "replicate takes a key: give key="),
        (replicate, {"key": jnp.zeros(2, jnp.uint32)}, TypeError, "typed JAX key"),
        (lambda mu: mu, {}, ValueError, "has no name: give name="),
        (lambda mu: {"a": mu}, {"name": "b"}, ValueError, "name='b' is given, .* returns a dict"),
        (lambda mu: {}, {}, TypeError, "must return arrays by name"),
        (lambda mu: {1: mu}, {}, TypeError, r"must return arrays by name, got the names \[1\]"),
        (lambda mu: None, {"name": "y"}, TypeError, "expected numbers, got None"),
        (lambda mu: mu, {"name": "y", "group": "posterior"}, ValueError, "'predictions'"),
        (lambda mu: mu, {"name": "y", "observed": [1]}, TypeError, "a dict of arrays"),
        (lambda mu: mu, {"name": "y", "observed": {"x": 1}}, ValueError, r"predicted is \['y'\]"),
        (lambda mu: mu, {"name": "y", "observed": {"y": [1]}}, ValueError, r"shape \(1,\)"),
    ],
)
def test_refused(draws, fn, options, error, message):
    predictive = inspect.unwrap(en.Draws.predictive)  # below the type checker of the tests
    with pytest.raises(error, match=message):
        predictive(draws, fn, **options)


# --- leave-one-out


def exact_loo() -> np.ndarray:
    """log p(y_i | the others), normal with known variances."""
    y = Y.astype(float)
    precision = 1 / WIDTH**2 + (len(y) - 1) / SPREAD**2
    mean = (y.sum() - y) / SPREAD**2 / precision
    variance = SPREAD**2 + 1 / precision
    return -0.5 * (y - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)


def standard_errors(draws: en.Draws) -> np.ndarray:
    """Of the importance sampling estimates of log p(y_i | the others), from 40 chains."""
    mu = np.asarray(draws["mu"], float)[..., None]
    log_density = -0.5 * ((Y - mu) / SPREAD) ** 2 - np.log(SPREAD * np.sqrt(2 * np.pi))
    ratios = np.exp(-log_density).mean(axis=1)
    return ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios)) / ratios.mean(axis=0)


@pytest.mark.smoke
def test_loo_is_exact_for_a_conjugate_normal(draws):
    result = draws.loo("normal")
    errors = standard_errors(draws)
    assert errors.max() < 0.05
    assert (np.abs(result.elpd_i.values - exact_loo()) < 5 * errors).all()
    assert abs(result.elpd - exact_loo().sum()) < 5 * np.sqrt((errors**2).sum())
    assert result.pareto_k.shape == Y.shape
    assert (result.pareto_k < 0.7).all()
    assert result.n_data_points == len(Y)
    assert not result.warning
    # what is not normalised is off by the constant left out: no tolerance hides that
    broken = draws.loo(en.total(unnormalised, y=Y))
    assert (np.abs(broken.elpd_i.values - exact_loo()) > 5 * errors).all()


def test_pareto_k_tells_of_a_row_that_the_draws_cannot_leave_out(key):
    far = np.concatenate([Y, [40.0]]).astype(np.float32)
    draws = en.sample(PRIOR + en.total(normal, y=far), "mala", key=key, num_samples=2000)
    with pytest.warns(UserWarning, match="Pareto"):
        result = draws.loo()
    assert int(np.argmax(result.pareto_k.values)) == len(Y)
    assert result.pareto_k.values.max() > 0.7


def test_wrappers_change_nothing(draws):
    plain = draws.loo("normal").elpd_i
    renamed = draws.loo(en.total(normal.rename(mu="m", y="obs"), obs=Y).rename(m="mu"))
    shifted = normal.substitute(mu=lambda mu, offset: mu - offset)
    substituted = en.total(shifted, y=Y + 2).condition(offset=-2.0)
    covariates = en.total(shifted, y=Y + np.arange(10), offset=-np.arange(10.0))
    frozen = draws.loo((1.0 * en.total(normal, y=Y).constrain(mu=en.Real())).freeze())
    np.testing.assert_allclose(renamed.elpd_i, plain, rtol=1e-5)
    np.testing.assert_allclose(frozen.elpd_i, plain, rtol=1e-5)
    for factor in (substituted, covariates):
        np.testing.assert_allclose(draws.loo(factor).elpd_i, plain, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_data_factors_by_name(key):
    labels = en.energy(z=en.Categorical(2))(lambda z: jnp.log(2.0) + 0.0 * z)
    component = normal.substitute(mu=lambda mu, z: mu + 3.0 * z)
    mixture = en.total((labels + component).marginalize("z"), y=Y)
    other = en.total(unnormalised, y=Y[:3])
    energy = PRIOR + (mixture + other).substitute(mu=lambda nu: 2 * nu).rename(nu="mu")
    draws = en.sample(energy, "mala", key=key, num_samples=200)
    assert draws.loo("normal").n_data_points == 10
    assert draws.loo("unnormalised").n_data_points == 3
    with pytest.raises(ValueError, match=r"'unnormalised' or 'y': Σ_\{i≤3\}"):
        draws.loo()
    with pytest.raises(ValueError, match=r"no data factor 'gamma': there are .*'normal'"):
        draws.loo("gamma")
    twice = en.sample(POSTERIOR + en.total(normal, y=Y[:3]), "mala", key=key, num_samples=20)
    with pytest.raises(ValueError, match="2 data factors are called 'normal'"):
        twice.loo("normal")


def test_refused_loo(draws, key, tmp_path):
    with pytest.raises(ValueError, match="takes one data factor"):
        draws.loo(PRIOR)
    with pytest.raises(ValueError, match=r"a function of \['nu'\]; the draws have \['mu'\]"):
        draws.loo(en.total(normal.rename(mu="nu"), y=Y))
    with pytest.raises(ValueError, match=r"weights its rows by 0\.5"):
        draws.loo((0.5 * en.total(normal, y=Y)).freeze())
    with pytest.raises(ValueError, match="row 0 is nan at draw 0 of chain 0"):
        draws.loo(en.total(normal, y=[np.nan, 1.0]))
    alone = en.sample(PRIOR, "mala", key=key, num_samples=20)
    with pytest.raises(ValueError, match="has no data factor: leave-one-out needs"):
        alone.loo()
    alone.save(tmp_path / "draws.npz")
    with pytest.raises(ValueError, match="loaded without their energy"):
        en.Draws.load(tmp_path / "draws.npz").loo("normal")
