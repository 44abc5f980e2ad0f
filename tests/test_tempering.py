"""Parallel tempering: swaps, ladder, reference, and what its draws are draws of."""

import inspect
import math
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.diagnostics import diagnose, mean_ess
from energia.samplers import ParallelTempering, Repeat, tempering
from energia.samplers._ladder import respaced
from energia.testing._targets import enumerate_target, functionals

MAX_Z = 5.0
NORMAL = en.Gaussian(np.zeros(1))
quiet = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")


@en.energy(x=en.Real((1,)))
def wells(x):
    """Normals of standard deviation 0.3 at -3 and 3, of shares 0.2 and 0.8, by no closed form."""
    parts = jnp.log(jnp.array([0.2, 0.8])) - 0.5 * ((x - jnp.array([-3.0, 3.0])) / 0.3) ** 2
    return -jax.nn.logsumexp(parts)


@en.energy
def blurred_wells(x, sigma):
    variance = 0.3**2 + sigma**2
    parts = jnp.log(jnp.array([0.2, 0.8])) - 0.5 * (x - jnp.array([-3.0, 3.0])) ** 2 / variance
    return -jax.nn.logsumexp(parts) + 0.5 * jnp.log(variance)


# two patterns, which single spins or layers do not bridge
MACHINE = en.RBM.from_parameters(
    9.0 * np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), [-4.0, -4.0, 5.0], [-4.0, -5.0]
)


def right_share(draws: en.Draws) -> tuple[float, float, float]:
    """The share of the right well, its standard error and the effective sample size of it."""
    right = np.asarray(draws["x"][..., 0] > 0, np.float64)
    ess = mean_ess(right)
    return right.mean(), right.std() / math.sqrt(ess), ess


# --- swaps


@eqx.filter_jit
def trips(kernel: ParallelTempering, path: en.Path, num_steps: int, key: jax.Array) -> jax.Array:
    """The replica at each level and the round trips, after each step."""
    position = {"x": jnp.zeros(1)}

    def step(state: Any, t: jax.Array) -> Any:
        state, info = kernel.step(path, state, jax.random.fold_in(key, t))
        return state, (state.replicas, info["round_trips"])

    return jax.lax.scan(step, kernel.init(path, position, key), jnp.arange(num_steps))[1]


@pytest.mark.parametrize("num_levels", [2, 5, 6])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_every_pair_swaps_at_any_interval(num_levels: int, interval: int, key: jax.Array) -> None:
    """Where every swap is accepted, a replica moves a level a step and turns at the ends."""
    kernel = ParallelTempering(Repeat(en.samplers.MALA(step_size=0.5), interval))
    path = en.paths.geometric(NORMAL, NORMAL, levels=num_levels)
    replicas, round_trips = trips(kernel, path, 8 * num_levels, key)
    # from a level to itself: up and down, and a step at either end
    np.testing.assert_array_equal(replicas[2 * num_levels :], replicas[: -2 * num_levels])
    for level in range(num_levels):
        assert set(np.asarray(replicas[:, level]).tolist()) == set(range(num_levels))
    done = int(round_trips[-1] - round_trips[2 * num_levels - 1])
    assert done == 6 * num_levels // 2  # 1 / (2 + 2Λ) a step, and Λ is 0


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("thin", [1, 2, 3])
def test_every_pair_swaps_at_any_thinning(thin: int, key: jax.Array) -> None:
    sampler = ParallelTempering(en.samplers.MALA(step_size=0.5), num_replicas=4, reference=NORMAL)
    draws = en.sample(NORMAL, sampler, key=key, num_warmup=0, num_samples=60, thin=thin)
    round_trips = np.asarray(draws.stats["round_trips"])
    np.testing.assert_array_less(29 * thin - 3, round_trips[:, -1] - round_trips[:, 0])
    assert draws.stats["swap_acceptance_rate"].shape == (4, 60, 3)
    np.testing.assert_allclose(draws.stats["swap_acceptance_rate"], 1.0, atol=1e-5)
    told = draws.diagnose(show=False).tempering
    assert told is not None
    np.testing.assert_allclose(told.expected, 59 * thin / 2, rtol=1e-4)


def test_swap_acceptance_rate(key: jax.Array) -> None:
    """Between normals of standard deviations 1 and s, against quadrature."""
    path = en.paths.geometric(en.Gaussian(0.0, scale=3.0), en.Gaussian(0.0), levels=2)
    grid = np.linspace(-15, 15, 601)
    wide, narrow = np.exp(-(grid**2) / 18), np.exp(-(grid**2) / 2)
    joint = np.outer(wide / wide.sum(), narrow / narrow.sum())
    slope = 0.5 * (1 - 1 / 9) * grid**2
    expected = np.sum(joint * np.exp(np.minimum(0, slope[None, :] - slope[:, None])))

    @jax.jit
    @jax.vmap
    def swap(key: jax.Array) -> Any:
        key_wide, key_narrow, key = jax.random.split(key, 3)
        x = jnp.stack([3 * jax.random.normal(key_wide), jax.random.normal(key_narrow)])
        _, rates, places, energy = tempering._swap(path, path.levels, {"x": x}, jnp.int32(0), key)
        return rates[0], x[places], energy

    rates, swapped, energy = map(np.asarray, swap(jax.random.split(key, 20_000)))
    assert abs(rates.mean() - expected) < MAX_Z * rates.std() / math.sqrt(len(rates))
    # positions keep their laws, and what is told is the energy of the new one at the target
    for level, scale in enumerate([3.0, 1.0]):
        squares = swapped[:, level] ** 2
        assert abs(squares.mean() - scale**2) < MAX_Z * squares.std() / math.sqrt(len(rates))
    np.testing.assert_allclose(
        energy, 0.5 * swapped[:, 1] ** 2 + 0.5 * math.log(2 * math.pi), rtol=1e-4
    )


# --- the ladder


def test_equal_rejections() -> None:
    levels, rejections = jnp.array([0.0, 0.1, 0.5, 1.0]), jnp.array([0.6, 0.2, 0.4])
    # the barrier at the levels is 0, 0.6, 0.8, 1.2, straight between them; in steps of 0.4
    np.testing.assert_allclose(respaced(levels, rejections), [0, 0.2 / 3, 0.5, 1.0], rtol=1e-5)
    down = respaced(levels[::-1], rejections[::-1])
    np.testing.assert_allclose(down, [1.0, 0.5, 0.2 / 3, 0.0], rtol=1e-5)
    same = respaced(levels, jnp.zeros(3))  # no rejections tell nothing
    np.testing.assert_allclose(same, levels, rtol=1e-4)
    assert respaced(jnp.array([0.0, 1.0]), jnp.array([0.3])).tolist() == [0, 1]


@pytest.fixture(scope="module")
def tempered() -> en.Draws:
    """Two wells from a fitted reference, by chains that start on either side."""
    sampler = ParallelTempering("hmc", num_replicas=6)
    key = jax.random.key(1)
    return en.sample(wells, sampler, key=key, num_warmup=1000, num_samples=2000)


def test_wells(tempered: en.Draws) -> None:
    share, error, ess = right_share(tempered)
    assert ess > 400
    assert abs(share - 0.8) < MAX_Z * error
    verdict = tempered.diagnose(show=False)
    assert verdict.ok, str(verdict)
    np.testing.assert_allclose(
        tempered.stats["lp"], -jax.vmap(jax.vmap(wells))(tempered["x"]), rtol=1e-3, atol=1e-4
    )


def test_ladder_and_reference_are_tuned(tempered: en.Draws) -> None:
    rates = np.asarray(tempered.stats["swap_acceptance_rate"]).mean((0, 1))
    assert np.ptp(rates) < 0.15, rates
    ladder = tempered.tuned_sampler.ladder
    assert np.all(np.diff(ladder.levels) > 0)
    np.testing.assert_allclose(ladder.levels[jnp.array([0, -1])], [0, 1])
    np.testing.assert_array_equal(tempered.stats["levels"][0, 0], ladder.levels)
    fitted = ladder.fitted  # moments of the target: mean 1.8, variance 9 - 1.8² + 0.09
    np.testing.assert_allclose(fitted.mean, [1.8], atol=0.6)
    np.testing.assert_allclose(fitted.factor**2, [[9 - 1.8**2 + 0.09]], rtol=0.3)
    # colder levels take smaller steps; given numbers have no axis over levels
    assert ladder.kernels.step_size.shape == (5,)
    assert ladder.kernels.num_integration_steps.shape == ()
    target = float(ladder.kernels.target_acceptance_rate[-1])
    assert target == pytest.approx(0.95)  # the narrow mode is met by steps for the wide one
    assert float(tempered.stats["acceptance_rate"].mean()) == pytest.approx(target, abs=0.05)


def test_verdict(tempered: en.Draws) -> None:
    told = tempered.diagnose(show=False).tempering
    assert told is not None
    rates = np.asarray(tempered.stats["swap_acceptance_rate"], np.float64).mean((0, 1))
    assert told.barrier == pytest.approx(np.sum(1 - rates))
    assert told.advised == round(2 * told.barrier) + 1
    assert told.round_trips.shape == (4,)
    assert told.round_trips.mean() > 0.7 * told.expected
    assert f"global barrier {told.barrier:.2f}, about {told.advised} replicas do (there" in str(
        told
    )


@pytest.mark.slow
@quiet
def test_a_broken_ladder_is_told(key: jax.Array) -> None:
    sampler = ParallelTempering(
        "hmc", num_replicas=3, reference=en.Gaussian(np.full(1, 40.0), scale=0.1)
    )
    draws = en.sample(wells, sampler, key=key, num_warmup=100, num_samples=100)
    verdict = draws.diagnose(show=False)
    assert not verdict.ok
    text = str(verdict)
    assert "the ladder is broken between " in text
    assert "made 0 round trips between the reference and the target, below 10" in text


def stats_of(rates: Any, round_trips: Any, draws: int = 1001) -> dict[str, np.ndarray]:
    """Statistics of a run with the same rates in each step and so many trips in each chain."""
    levels = np.linspace(0, 1, len(rates) + 1)
    trips = np.linspace(0, np.asarray(round_trips), draws).T.astype(int)
    return {
        "swap_acceptance_rate": np.broadcast_to(rates, (len(trips), draws, len(rates))),
        "levels": np.broadcast_to(levels, (len(trips), draws, len(levels))),
        "round_trips": trips,
        "lp": np.random.default_rng(1).normal(size=(len(trips), draws)),
    }


def test_verdict_on_statistics() -> None:
    x = np.random.default_rng(0).normal(size=(2, 1001))
    good = diagnose({"x": x}, stats_of([0.6, 0.5, 0.4], [180, 200]))
    assert good.ok, good.problems
    assert good.tempering is not None
    assert (good.tempering.barrier, good.tempering.advised) == (pytest.approx(1.5), 4)
    # 1000 / (2 + 2 (2/3 + 1 + 3/2))
    assert good.tempering.expected == pytest.approx(1000 / (2 + 2 * (2 / 3 + 1 + 1.5)))
    thinned = diagnose({"x": x}, stats_of([0.6, 0.5, 0.4], [180, 200]), thin=10).problems
    assert "there were 190 round trips a chain where swaps accepted so often promise" in thinned[0]
    (broken,) = diagnose({"x": x}, stats_of([0.6, 0.5, 0.01, 0.4], [15, 20])).problems
    assert "the ladder is broken between 2 and 3 (levels 0.5 and 0.75): 1.0% of" in broken
    (few,) = diagnose({"x": x}, stats_of([0.6, 0.5], [100, 2])).problems
    assert "chain 1 made 2 round trips" in few
    # swaps look healthy, and the modes, of different energies, do not mix
    stats = stats_of([0.8, 0.8], [300, 300])
    stats["lp"] = stats["lp"] + np.array([[0.0], [3.0]])
    (apart,) = (p for p in diagnose({"x": x}, stats).problems if "R-hat" in p)
    assert apart.startswith("R-hat of lp is ")


@quiet
@pytest.mark.slow
def test_round_trips_are_as_many_as_the_barrier_allows(key: jax.Array) -> None:
    """On a ladder of Gaussians, with kernels that forget: 1 / (2 + 2Λ) a step, within 20 %."""
    target = en.energy(x=en.Real((8,)))(lambda x: 0.5 * jnp.sum(x**2))
    wide = en.Gaussian(np.zeros(8), scale=4.0)
    sampler = ParallelTempering(Repeat("hmc", 4), num_replicas=24, reference=wide)
    draws = en.sample(target, sampler, key=key, num_chains=8, num_samples=2000)
    told = draws.diagnose(show=False).tempering
    assert told is not None
    rate = told.round_trips.mean() / 1999
    assert rate == pytest.approx(1 / (2 + 2 * told.barrier), rel=0.2)
    assert np.ptp(told.swap_rates) < 0.05
    # half the mean difference of energies, over the path: log(16) / 4 times that of a chi-squared
    # variable of 8 degrees of freedom, 4 Γ(4.5) / (√π Γ(4))
    exact = math.log(16) / 4 * 4 * math.gamma(4.5) / (math.sqrt(math.pi) * math.gamma(4))
    assert told.barrier == pytest.approx(exact, rel=0.05)


def bimodal(size: int) -> en.Energy:
    """0.75 N(0, I) + 0.25 N(4 e1, 0.6² I)."""

    @en.energy(x=en.Real((size,)))
    def energy(x):
        far = jnp.sum((x.at[0].add(-4.0) / 0.6) ** 2)
        far = math.log(0.25) - size * math.log(0.6) - 0.5 * far
        return -jnp.logaddexp(math.log(0.75) - 0.5 * jnp.sum(x**2), far)

    return energy


def in_the_narrow_mode(draws: en.Draws) -> np.ndarray:
    """Nearer to it in standard deviations: right but for one draw in ten thousand."""

    def narrow(x: jax.Array) -> jax.Array:
        far = jnp.sum((x.at[0].add(-4.0) / 0.6) ** 2) + 2 * x.size * math.log(0.6)
        return far < jnp.sum(x**2)

    return np.asarray(jax.vmap(jax.vmap(narrow))(draws["x"]), np.float64)


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 50])
def test_modes_of_other_widths(size: int, key: jax.Array) -> None:
    """The fitted reference lets the narrow mode keep its weight along the ladder."""
    sampler = ParallelTempering("hmc", num_replicas=10)
    draws = en.sample(bimodal(size), sampler, key=key, num_chains=8, num_samples=2000)
    narrow = in_the_narrow_mode(draws)
    ess = mean_ess(narrow)
    assert ess > 100
    assert abs(narrow.mean() - 0.25) < MAX_Z * narrow.std() / math.sqrt(ess)


@pytest.mark.slow
def test_swap_rates_alone_do_not_make_a_run_good(key: jax.Array) -> None:
    """From a wide reference the barrier between the modes is entropic, and swaps do not see it."""
    wide = en.Gaussian(np.zeros(50), scale=3.0)
    sampler = ParallelTempering("hmc", num_replicas=24, reference=wide)
    with pytest.warns(en.ConvergenceWarning):
        draws = en.sample(bimodal(50), sampler, key=key, num_samples=2000)
    verdict = draws.diagnose(show=False)
    assert verdict.tempering is not None
    assert verdict.tempering.swap_rates.min() > 0.6
    assert not verdict.ok


# --- other references, paths and kernels


@pytest.mark.slow
def test_prior_as_reference(key: jax.Array) -> None:
    """Its terms are found, and are not in the tuned sampler: they are the energy's."""
    posterior = en.Gaussian(np.zeros(1), scale=5.0) + wells
    sampler = ParallelTempering("mala", num_replicas=6)
    draws = en.sample(posterior, sampler, key=key, num_warmup=500, num_samples=2000)
    ladder = draws.tuned_sampler.ladder
    assert ladder.prior == (0,)
    assert ladder.fitted is None
    share, error, ess = right_share(draws)
    assert ess > 200
    assert abs(share - 0.8) < MAX_Z * error


@quiet
@pytest.mark.slow
def test_bounded_variables(key: jax.Array) -> None:
    """The Jacobian stands outside the temperature."""

    @en.energy(tau=en.Positive(), u=en.Interval(-1, 3))
    def gamma_and_beta(tau, u):
        return 4 * tau - 4 * jnp.log(tau) - jnp.log(u + 1) - 2 * jnp.log(3 - u)

    reference = en.Exponential("tau", 1.0) + en.Uniform(-1.0, 3.0).rename(x="u")
    for given in [None, reference]:
        sampler = ParallelTempering("hmc", num_replicas=4, reference=given)
        draws = en.sample(gamma_and_beta, sampler, key=key, num_chains=16, num_warmup=500)
        for name, mean, variance in [("tau", 1.25, 5 / 16), ("u", 0.6, 16 * 0.04)]:
            for values, expected in [
                (draws[name], mean),
                ((draws[name] - mean) ** 2, variance),
            ]:
                values = np.asarray(values, np.float64)
                error = values.std() / math.sqrt(mean_ess(values))
                assert abs(values.mean() - expected) < MAX_Z * error, name


@pytest.mark.slow
def test_discrete_variables(key: jax.Array) -> None:
    """A Boltzmann machine of two patterns, which Gibbs sampling alone does not bridge."""
    exact = enumerate_target("two patterns", MACHINE, {"E v[0] v[2]": lambda v, **_: v[0] * v[2]})
    for reference in [None, en.Bernoulli("v", [0.4] * 3) + en.Bernoulli("h", [0.3] * 2)]:
        sampler = ParallelTempering("gibbs", num_replicas=8, reference=reference)
        draws = en.sample(MACHINE, sampler, key=key, num_chains=8, num_samples=3000)
        for text, (values, expected) in functionals(exact, draws).items():
            error = values.std() / math.sqrt(mean_ess(values))
            assert abs(values.mean() - expected) < MAX_Z * error, text


@pytest.mark.slow
@quiet
def test_along_a_path(key: jax.Array, tmp_path: Path) -> None:
    """A ladder of noise levels, and draws that go on and come back from disk."""
    path = en.Path(blurred_wells.constrain(x=en.Real()), sigma=np.geomspace(6.0, 0.01, 6))
    sampler = ParallelTempering("mala")
    options: dict[str, Any] = {"key": key, "num_warmup": 500, "init": 0.0}
    draws = en.sample(path, sampler, num_samples=1500, **options)
    right = np.asarray(draws["x"] > 0, np.float64)
    error = right.std() / math.sqrt(mean_ess(right))
    assert abs(right.mean() - 0.8) < MAX_Z * error
    levels = np.asarray(draws.tuned_sampler.ladder.levels)
    assert np.all(np.diff(levels) < 0)
    np.testing.assert_allclose(levels[[0, -1]], [6.0, 0.01], rtol=1e-6)
    assert draws.energy is not None
    assert draws.energy.variables == ("x",)
    longer = draws.extend(100)
    file = tmp_path / "draws.npz"
    draws.save(file)
    again = en.Draws.load(file, energy=path).extend(100)
    np.testing.assert_array_equal(again["x"], longer["x"])
    np.testing.assert_array_equal(again.stats["round_trips"], longer.stats["round_trips"])


@pytest.mark.slow
def test_wrong_swaps_are_rejected(key: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of these tests: swaps that are always accepted."""
    right = tempering._swap

    def wrong(path: Any, levels: Any, positions: Any, steps: Any, key: Any) -> Any:
        ratios, rates, _, energy = right(path, levels, positions, steps, key)
        index = jnp.arange(len(levels))
        turned = jnp.where(index % 2 == steps % 2, index + 1, index - 1)
        inside = (turned >= 0) & (turned < len(levels))
        return ratios, jnp.ones_like(rates), jnp.where(inside, turned, index), energy

    monkeypatch.setattr(tempering, "_swap", wrong)
    sampler = ParallelTempering(
        en.samplers.MALA(step_size=0.1), num_replicas=3, reference=en.Gaussian(np.zeros(1), scale=3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(wells, sampler, key=key, num_warmup=0, num_samples=1000)
    squares = np.asarray((jnp.abs(draws["x"]) - 3) ** 2, np.float64)
    assert abs(squares.mean() - 0.09) > MAX_Z * squares.std() / math.sqrt(mean_ess(squares[..., 0]))


# --- what is refused


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ParallelTempering("nut"), ValueError, "did you mean 'nuts'"),
        (
            lambda: ParallelTempering("auto"),
            TypeError,
            "takes Markov kernels, .* Auto is none",
        ),
        (lambda: ParallelTempering(num_replicas=1), ValueError, "num_replicas= must be at least 2"),
        (
            lambda: ParallelTempering(reference="wide"),  # pyright: ignore
            TypeError,
            "reference= must be an energy",
        ),
        (
            lambda: ParallelTempering(ParallelTempering()),
            TypeError,
            "moves replicas along a path, which would begin anew each time: put the kernels inside",
        ),
        (
            lambda: en.samplers.BlockGibbs({"x": "parallel_tempering"}),
            TypeError,
            "BlockGibbs takes kernels that move one position",
        ),
        (
            lambda: sample(wells, ParallelTempering(), num_warmup=0),
            ValueError,
            r"HMC is not tuned: give HMC\(step_size=...",
        ),
        (
            lambda: sample(wells, ParallelTempering(en.samplers.MALA(step_size=1)), num_warmup=0),
            ValueError,
            "finds its reference in warm-up: .*give reference=",
        ),
        (
            lambda: sample(wells, ParallelTempering(reference=en.Ring())),
            ValueError,
            "supports of 'x' clash",
        ),
        (
            lambda: sample(wells, ParallelTempering(reference=NORMAL.rename(x="z"))),
            ValueError,
            "a reference of the target's variables",
        ),
        (
            lambda: sample(MACHINE, "parallel_tempering"),
            TypeError,
            r"HMC moves along gradients.*first argument is another kernel: .*\('gibbs'\)",
        ),
        (
            lambda: sample(en.Path(blurred_wells, sigma=[1.0, 0.1]), "nuts", init=0.0),
            TypeError,
            r"NUTS draws from one energy, and Path\(.* is many: sample its target, path.target, "
            r".* or Annealed\(",
        ),
        (
            lambda: sample(en.Path(blurred_wells, sigma=[1.0, 0.1]), ParallelTempering()),
            ValueError,
            r"the support of 'x' is unknown, so no chain can start.* fix it with \.condition\(x=",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], message: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        ParallelTempering, "__init__", inspect.unwrap(ParallelTempering.__init__)
    )  # below the type checker
    with pytest.raises(kind, match=message):
        make()


def sample(energy: Any, sampler: Any, **options: Any) -> en.Draws:
    return en.sample(energy, sampler, key=jax.random.key(0), **options)


@pytest.mark.parametrize(
    ("levels", "reference", "match"),
    [
        ([1.0], None, "at least 2 levels"),
        ([3.0, 1.0, 2.0, 0.1], None, "rise or fall all the way"),
        ([3.0, 1.0], en.Gaussian(jnp.zeros(2)), "a path has its own first level"),
    ],
)
def test_paths_that_no_ladder_runs_along(levels, reference, match, key):
    ladder = en.samplers.ParallelTempering("hmc", reference=reference)
    wide = en.energy(x=en.Real((2,)))(lambda x, s: jnp.sum(x**2) / s**2)
    with pytest.raises(ValueError, match=match):
        en.sample(en.Path(wide, s=levels), ladder, key=key)


def test_round_trips_that_bring_nothing_new():
    """Modes that differ in width: trips are many, swaps are accepted, the mode stays."""
    rng = np.random.default_rng(0)
    trips = np.repeat(np.arange(500), 2)  # a round trip each two draws
    stats = {
        "swap_acceptance_rate": np.full((4, 1000, 3), 0.9),
        "round_trips": np.broadcast_to(trips, (4, 1000)),
        "levels": np.broadcast_to(np.linspace(0, 1, 4), (4, 1000, 4)),
        "lp": rng.normal(size=(4, 1000)),
    }
    # every mode is met by every chain alike, and is kept for 20 draws on average
    kept = rng.uniform(size=(4, 1000)) < 0.05
    stays = np.take_along_axis(
        rng.normal(size=(4, 1000)), np.maximum.accumulate(kept * np.arange(1000), axis=1), axis=1
    )
    for draws, bad in ((rng.normal(size=(4, 1000)), False), (stays, True)):
        told = [p for p in diagnose({"x": draws}, stats).problems if "come back" in p]
        assert bool(told) == bad, told
