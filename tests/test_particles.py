"""Particle samplers: sequential Monte Carlo, annealing along a path, simulated annealing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.samplers import SMC, Annealed, SimulatedAnnealing

MAX_Z = 5.0
WIDE = en.Gaussian(np.zeros(2), scale=4.0)
quiet = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")


@en.energy(x=en.Real((2,)))
def modes(x):
    """Normals of standard deviation 0.5 and 1, of mass 2 and 3, by no closed form."""
    means, scales = jnp.array([[-3.0, 0.0], [2.0, 1.0]]), jnp.array([0.5, 1.0])
    squares = jnp.sum((x - means) ** 2, axis=1) / scales**2
    parts = jnp.log(jnp.array([2.0, 3.0])) - 0.5 * squares - 2 * jnp.log(scales)
    return math.log(2 * math.pi) - jax.nn.logsumexp(parts)


@en.energy(x=en.Real((2,)))
def blurred(x, sigma):
    variance = 1 + sigma**2
    return 0.5 * jnp.sum((x - 1) ** 2) / variance + jnp.log(variance)


def sample(energy: Any, sampler: Any, **options: Any) -> en.Draws:
    options = {"key": jax.random.key(0), "num_samples": 500} | options
    return en.sample(energy, sampler, **options)


def z_score(runs: Any, expected: float) -> float:
    """How far the mean over independent runs is from what it should be, in standard errors."""
    runs = np.asarray(runs, np.float64)
    return (runs.mean() - expected) / (runs.std(ddof=1) / math.sqrt(len(runs)))


# --- sequential Monte Carlo


@pytest.fixture(scope="module")
def runs() -> en.Draws:
    return sample(modes, SMC("mala", reference=WIDE), num_chains=24, num_samples=1000)


@quiet
def test_smc_against_what_is_known(runs: en.Draws) -> None:
    """Moments over independent runs, and the normaliser, which is unbiased itself."""
    x = np.asarray(runs["x"], np.float64)
    share, mean = (x[..., 0] > -1).mean(axis=1), x.mean(axis=1)
    assert abs(z_score(share, 0.6 - 0.6 * 0.00135)) < MAX_Z
    assert abs(z_score(mean[:, 1], 0.6)) < MAX_Z
    assert abs(z_score((x[..., 1] ** 2).mean(axis=1), 0.4 * 0.25 + 0.6 * 2)) < MAX_Z
    log_partition = np.asarray(runs.stats["log_partition"])[:, 0]
    assert log_partition.std() < 0.3
    assert abs(z_score(np.exp(log_partition - math.log(5)), 1.0)) < MAX_Z
    np.testing.assert_allclose(
        runs.stats["lp"], -jax.vmap(jax.vmap(modes))(runs["x"]), rtol=1e-4, atol=1e-4
    )


@quiet
def test_runs_of_particles(runs: en.Draws, tmp_path: Path) -> None:
    """A run is a chain, a particle a draw; they are in no order, and cannot go on."""
    assert runs["x"].shape == (24, 1000, 2)
    assert runs.stats["num_levels"].shape == (24, 1000)
    assert 3 < int(runs.stats["num_levels"].max()) < 30
    assert 0.3 < float(runs.stats["acceptance_rate"].mean()) < 0.8
    verdict = runs.diagnose(show=False)
    assert math.isnan(verdict.min_ess)
    assert verdict.max_rhat > 0.99
    with pytest.raises(ValueError, match="particles of a run cannot go on"):
        runs.extend(10)
    runs.save(tmp_path / "runs.npz")
    for loaded in [
        en.Draws.load(tmp_path / "runs.npz", sampler=SMC()),
        en.Draws.load(tmp_path / "runs.npz", energy=modes, sampler=SMC()),
    ]:
        np.testing.assert_array_equal(loaded["x"], runs["x"])
        assert math.isnan(loaded.diagnose(show=False).min_ess)


@pytest.mark.slow
@quiet
def test_smc_compiles_once(compilations: Any) -> None:
    other, key = 2 * modes, jax.random.key(1)
    sample(1.5 * modes, SMC("mala", target_ess=0.5), num_chains=2, num_samples=100)
    with compilations() as seen:
        sample(other, SMC("mala", target_ess=0.7), num_chains=2, num_samples=100, key=key)
    assert seen.count == 0, seen.compiled


@quiet
@pytest.mark.slow
def test_smc_of_bounded_and_of_discrete_variables() -> None:
    prior = en.Exponential("tau", 1.0)
    posterior = prior + en.energy(tau=en.Positive())(lambda tau: 3 * tau - 2 * jnp.log(tau))
    draws = sample(posterior, "smc", num_chains=16)  # a gamma law of shape 3 and rate 4
    tau = np.asarray(draws["tau"], np.float64)
    assert abs(z_score(tau.mean(axis=1), 0.75)) < MAX_Z
    assert abs(z_score((tau**2).mean(axis=1), 0.75**2 + 3 / 16)) < MAX_Z
    assert abs(z_score(draws.stats["log_partition"][:, 0], math.log(2 / 4**3))) < MAX_Z
    machine = en.RBM.from_parameters([[1.0, -2.0], [0.5, 1.0]], [0.3, -0.2], [0.1, 0.7])
    states = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T.astype(np.float32)
    energies = np.asarray(jax.vmap(lambda s: machine(v=s[:2], h=s[2:]))(states), np.float64)
    weights = np.exp(-energies)
    draws = sample(machine, SMC("gibbs"), num_chains=16)
    v = np.asarray(draws["v"], np.float64)
    for index in (0, 1):
        expected = float(weights @ states[:, index] / weights.sum())
        assert abs(z_score(v[..., index].mean(axis=1), expected)) < MAX_Z
    exact = math.log(weights.sum())
    assert abs(z_score(draws.stats["log_partition"][:, 0], exact)) < MAX_Z


# --- annealing


@quiet
def test_annealed_langevin() -> None:
    """Along noise levels, with a step size for each of them."""
    sigmas = np.geomspace(10.0, 0.01, 12)
    kernel = en.samplers.Langevin(step_size=0.1 * (1 + sigmas**2))
    path = en.Path(blurred, sigma=sigmas)
    draws = sample(path, Annealed(kernel, steps_per_level=50), num_chains=4)
    x = np.asarray(draws["x"], np.float64)
    # particles begin as draws of the widest level, and Langevin widens by 1 / (1 - 0.1 / 2)
    error = math.sqrt(1 / x[..., 0].size)
    assert np.all(np.abs(x.mean((0, 1)) - 1) < MAX_Z * error)
    assert np.all(np.abs(x.var((0, 1)) * 0.95 - 1) < MAX_Z * math.sqrt(2) * error)
    verdict = draws.diagnose(show=False)
    note, blind = verdict.notes
    assert "lags behind its levels" in note
    assert "order step_size" in note
    assert str(verdict).startswith("nothing wrong found: max R-hat")
    assert "R-hat compares runs" in blind


@pytest.mark.slow
@quiet
def test_annealing_of_an_energy() -> None:
    """From a fitted reference; what the kernel lacks follows the particles."""
    draws = sample(modes, Annealed("hmc", steps_per_level=2), num_chains=2, num_samples=200)
    x = np.asarray(draws["x"])
    assert 0.2 < (x[..., 0] > -1).mean() < 0.95  # both modes, in shares that lag
    assert 0.5 < float(draws.stats["acceptance_rate"].mean()) <= 1


def test_minimize() -> None:
    lowest = en.minimize(modes, key=jax.random.key(0))
    np.testing.assert_allclose(lowest.position["x"], [-3.0, 0.0], atol=0.05)
    np.testing.assert_allclose(lowest.energy, modes(lowest.position["x"]), rtol=1e-5)
    np.testing.assert_allclose(lowest.energy, -float(lowest.draws.stats["lp"].max()), rtol=1e-6)
    verdict = lowest.draws.diagnose(show=False)
    assert verdict.ok
    assert "low points of the energy, no draws" in verdict.notes[0]


@pytest.mark.slow
def test_minimize_over_spins() -> None:
    """A frustrated ring whose ground states are known by enumeration."""
    edges = [[i, (i + 1) % 9] for i in range(9)]
    coupling = np.array([1.0, -1.0, 0.5, 1.5, -0.7, 1.0, 1.0, -1.2, 0.9])
    model = en.Ising(9, coupling=coupling, field=0.05, edges=edges)
    states = np.array(np.meshgrid(*[[-1.0, 1.0]] * 9)).reshape(9, -1).T.astype(np.float32)
    exact = float(jax.vmap(model)(states).min())
    lowest = en.minimize(model, key=jax.random.key(0), num_particles=16)
    np.testing.assert_allclose(lowest.energy, exact, rtol=1e-5)


@pytest.mark.slow
def test_minimize_within_bounds() -> None:
    """Far inside: the map to the reals does not move a minimum."""
    energy = en.energy(x=en.Interval(0.0, 10.0))(lambda x: jnp.cos(3 * x) + 0.1 * (x - 5) ** 2)
    grid = np.linspace(0, 10, 100_001)
    exact = np.min(np.cos(3 * grid) + 0.1 * (grid - 5) ** 2)
    lowest = en.minimize(energy, key=jax.random.key(0), num_particles=16)
    np.testing.assert_allclose(lowest.energy, exact, atol=1e-3)


@pytest.mark.parametrize(
    ("energy", "found"),
    [
        (en.energy(x=en.Real())(lambda x: x), lambda x: x < -1e6),
        (en.energy(x=en.Real())(lambda x: -jnp.log(x)), lambda x: x > 1e6),  # NaN below 0
        (en.energy(x=en.Positive())(lambda x: -x), lambda x: x > 1e3),
    ],
    ids=["line", "logarithm", "half line"],
)
def test_minimize_without_a_minimum(energy: en.Energy, found: Callable[[float], bool]) -> None:
    with pytest.warns(en.ConvergenceWarning, match="it may fall without bound"):
        lowest = en.minimize(energy, key=jax.random.key(0), num_particles=16)
    assert found(float(lowest.position["x"]))


@pytest.mark.parametrize("support", [en.Positive(), en.Interval(0.0, 1.0)], ids=repr)
def test_minimize_towards_a_bound(support: en.Support) -> None:
    """An energy that falls to a bound, which it never reaches, is bounded below."""
    energy = en.energy(x=support)(lambda x: x)
    lowest = en.minimize(energy, key=jax.random.key(0), num_particles=16)
    assert 0 < lowest.energy < 1e-3


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: SMC("nut"), ValueError, "did you mean 'nuts'"),
        (lambda: SMC(target_ess=1.0), ValueError, r"target_ess= must lie in \(0, 1\)"),
        (lambda: SMC(num_mcmc_steps=0), ValueError, "num_mcmc_steps= must be at least 1"),
        (lambda: Annealed(steps_per_level=0), ValueError, "steps_per_level= must be at least 1"),
        (lambda: Annealed("parallel_tempering"), TypeError, "put the kernels inside it"),
        (
            lambda: sample(en.Path(blurred, sigma=[1.0, 0.1]), "smc"),
            ValueError,
            "SMC runs along a path from a reference, en.paths.geometric",
        ),
        (
            lambda: sample(modes, SMC(reference=en.Ring())),
            ValueError,
            r"begins with exact draws, and Ring\(x\) has none",
        ),
        (
            lambda: sample(modes, SMC("mclmc", reference=WIDE)),
            ValueError,
            r"MCLMC has no value for \['L'",
        ),
        (lambda: sample(modes, "smc", thin=2), ValueError, "particles are no chain"),
        (
            lambda: sample(
                en.Path(blurred, sigma=[1.0, 0.1]),
                Annealed(en.samplers.Langevin(step_size=[0.1, 0.2, 0.3])),
            ),
            ValueError,
            "a number, or one for each of 2 levels; got shape",
        ),
        (
            lambda: sample(en.paths.tempering(modes, [2.0, 1.0]), SimulatedAnnealing()),
            TypeError,
            "SimulatedAnnealing draws from one energy",
        ),
        (
            lambda: sample(modes, SimulatedAnnealing(temperatures=[1.0, 2.0])),
            ValueError,
            "from the hottest to the target's",
        ),
        (
            lambda: en.minimize(modes, "nuts", key=jax.random.key(0)),
            TypeError,
            "takes a sampler that minimises",
        ),
        (lambda: sample(modes, SMC("gibbs")), TypeError, "Gibbs draws discrete variables"),
    ],
)
def test_errors(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_names() -> None:
    kinds = {name: en.samplers.registry.get(name) for name in en.samplers.names()}
    particles = {n for n, kind in kinds.items() if issubclass(kind, en.samplers.ParticleSampler)}
    assert particles == {"smc", "annealed_langevin", "reverse_diffusion", "simulated_annealing"}
