"""What is special to the continuous samplers: tuning, bad input, faults."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.samplers._moments import FIRST, Moments, Recent, recent_mean, recent_moments
from energia.testing import Target, check_sampler

Counter = Callable[[], AbstractContextManager[Any]]

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")

SCALES = np.logspace(-2, 1, 5)
SCALED = en.Gaussian(np.zeros(5), scale=SCALES)
S = en.samplers


def spread(draws: en.Draws) -> np.ndarray:
    """Standard deviations over the exact ones of SCALED."""
    return np.asarray(draws["x"]).std((0, 1)) / SCALES


# --- averages of warm-up


def test_recent_average_forgets_the_start() -> None:
    average = Recent.start(np.float32(1e4))
    for step in range(1000):
        average = recent_mean(average, jnp.float32(step >= 100), jnp.asarray(step))
    assert average.value == pytest.approx(1.0, abs=1e-3)
    before = Recent.start(np.float32(0.0))
    for step in range(FIRST - 1):
        before = recent_mean(before, jnp.float32(1.0), jnp.asarray(step))
    assert 0.5 < before.value < 1.0


@pytest.mark.parametrize("dense", [False, True])
def test_recent_moments(dense: bool, key: jax.Array) -> None:
    covariance = np.array([[4.0, 1.0], [1.0, 1.0]])
    rows = jax.random.normal(key, (2000, 8, 2)) @ np.linalg.cholesky(covariance).T + 3
    moments = Moments.start({"x": np.full((8, 2), 1e4, np.float32)}, dense=dense)
    update = jax.jit(recent_moments)
    for step in range(2000):
        moments = update(moments, rows[step], jnp.asarray(step))
    unchanged = update(moments, rows[0].at[0, 0].set(jnp.nan), jnp.asarray(2000))
    np.testing.assert_allclose(moments.value.mean, 3, atol=0.1)
    expected = covariance if dense else np.diag(covariance)
    np.testing.assert_allclose(moments.value.covariance, expected, rtol=0.1)
    assert np.isfinite(unchanged.value.covariance).all()


# --- tuning


@pytest.mark.parametrize(
    "name", ["barker", "slice", "elliptical_slice", "mclmc", "adjusted_mclmc", "chees_hmc", "meads"]
)
def test_tuned_on_scales_that_differ(name: str, key: jax.Array) -> None:
    draws = en.sample(SCALED, name, key=key, num_chains=8, num_warmup=2000, thin=5)
    np.testing.assert_allclose(spread(draws), 1, atol=0.12)
    assert draws.diagnose(show=False).min_ess > 500  # of 8,000


@pytest.mark.parametrize("name", ["mclmc", "adjusted_mclmc", "chees_hmc", "elliptical_slice"])
def test_tuned_on_one_chain(name: str, key: jax.Array) -> None:
    draws = en.sample(SCALED, name, key=key, num_chains=1, num_warmup=3000, thin=5)
    np.testing.assert_allclose(spread(draws), 1, atol=0.3)


@pytest.mark.parametrize("num_chains", [4, 8])
def test_meads_keeps_its_scale_with_few_chains(num_chains: int, key: jax.Array) -> None:
    # with momenta that are not in units of the scale, 8 chains come out 70 times too wide
    normal = en.Gaussian(np.zeros(10))
    draws = en.sample(normal, "meads", key=key, num_chains=num_chains, thin=4, num_samples=2000)
    np.testing.assert_allclose(np.asarray(draws["x"]).std((0, 1)), 1, atol=0.1)
    assert np.mean(draws.stats["acceptance_rate"]) > 0.9


def test_meads_refuses_to_be_tuned_on_too_few_chains(key: jax.Array) -> None:
    with pytest.raises(ValueError, match="num_chains=3: give 4 or more"):
        en.sample(SCALED, "meads", key=key, num_chains=3)
    kernel = S.MEADS(step_size=0.3, scale=SCALES, alpha=0.5, delta=0.25)
    en.sample(SCALED, kernel, key=key, num_chains=1, num_warmup=0, num_samples=4)


GIVEN: dict[str, S.Sampler] = {
    "barker": S.Barker(step_size=0.5),
    "elliptical_slice": S.EllipticalSlice(mean=0.5),
    "mclmc": S.MCLMC(L=1.5),
    "adjusted_mclmc": S.AdjustedMCLMC(trajectory_length=2.5),
    "chees_hmc": S.ChEESHMC(inverse_mass_matrix=SCALES**2),
    "meads": S.MEADS(alpha=0.7),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_number_that_was_given_stays(name: str, key: jax.Array) -> None:
    kernel: Any = GIVEN[name]
    draws = en.sample(SCALED, kernel, key=key, num_warmup=50, num_samples=5)
    for field in kernel.tunable:
        given, tuned = getattr(kernel, field), getattr(draws.tuned_sampler, field)
        assert np.isfinite(tuned).all()
        if given is not None:
            np.testing.assert_array_equal(np.broadcast_to(given, tuned.shape), tuned)


def test_chees_slope_is_that_of_its_criterion(key: jax.Array) -> None:
    """On a standard normal trajectories are known: x cos t + v sin t."""
    start, velocity = np.asarray(jax.random.normal(key, (2, 100_000, 3)), np.float64)
    length, time, mean = 1.1, 0.8, np.full(3, 0.2)

    def criterion(length: float) -> float:
        end = start * np.cos(time * length) + velocity * np.sin(time * length)
        change = np.sum((end - mean) ** 2, 1) - np.sum((start - mean) ** 2, 1)
        return np.mean(change**2) / 4

    kernel = S.ChEESHMC(step_size=0.1, trajectory_length=length, inverse_mass_matrix=np.ones(3))
    angle = time * length
    info = {
        "_start": start,
        "_end": start * np.cos(angle) + velocity * np.sin(angle),
        "_velocity": velocity * np.cos(angle) - start * np.sin(angle),
        "_time": np.full(len(start), time),
        "diverging": np.zeros(len(start), bool),
    }
    info = {name: jnp.asarray(value) for name, value in info.items()}
    slope = kernel._slope(jnp.asarray(mean, jnp.float32), jnp.ones(len(start)), info)
    expected = length * (criterion(length + 1e-4) - criterion(length - 1e-4)) / 2e-4
    assert slope == pytest.approx(expected, rel=1e-3)


def test_trajectories_are_jittered_alike_for_all_chains(key: jax.Array) -> None:
    draws = en.sample(SCALED, "chees_hmc", key=key, num_chains=4, num_samples=64)
    steps = np.asarray(draws.stats["n_steps"])
    assert (steps == steps[0]).all()
    assert len(np.unique(steps)) > 1
    assert steps.min() >= 1


def test_slice_widths_follow_the_conditionals(key: jax.Array) -> None:
    draws = en.sample(SCALED, "slice", key=key, num_warmup=300, num_samples=5)
    ratios = np.asarray(draws.tuned_sampler.width).mean(0) / SCALES
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.2)
    assert 1 < ratios.mean() < 5


# --- laws


@pytest.mark.parametrize(
    "kernel",
    [
        S.EllipticalSlice(mean=[1.0, 0.0], covariance=[2.0, 1.0]),
        S.EllipticalSlice(mean=0.0, covariance=[[2.0, 0.5], [0.5, 1.0]]),
        S.BlackJAX(
            blackjax.ghmc, step_size=0.5, momentum_inverse_scale=jnp.ones(2), alpha=0.5, delta=0.25
        ),
    ],
    ids=["diagonal reference", "reference", "any BlackJAX kernel"],
)
def test_exact(kernel: S.Kernel) -> None:
    mean, variance = np.array([0.5, -0.5]), np.array([1.0, 0.25])
    target = Target(
        "a Gaussian",
        en.Gaussian(mean, scale=np.sqrt(variance)),
        mean={"x": mean},
        variance={"x": variance},
    )
    check_sampler(kernel, targets=[target])


def test_mclmc_is_biased_by_its_step_size() -> None:
    size = 10
    target = Target(
        "a Gaussian",
        en.Gaussian(np.zeros(size)),
        mean={"x": np.zeros(size)},
        variance={"x": np.ones(size)},
    )
    numbers = {"L": np.sqrt(size), "inverse_mass_matrix": np.ones(size)}
    check_sampler(S.MCLMC(step_size=0.8, **numbers), targets=[target])
    with pytest.raises(AssertionError, match=r"Var x\[\d\] is 0\.\d* .* exactly 1 "):
        check_sampler(S.MCLMC(step_size=5.0, **numbers), targets=[target])
    assert "biased" in str(S.MCLMC().bias())


def test_elliptical_slice_ends_where_the_energy_is_rounded(key: jax.Array) -> None:
    @en.energy(x=en.Real((3,)))
    def coarse(x):
        return 1e8 + jnp.sum(x**2)  # in steps of 8

    kernel = S.EllipticalSlice(mean=0.0, covariance=[4.0, 4.0, 4.0])
    draws = en.sample(coarse, kernel, key=key, num_warmup=0, num_samples=200)
    assert np.isfinite(draws["x"]).all()


def test_barker_comes_back_from_the_tails(key: jax.Array) -> None:
    kernel = S.Barker(step_size=1.0, inverse_mass_matrix=[1.0])
    draws = en.sample(
        en.Gaussian([0.0]),
        kernel,
        key=key,
        num_warmup=0,
        num_samples=500,
        init=np.full((4, 1), 300.0),
    )
    assert np.abs(draws["x"][:, -1]).max() < 6


# --- faults


def names(*, without: tuple[str, ...] = ()) -> list[str]:
    every = ["barker", "slice", "elliptical_slice", "mclmc", "adjusted_mclmc", "chees_hmc", "meads"]
    return [name for name in every if name not in without]


@en.energy(x=en.Real((2,)))
def half_defined(x):
    return jnp.where(x[0] > 1.0, jnp.nan, 0.5 * jnp.sum(x**2))


@pytest.mark.parametrize("name", names())
def test_a_region_where_the_energy_is_not_a_number(name: str, key: jax.Array) -> None:
    init = np.zeros((4, 2)) + 0.1 * np.arange(4)[:, None]
    draws = en.sample(half_defined, name, key=key, init=init, num_warmup=500, num_samples=300)
    x = np.asarray(draws["x"])
    assert np.isfinite(x).all()
    assert np.isfinite(draws.stats["lp"]).all()
    assert x[..., 0].max() <= 1
    assert x.std((0, 1)).min() > 0.3


HUGE: dict[str, S.Sampler] = {
    "barker": S.Barker(step_size=1e4, inverse_mass_matrix=np.ones(5)),
    "mclmc": S.MCLMC(L=2.0, step_size=1e3, inverse_mass_matrix=np.ones(5)),
    "adjusted_mclmc": S.AdjustedMCLMC(
        step_size=1e3, trajectory_length=1e3, inverse_mass_matrix=np.ones(5)
    ),
    "chees_hmc": S.ChEESHMC(step_size=1e3, trajectory_length=1e3, inverse_mass_matrix=np.ones(5)),
    "meads": S.MEADS(step_size=1e3, scale=np.ones(5), alpha=0.5, delta=0.25),
}


@pytest.mark.filterwarnings("default::energia.ConvergenceWarning")
@pytest.mark.parametrize("name", HUGE)
def test_a_step_size_far_too_large_is_told(name: str, key: jax.Array) -> None:
    with pytest.warns(en.ConvergenceWarning, match=r"lower the step size|step size is too large"):
        en.sample(SCALED, HUGE[name], key=key, num_warmup=0, num_samples=50)


@pytest.mark.parametrize("name", names(without=("slice",)))
def test_ten_thousand_dimensions(name: str, key: jax.Array) -> None:
    wide = en.Gaussian(jnp.zeros(10_000))
    draws = en.sample(wide, name, key=key, num_warmup=200, num_samples=2)
    assert np.isfinite(draws["x"]).all()


@pytest.mark.parametrize("name", names(without=("meads",)))
def test_one_draw_of_one_chain(name: str, key: jax.Array) -> None:
    draws = en.sample(SCALED, name, key=key, num_chains=1, num_warmup=1, num_samples=1)
    assert np.isfinite(draws["x"]).all()


@pytest.mark.parametrize("name", ["mclmc", "adjusted_mclmc"])
def test_one_dimension_cannot_turn(name: str, key: jax.Array) -> None:
    with pytest.raises(ValueError, match="has one entry alone: use 'nuts' or 'slice'"):
        en.sample(en.Gaussian(0.0), name, key=key)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.Barker(step_size=0.0), "step_size=...\\) must be positive"),
        (lambda: S.Barker(inverse_mass_matrix=[[1.0]]), "must have shape \\(5,\\)"),
        (lambda: S.Slice(width=-1.0), "width=...\\) must be positive"),
        (lambda: S.Slice(width=[1.0]), "width=...\\) must have shape \\(5,\\)"),
        (lambda: S.Slice(max_expansions=0), "must be an integer of at least 1"),
        (lambda: S.EllipticalSlice(mean=np.nan), "mean=...\\) must be finite"),
        (lambda: S.EllipticalSlice(covariance=-np.eye(2)), "must be positive definite"),
        (lambda: S.EllipticalSlice(mean=0.0, covariance=1.0), "\\(5,\\) or \\(5, 5\\)"),
        (lambda: S.MCLMC(L=0.0), "L=...\\) must be positive"),
        (lambda: S.MCLMC(inverse_mass_matrix=[1.0]), "must have shape \\(5,\\)"),
        (lambda: S.AdjustedMCLMC(target_acceptance_rate=1.0), "must lie in \\(0, 1\\)"),
        (lambda: S.ChEESHMC(max_steps=0), "max_steps= must be at least 1"),
        (lambda: S.ChEESHMC(inverse_mass_matrix=[1.0]), "must have shape \\(5,\\)"),
        (lambda: S.MEADS(alpha=1.5), "alpha=...\\) must lie in \\(0, 1\\]"),
        (lambda: S.MEADS(scale=[1.0]), "must have shape \\(5,\\)"),
    ],
)
def test_bad_numbers(make: Callable[[], S.Sampler], message: str, key: jax.Array) -> None:
    with pytest.raises(ValueError, match=message):
        en.sample(SCALED, make(), key=key)


# --- any BlackJAX algorithm

WALK = blackjax.additive_step_random_walk.normal_random_walk  # pyright: ignore


@en.energy(a=en.Real((2,)), b=en.Positive())
def joint(a, b):
    return 0.5 * jnp.sum(a**2) + b


@pytest.mark.parametrize(
    "kernel",
    [
        S.BlackJAX(WALK, sigma=[1.0, 1.0, 1.0]),
        S.BlackJAX(blackjax.dynamic_hmc, step_size=0.3, inverse_mass_matrix=np.ones(3)),
        S.BlackJAX(
            blackjax.nuts, step_size=0.3, inverse_mass_matrix=np.ones(3), max_num_doublings=4
        ),
        S.BlackJAX(functools.partial(blackjax.mala, step_size=0.3)),
    ],
    ids=["random walk", "a key in its state", "a static integer", "partial"],
)
def test_blackjax_algorithms(kernel: S.BlackJAX, key: jax.Array, tmp_path: Any) -> None:
    draws = en.sample(joint, kernel, key=key, num_warmup=100, num_samples=300, thin=3)
    assert np.asarray(draws["b"]).mean() == pytest.approx(1, abs=0.3)
    assert "acceptance_rate" in draws.stats
    draws.save(tmp_path / "draws.npz")
    with pytest.raises(ValueError, match="give sampler= as well"):
        en.Draws.load(tmp_path / "draws.npz", energy=joint)
    again = en.Draws.load(tmp_path / "draws.npz", energy=joint, sampler=kernel).extend(20)
    np.testing.assert_array_equal(again["a"], draws.extend(20)["a"])


def test_what_blackjax_tells_has_arviz_names(key: jax.Array) -> None:
    kernel = S.BlackJAX(
        blackjax.mhmc, step_size=0.3, inverse_mass_matrix=np.ones(3), num_integration_steps=5
    )
    draws = en.sample(joint, kernel, key=key, num_warmup=0, num_samples=5)
    assert sorted(draws.stats) == ["acceptance_rate", "diverging", "energy", "lp", "n_steps"]
    assert np.all(draws.stats["n_steps"] == 5)


def test_other_numbers_of_a_blackjax_algorithm(key: jax.Array, compilations: Counter) -> None:
    def run(step_size: float, steps: int) -> None:
        kernel = S.BlackJAX(
            blackjax.hmc,
            step_size=step_size,
            inverse_mass_matrix=[1.0, 1.0, step_size],
            num_integration_steps=steps,
        )
        en.sample(joint, kernel, key=key, num_warmup=0, num_samples=5)

    run(0.1, 3)
    with compilations() as seen:
        run(0.2, 4)
    assert seen.count == 0, seen.compiled


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.BlackJAX(blackjax.hmc, step_sise=1.0), "'step_sise': did you mean 'step_size'"),
        (lambda: S.BlackJAX(blackjax.hmc, step_size=1.0), "needs inverse_mass_matrix=, num_integ"),
        (lambda: S.BlackJAX(3), "takes an algorithm such as blackjax.rmh, got 3"),  # pyright: ignore
        (lambda: S.BlackJAX(blackjax.rmh, proposal_generator=["a"]), "can be hashed"),
        (lambda: S.BlackJAX(blackjax.sgld), "fed minibatches have another protocol"),
        (lambda: S.BlackJAX(blackjax.pathfinder), "gives a VIAlgorithm, no SamplingAlgorithm"),
        (
            lambda: S.BlackJAX(
                functools.partial(blackjax.orbital_hmc, period=4),
                step_size=0.1,
                inverse_mass_matrix=np.ones(3),
            ),
            "has no position",
        ),
    ],
    ids=["misspelt", "missing", "no algorithm", "no hash", "minibatches", "variational", "orbit"],
)
def test_blackjax_misuse(make: Callable[[], S.Sampler], message: str, key: jax.Array) -> None:
    with pytest.raises(TypeError, match=message):
        en.sample(joint, make(), key=key, num_warmup=0)


def test_a_log_likelihood_is_no_log_density() -> None:
    with pytest.raises(ValueError, match=r"loglikelihood.*use 'elliptical_slice'"):
        en.samplers.BlackJAX(blackjax.elliptical_slice, mean=jnp.zeros(3), cov=jnp.eye(3))
    with pytest.raises(ValueError, match=r"latent_gaussian.*count twice: use 'elliptical_slice'"):
        en.samplers.BlackJAX(blackjax.mgrad_gaussian, covariance=jnp.eye(3), step_size=0.5)


def test_barker_refuses_where_the_energy_is_nan(key: jax.Array) -> None:
    @en.energy(x=en.Real((2,)))
    def half(x):
        return jnp.where(x[0] > 1, jnp.nan, 0.5 * jnp.sum(x**2))

    draws = en.sample(half, "barker", key=key, init=np.zeros(2))
    assert np.isfinite(np.asarray(draws.stats["acceptance_rate"])).all()
