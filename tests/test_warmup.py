"""Warm-up: its windows, the metrics that it estimates, and what they are worth."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.mcmc.metrics import LowRankInverseMassMatrix

import energia as en
from energia.samplers._adaptation import window_schedule
from energia.samplers._blackjax import euclidean
from energia.samplers._metric import metric_init, metric_update
from energia.sampling._storage import decode, encode
from energia.testing import Target, check_sampler

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")

METRICS = ("diagonal", "dense", "low_rank")
COVARIANCE = np.array([[1.0, 0.9], [0.9, 1.0]])


def draw(sampler: Any, energy: en.Energy, **options: Any) -> en.Draws:
    return en.sample(energy, sampler, key=jax.random.key(0), **options)


# --- the windows


@pytest.mark.parametrize("num_warmup", [1, 2, 10, 19, 75, 150, 151, 1000, 100_000])
def test_windows(num_warmup: int) -> None:
    schedule = window_schedule(num_warmup)
    assert schedule["last"] == num_warmup - 1
    assert num_warmup - schedule["stop"] == min(50, num_warmup // 3)  # for the step size alone
    ends = schedule["window_ends"][schedule["window_ends"] >= 0]
    lengths = np.diff([-1, *ends])
    assert ends[-1] == schedule["stop"] - 1
    np.testing.assert_array_equal(lengths[:-1], 16 * 2 ** np.arange(len(lengths) - 1))
    assert len(lengths) == 1 or lengths[-1] >= 2 * lengths[-2]  # none is short


# --- the estimates


def fed(kind: str, draws: np.ndarray, window_ends: tuple[int, ...] = (), refused: Any = ()) -> Any:
    """The estimate after a run of one chain through these draws, with which a window ends."""

    @jax.jit
    def step(metric, draw, t, end, moved):
        state = en.samplers.NUTS(step_size=1.0, inverse_mass_matrix=np.ones(draw.size)).init(
            en.Gaussian(np.zeros(draw.size)), {"x": draw}, jax.random.key(0)
        )
        batch = jax.tree.map(lambda leaf: leaf[None], state)
        return metric_update(metric, batch, moved[None]).advance(t, jnp.asarray(True), end)

    metric = jax.tree.map(jnp.asarray, metric_init(kind, draws.shape[1]))
    ends = *window_ends, len(draws) - 1
    for t, x in enumerate(draws):
        numbers = jnp.asarray(t), jnp.asarray(t in ends), jnp.asarray(t not in refused)
        metric = step(metric, jnp.asarray(x, jnp.float32), *numbers)
    return metric.inverse_mass_matrix


def test_diagonal_is_the_variance_of_the_last_two_windows(key: jax.Array) -> None:
    draws = np.array(jax.random.normal(key, (60, 3))) * [0.01, 1.0, 100.0]
    draws[:16] += 1000.0  # the way to the typical set is forgotten
    metric = fed("diagonal", draws, window_ends=(15, 31))
    np.testing.assert_allclose(metric, draws[16:].var(0, ddof=1), rtol=1e-3)


@pytest.mark.parametrize("kind", ["auto", "dense"])
def test_dense_is_the_covariance_shrunk_to_its_diagonal(kind: str, key: jax.Array) -> None:
    factor = np.linalg.cholesky(COVARIANCE) * 3
    draws = np.array(jax.random.normal(key, (40, 2))) @ factor.T
    covariance = np.cov(draws.T)
    weight = 1 - (2 / 40) ** 2
    expected = np.where(np.eye(2, dtype=bool), covariance, weight * covariance)
    # the first two windows end together: 'auto' keeps correlations that both of two windows have
    np.testing.assert_allclose(fed(kind, draws, window_ends=(15,)), expected, rtol=1e-4)


def test_dense_stays_positive_definite_with_fewer_draws_than_dimensions(key: jax.Array) -> None:
    draws = np.array(jax.random.normal(key, (30, 40)))
    metric = fed("dense", draws)
    np.testing.assert_allclose(metric, np.diag(draws.var(0, ddof=1)), rtol=1e-3, atol=1e-6)
    nearly = np.array(jax.random.normal(key, (64, 2))) @ [[1.0, 1.0], [0.0, 1e-6]]
    assert np.isfinite(np.linalg.cholesky(np.asarray(fed("dense", nearly)))).all()


@pytest.mark.parametrize("kind", METRICS)
def test_what_was_refused_does_not_count(kind: str, key: jax.Array) -> None:
    draws = np.array(jax.random.normal(key, (64, 2))) * [1.0, 5.0]
    kept = np.concatenate([draws[:32], draws[33:], draws[:1]])
    away = np.insert(kept, 32, 1e6, axis=0)
    with_it = fed(kind, away[:64], refused={32})
    without = fed(kind, kept[:63])
    if kind != "low_rank":  # which estimates at certain steps only
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), with_it, without)
    assert all(np.abs(np.asarray(leaf)).max() < 1e3 for leaf in jax.tree.leaves(with_it))


@pytest.mark.parametrize("kind", METRICS)
def test_a_chain_that_does_not_move_keeps_its_metric(kind: str) -> None:
    metric = fed(kind, np.ones((40, 3)), refused=range(40))
    start = metric_init(kind, 3).inverse_mass_matrix
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), metric, start)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_momenta_have_the_mass_matrix_for_covariance(correlation: float, key: jax.Array) -> None:
    """Whether or not they go by a Cholesky factor: 20,000 draws, at five standard errors."""
    inverse = np.array([[4.0, correlation], [correlation, 0.25]], np.float32)
    metric = euclidean(jnp.asarray(inverse))
    position = {"a": jnp.zeros(()), "b": jnp.zeros(1)}
    keys = jax.random.split(key, 20_000)
    drawn: Any = jax.vmap(lambda key: metric.sample_momentum(key, position))(keys)
    momenta = np.stack([drawn["a"], drawn["b"][:, 0]], axis=1, dtype=np.float64)
    mass = np.linalg.inv(inverse)
    error = np.sqrt((mass**2 + np.outer(np.diag(mass), np.diag(mass))) / len(momenta))
    assert np.all(np.abs(momenta.T @ momenta / len(momenta) - mass) < 5 * error)


def test_auto_is_dense_where_that_is_cheap() -> None:
    assert metric_init("auto", 32).inverse_mass_matrix.ndim == 2  # pyright: ignore
    assert metric_init("auto", 33).inverse_mass_matrix.ndim == 1  # pyright: ignore


# --- in a run


def test_warmup_tunes_the_metric_and_leaves_it() -> None:
    energy = en.Gaussian(np.zeros(2), covariance=COVARIANCE)
    draws = draw("nuts", energy, num_warmup=1000, num_samples=100)
    metric = np.asarray(draws.tuned_sampler.inverse_mass_matrix)
    np.testing.assert_allclose(metric, [COVARIANCE] * 4, rtol=0.3)
    later = draws.extend(100).tuned_sampler.inverse_mass_matrix
    np.testing.assert_array_equal(later, metric)
    given = en.samplers.HMC(inverse_mass_matrix=[1.0, 0.25], metric="dense")
    tuned = draw(given, energy, num_warmup=300, num_samples=10).tuned_sampler
    np.testing.assert_array_equal(tuned.inverse_mass_matrix, [[1.0, 0.25]] * 4)


def test_metric_is_ordered_by_name() -> None:
    energy = en.Gaussian(0.0, scale=10.0).rename(x="z") + en.Gaussian(0.0, scale=0.1).rename(x="a")
    assert energy.variables == ("z", "a")
    draws = draw(en.samplers.NUTS(metric="diagonal"), energy, num_warmup=1000, num_samples=10)
    metric = np.asarray(draws.tuned_sampler.inverse_mass_matrix)
    np.testing.assert_allclose(metric, [[0.01, 100.0]] * 4, rtol=0.4)


def test_a_low_rank_metric_is_used_again() -> None:
    energy = en.Gaussian(np.zeros(2), covariance=COVARIANCE)
    draws = draw(en.samplers.NUTS(metric="low_rank"), energy, num_warmup=600, num_samples=10)
    tuned = jax.tree.map(lambda leaf: leaf[0], draws.tuned_sampler)
    assert isinstance(tuned.inverse_mass_matrix, LowRankInverseMassMatrix)
    sigma, directions, values = (np.asarray(part) for part in tuned.inverse_mass_matrix)
    middle = np.eye(2) + directions @ np.diag(values - 1) @ directions.T
    np.testing.assert_allclose(sigma[:, None] * middle * sigma, COVARIANCE, rtol=0.3)
    again = draw(tuned, energy, num_warmup=0, num_samples=200)
    assert again.stats["acceptance_rate"].mean() > 0.6
    with pytest.raises(ValueError, match="must have shape \\(3,\\)"):
        draw(tuned, en.Gaussian(np.zeros(3)), num_warmup=0)


def test_a_low_rank_metric_is_saved() -> None:
    metric = LowRankInverseMassMatrix(*map(jnp.asarray, (np.ones(3), np.eye(3, 2), np.ones(2))))
    kernel, arrays = en.samplers.NUTS(step_size=0.5, inverse_mass_matrix=metric), {}
    assert eqx.tree_equal(decode(encode(kernel, arrays, "sampler"), arrays), kernel)


def rate_after(kernel: Any, rate: float, diverging: bool, step: int) -> float:
    """The target after one step of a warm-up of 100."""
    energy, starts = en.Gaussian(np.zeros(2)), {"x": np.zeros((1, 2), np.float32)}
    kernel, tuning = kernel.tune_init(energy, starts, 100)
    state = kernel.init(energy, {"x": jnp.ones(2)}, jax.random.key(0))
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state)
    info = {"acceptance_rate": jnp.array([rate]), "diverging": jnp.array([diverging])}
    kernel, _ = kernel.tune(tuning, state, info, jnp.int32(step))
    return float(kernel.target_acceptance_rate)


@pytest.mark.parametrize("kernel", [en.samplers.NUTS, en.samplers.HMC])
def test_the_target_rises_where_a_transition_goes_astray(kernel: Any) -> None:
    assert rate_after(kernel(), 0.3, False, 60) == pytest.approx(0.8)
    assert rate_after(kernel(), 0.3, True, 60) == pytest.approx(0.95)
    assert rate_after(kernel(), 1e-20, False, 60) == pytest.approx(0.95)
    assert rate_after(kernel(), 0.0, True, 24) == pytest.approx(0.8)  # the step size is not found
    assert rate_after(kernel(target_acceptance_rate=0.9), 0.0, True, 60) == pytest.approx(0.9)


def test_the_target_rises_on_a_sharp_ridge_alone() -> None:
    @en.energy(x=en.Real((2,)))
    def banana(x: Any) -> Any:
        return 0.5 * (x[0] / 10) ** 2 + 0.5 * (x[1] - 0.03 * (x[0] ** 2 - 100)) ** 2

    for energy, target in ((banana, 0.95), (en.Gaussian(np.zeros(30)), 0.8)):
        draws = draw("nuts", energy, num_warmup=1000, num_samples=10, num_chains=16)
        as_said = np.isclose(draws.tuned_sampler.target_acceptance_rate, target)
        assert np.sum(as_said) >= 13, target  # a step of chance raises it for 1 chain in 64


@pytest.mark.parametrize("num_chains", [1, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_pay(metric: str, num_chains: int) -> None:
    """What each metric is for: gradients a draw of NUTS against those of the unit metric."""
    scale = np.logspace(-1, 1, 8)
    covariance = 0.99 + 0.01 * np.eye(8) if metric != "diagonal" else np.eye(8)
    energy = en.Gaussian(np.zeros(8), covariance=covariance * np.outer(scale, scale))
    counts = {"num_warmup": 500, "num_samples": 300, "num_chains": num_chains}
    plain = draw(en.samplers.NUTS(inverse_mass_matrix=np.ones(8)), energy, **counts)
    tuned = draw(en.samplers.NUTS(metric=metric), energy, **counts)
    plain, tuned = (float(np.mean(run.stats["n_steps"])) for run in (plain, tuned))
    assert tuned < min(15, plain / 8), (tuned, plain)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("low_rank", "hmc"),
        *(
            pytest.param(metric, name, marks=pytest.mark.slow)
            for metric in METRICS
            for name in ("hmc", "nuts")
            if (metric, name) != ("low_rank", "hmc")
        ),
    ],
)
def test_every_metric_is_exact(name: str, metric: str) -> None:
    target = Target(
        "a Gaussian",
        en.Gaussian(np.array([1.0, -1.0]), covariance=COVARIANCE),
        mean={"x": np.array([1.0, -1.0])},
        variance={"x": np.ones(2)},
        expectations={"E x[0] x[1]": (lambda x: x[0] * x[1], -0.1)},
    )
    kernel = {"hmc": en.samplers.HMC, "nuts": en.samplers.NUTS}[name](metric=metric)
    check_sampler(kernel, targets=[target])
