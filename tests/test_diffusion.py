"""Noise levels, the forward process, and samplers that run down them: against normal laws."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.samplers import HMC, Annealed, ReverseDiffusion, UnadjustedHMC

MAX_Z = 5.0
quiet = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
SIGMAS = np.geomspace(20.0, 0.01, 60)
VARIANCES = np.array([0.25, 4.0])


@en.energy(x=en.Real((2,)))
def blurred(x, sigma):
    """Normal data of mean 1 and variances 0.25 and 4, with noise."""
    variances = jnp.array(VARIANCES) + sigma**2
    return 0.5 * jnp.sum((x - 1) ** 2 / variances + jnp.log(variances))


def particles(draws: en.Draws) -> np.ndarray:
    return np.asarray(draws["x"], np.float64).reshape(-1, 2)


def check_normal(x: np.ndarray, mean: Any, variance: Any) -> None:
    """First and second moments of independent rows."""
    count = len(x)
    assert np.all(np.abs(x.mean(0) - mean) < MAX_Z * np.sqrt(np.asarray(variance) / count))
    assert np.all(np.abs(x.var(0) / variance - 1) < MAX_Z * math.sqrt(2 / count))


# --- ancestral sampling


def ancestral_variance(levels: np.ndarray, variance: float) -> float:
    """Of normal data each step is a contraction and noise: the exact law of the sampler."""
    current = variance + levels[0] ** 2
    for above, sigma in itertools.pairwise(levels):
        step = above**2 - sigma**2
        current = (1 - step / (variance + above**2)) ** 2 * current + sigma**2 / above**2 * step
    return current


@quiet
def test_reverse_diffusion_has_the_law_of_its_steps() -> None:
    """Begun at the exact law of the noisiest level, which a normal energy has."""
    path = en.Path(en.NoiseConditional(lambda x, sigma: blurred(x, sigma), shape=2), sigma=SIGMAS)
    levels = np.asarray(path.levels, np.float64)
    draws = en.sample(
        path, "reverse_diffusion", key=jax.random.key(0), num_samples=10_000, init=np.ones(2)
    )
    # no exact draws: starts at the mean, with the noise of the level alone
    for index in (0, 1):
        variance = VARIANCES[index]
        expected = ancestral_variance(levels, variance)
        start, shrink = levels[0] ** 2, 1.0
        for above, sigma in itertools.pairwise(levels):
            step = above**2 - sigma**2
            shrink *= 1 - step / (variance + above**2)
        expected -= shrink**2 * (variance + levels[0] ** 2 - start)
        check_normal(particles(draws)[:, index : index + 1], 1.0, expected)
        assert abs(expected / variance - 1) < 0.15  # close to the data's own


@quiet
def test_it_is_the_update_of_a_denoising_diffusion_model() -> None:
    """In coordinates that shrink the data, one step is that of Ho, Jain and Abbeel."""
    above, sigma = 1.5, 0.7
    start = np.array([2.0, -1.0], np.float32)
    sampler = ReverseDiffusion()
    noise_free = sampler._ancestral(
        blurred,
        {"x": jnp.asarray(start)},
        jnp.float32(sigma),
        jnp.float32(above),
        jax.random.key(0),
    )[0]["x"]
    other = sampler._ancestral(
        blurred, {"x": jnp.zeros(2)}, jnp.float32(sigma), jnp.float32(above), jax.random.key(0)
    )[0]["x"]
    # the same noise: what is left of the difference is the mean's
    signal_above, signal = 1 / (1 + above**2), 1 / (1 + sigma**2)  # their cumulative alphas
    alpha = signal_above / signal
    score = -(np.array([2.0, -1.0]) - 1) / (VARIANCES + above**2) / math.sqrt(signal_above)

    def ddpm(x: np.ndarray, score: np.ndarray) -> np.ndarray:
        shrunk = x * math.sqrt(signal_above)
        return (shrunk + (1 - alpha) * score) / math.sqrt(alpha)

    score_zero = 1 / (VARIANCES + above**2) / math.sqrt(signal_above)
    expected = (ddpm(start, score) - ddpm(np.zeros(2), score_zero)) / math.sqrt(signal)
    np.testing.assert_allclose(noise_free - other, expected, rtol=1e-4)


@quiet
def test_shrunk_coordinates_are_one_substitution() -> None:
    """An energy of variance-preserving data becomes one of noised data, gradients and all."""

    @en.energy(x=en.Real((2,)))
    def preserving(x, sigma):
        variances = (jnp.array(VARIANCES) + sigma**2) / (1 + sigma**2)
        return 0.5 * jnp.sum((x - 1 / jnp.sqrt(1 + sigma**2)) ** 2 / variances)

    exploding = preserving.substitute(x=lambda x, sigma: x / jnp.sqrt(1 + sigma**2))
    x, sigma = jnp.array([0.3, -2.0]), jnp.float32(0.8)
    slopes = [
        jax.grad(lambda x, E=E: E.at({"x": x, "sigma": sigma}))(x) for E in (exploding, blurred)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5)


@quiet
def test_reverse_diffusion_by_a_kernel_along_a_path() -> None:
    """The conditionals themselves, by chains: exact at a spacing where one gradient is not."""
    levels = np.geomspace(20.0, 0.3, 9)
    sampler = ReverseDiffusion("hmc", num_steps=8)
    with pytest.raises(ValueError, match="does not tune HMC"):
        en.sample(en.Path(blurred, sigma=levels), sampler, key=jax.random.key(0))
    kernel = HMC(step_size=0.6, inverse_mass_matrix=[1.0, 1.0], num_integration_steps=2)
    draws = en.sample(
        en.Path(blurred, sigma=levels),
        ReverseDiffusion(kernel, num_steps=20),
        key=jax.random.key(0),
        num_samples=2000,
        init=np.ones(2),
    )
    x = particles(draws)
    error = math.sqrt(2 / len(x))
    # starts lack the data's own variance beside 20², which is 1 % of it
    assert np.all(np.abs(x.var(0) / (VARIANCES + 0.3**2) - 1) < MAX_Z * error + 0.01)
    assert 0.5 < float(draws.stats["acceptance_rate"].mean()) < 1


@pytest.mark.parametrize(
    ("target", "sampler", "match"),
    [
        (blurred, ReverseDiffusion(), "one energy has none"),
        (en.Path(blurred, sigma=[0.1, 1.0]), ReverseDiffusion(), "largest to the smallest; got"),
        (en.Path(blurred, sigma=[1.0]), ReverseDiffusion(), "two levels at least"),
        (
            en.paths.tempering(blurred.condition(sigma=1.0), [2.0, 1.0]),
            ReverseDiffusion(),
            "noise levels of real variables",
        ),
        (
            en.Path(blurred.constrain(x=en.Positive((2,))), sigma=[1.0, 0.1]),
            ReverseDiffusion(),
            r"noise levels of real variables.* levels of sigma\) of 'x': positive \(2,\)",
        ),
        (en.Path(blurred, sigma=[1.0, 0.1]), ReverseDiffusion(levels=[1, 2]), "beside the levels"),
    ],
)
def test_errors_of_reverse_diffusion(target: Any, sampler: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        en.sample(target, sampler, key=jax.random.key(0), num_samples=10)


def test_levels_that_are_none() -> None:
    with pytest.raises(ValueError, match="positive noise levels"):
        ReverseDiffusion(levels=[1.0, -1.0])
    with pytest.raises(ValueError, match="mean= and scale= together"):
        ReverseDiffusion(mean={"x": jnp.zeros(2)})


# --- any kernel down the levels


@quiet
@pytest.mark.parametrize("kernel", ["hmc", "mala", "unadjusted_hmc"])
def test_annealed_kernels_follow_each_level(kernel: str) -> None:
    """Step sizes fall by three orders of magnitude down the levels, unasked."""
    draws = en.sample(
        en.Path(blurred, sigma=SIGMAS),
        Annealed(kernel, steps_per_level=10),
        key=jax.random.key(1),
        num_samples=1000,
    )
    x = particles(draws)
    rates = np.asarray(draws.stats["acceptance_rate"])
    wanted = {"hmc": 0.8, "mala": 0.574, "unadjusted_hmc": 0.95}[kernel]
    assert abs(rates.mean() - wanted) < 0.05
    bias = 0.1 if kernel == "unadjusted_hmc" else 0.02  # by order step_size squared; the lag
    assert np.all(np.abs(x.mean(0) - 1) < MAX_Z * np.sqrt(VARIANCES / len(x)) + 0.02)
    assert np.all(np.abs(x.var(0) / VARIANCES - 1) < MAX_Z * math.sqrt(2 / len(x)) + bias)


@quiet
def test_one_particle_does_not_steer_its_own_steps(key: jax.Array) -> None:
    """Steps that follow a particle are larger where it is accepted: by less and less in a level."""

    @en.energy(x=en.Real())
    def normal(x, sigma):
        return 0.5 * x**2 + 0 * sigma

    draws = en.sample(
        en.Path(normal, sigma=[1.0]),
        Annealed("mala", steps_per_level=1000),
        key=key,
        num_samples=1,
        num_chains=2000,
    )
    squares = np.asarray(draws["x"], np.float64).ravel() ** 2
    assert abs(squares.mean() - 1) < MAX_Z * math.sqrt(2 / len(squares))


def test_particles_that_lie_nowhere_or_stay_behind_are_told() -> None:
    @en.energy(x=en.Real())
    def box(x, sigma):
        return jnp.where(jnp.abs(x) < 1 + 3 * sigma, 0.5 * x**2, jnp.inf)

    @en.energy(x=en.Positive())
    def shrinking(x, sigma):
        return x / (1 + sigma)

    with pytest.warns(en.ConvergenceWarning, match="particles lie where the energy is not finite"):
        draws = en.sample(en.Path(box, sigma=[3.0, 0.1]), Annealed("hmc"), key=jax.random.key(0))
    verdict = draws.diagnose(show=False)
    assert not verdict.ok
    assert "ESS" not in str(verdict).splitlines()[0]
    path = en.Path(shrinking, sigma=[5.0, 1.0, 0.01])
    with pytest.warns(en.ConvergenceWarning, match="were hardly moved in the end"):
        en.sample(path, Annealed("mala", steps_per_level=20), key=jax.random.key(7))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Annealed("hmc", steps_per_level=[3, 4]), "must be one number"),
        (lambda: descend(Annealed("hmc"), [1.0, -0.5]), "must be positive and not rise"),
        (lambda: descend(Annealed("hmc"), [0.5, 1.0]), "must be positive and not rise"),
        (lambda: en.data.diffuse([]), "one noise level at least"),
        (
            lambda: en.data.diffuse(1.0)(
                {"x": jnp.ones(2), "sigma": jnp.ones(())}, jax.random.key(0)
            ),
            "have 'sigma' already",
        ),
        (lambda: en.from_score(lambda x: -x, en.Binary(3)), "has no score"),
    ],
)
def test_errors_of_what_is_given(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def descend(sampler: Any, levels: Any) -> en.Draws:
    return en.sample(en.Path(blurred, sigma=levels), sampler, key=jax.random.key(0))


# --- unadjusted Hamiltonian dynamics


@quiet
@pytest.mark.parametrize("persistence", [0.0, 0.7])
def test_unadjusted_hmc_has_the_law_of_its_leapfrog(persistence: float, key: jax.Array) -> None:
    """The leapfrog integrator keeps p² + λ(1 - ε²λ/4)x² on a normal law of precision λ."""
    precision = np.array([1.0, 4.0])
    target = en.Gaussian(jnp.zeros(2), precision=np.diag(precision))
    step_size = 0.6
    kernel = UnadjustedHMC(
        step_size=step_size,
        inverse_mass_matrix=[1.0, 1.0],
        num_integration_steps=3,
        step_size_jitter=0.0,
        persistence=persistence,
    )
    draws = en.sample(
        target, kernel, key=key, num_chains=64, num_warmup=200, num_samples=1000, progress=False
    )
    x = np.asarray(draws["x"], np.float64)
    expected = 1 / (precision * (1 - step_size**2 * precision / 4))
    squares = (x**2).mean(axis=1)  # of a chain
    error = squares.std(0, ddof=1) / math.sqrt(len(squares))
    assert np.all(np.abs(squares.mean(0) - expected) < MAX_Z * error)
    assert np.all(np.abs(squares.mean(0) - 1 / precision) > MAX_Z * error)  # it has that power
    assert "step_size squared" in str(draws.diagnose(show=False).notes)


def test_momenta_are_kept_where_the_energy_changes(key: jax.Array) -> None:
    kernel = UnadjustedHMC(step_size=0.1, inverse_mass_matrix=[1.0, 1.0], persistence=0.9)
    state = kernel.init(blurred.condition(sigma=1.0), {"x": jnp.zeros(2)}, key)
    other = kernel.renew(blurred.condition(sigma=2.0), state, {"x": jnp.ones(2)}, key)
    np.testing.assert_array_equal(other.momentum["x"], state.momentum["x"])
    assert float(other.logdensity) != float(state.logdensity)


@pytest.mark.parametrize("name", ["persistence", "step_size_jitter"])
def test_fractions_are_checked(name: str) -> None:
    wrong: dict[str, Any] = {name: 1.0}
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\)"):
        UnadjustedHMC(**wrong)


# --- schedules and the forward process


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_noise_levels_are_those_of_the_cumulative_product(schedule: str) -> None:
    count = 50
    sigmas = np.asarray(en.paths.noise_levels(count, schedule), np.float64)
    assert sigmas.shape == (count,)
    assert np.all(np.diff(sigmas) < 0)
    if schedule == "linear":
        betas = np.minimum(np.linspace(0.1 / count, 20 / count, count), 0.999)
        signal = np.cumprod(1 - betas)
    else:
        t = np.arange(1, count) / count  # the last is clipped
        f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
        signal = np.append(f, f[-1] * 0.001)
    np.testing.assert_allclose(sigmas[::-1], np.sqrt((1 - signal) / signal), rtol=1e-4)
    with pytest.raises(ValueError, match="'cosine' or 'linear'"):
        en.paths.noise_levels(10, "quadratic")


@pytest.mark.parametrize("preserving", [False, True])
def test_the_forward_process(preserving: bool, key: jax.Array) -> None:
    levels = [0.5, 3.0]
    rows = 3 * jnp.ones((20_000, 2))
    diffuse = en.data.diffuse(levels, preserving=preserving)
    noisy = jax.vmap(diffuse)({"x": rows}, jax.random.split(key, len(rows)))
    sigma = np.asarray(noisy["sigma"], np.float64)
    assert abs((sigma == 0.5).mean() - 0.5) < MAX_Z * 0.5 / math.sqrt(len(rows))
    for level in levels:
        x = np.asarray(noisy["x"], np.float64)[sigma == np.float32(level)]
        shrink = math.sqrt(1 + level**2) if preserving else 1.0
        check_normal(x, 3 / shrink, (level / shrink) ** 2 * np.ones(2))
    assert en.data.diffuse(levels) is en.data.diffuse(np.array(levels))
    with pytest.raises(ValueError, match="positive"):
        en.data.diffuse([0.0, 1.0])


# --- energies of scores


def test_a_score_that_is_a_gradient_gives_its_energy() -> None:
    scored = en.from_score(lambda x, sigma: -(x - 1) / (jnp.array(VARIANCES) + sigma**2))
    assert scored.variables == ("x", "sigma")
    x, sigma = jnp.array([0.4, -3.0]), jnp.float32(0.5)
    difference = blurred(x, sigma) - blurred(jnp.zeros(2), sigma)
    np.testing.assert_allclose(scored(x, sigma), difference, rtol=1e-5)
    slopes = [jax.grad(E)(x, sigma) for E in (scored, blurred)]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5)
    curvatures = [jax.hessian(E)(x, sigma) for E in (scored, blurred)]
    np.testing.assert_allclose(curvatures[0], curvatures[1], rtol=1e-5)
    by_sigma = [
        jax.grad(lambda s, E=E: E(x, s) - E(jnp.zeros(2), s))(sigma) for E in (scored, blurred)
    ]
    np.testing.assert_allclose(by_sigma[0], by_sigma[1], rtol=1e-4)


def test_a_score_that_is_no_gradient_parts_from_its_energy_by_its_curl() -> None:
    matrix = np.array([[1.0, 0.6], [-0.2, 2.0]], np.float32)  # its rotation is 0.8
    scored = en.from_score(lambda x: -matrix @ x, {"x": en.Real((2,))})
    x = jnp.array([0.7, -1.3])
    symmetric = (matrix + matrix.T) / 2
    np.testing.assert_allclose(scored(x), 0.5 * x @ symmetric @ x, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(scored)(x), matrix @ x, rtol=1e-5)
    antisymmetric = (matrix - matrix.T) / 2
    np.testing.assert_allclose(symmetric @ x - matrix @ x, -antisymmetric @ x, rtol=1e-5)


@quiet
def test_corrected_kernels_draw_from_the_energy_of_any_field(key: jax.Array) -> None:
    """A field that rotates guides the proposals, and the law is that of the values alone."""
    matrix = np.array([[1.0, 0.6], [-0.2, 2.0]], np.float32)
    scored = en.from_score(lambda x: -matrix @ x, {"x": en.Real((2,))})
    kernel = HMC(step_size=0.5, inverse_mass_matrix=[1.0, 1.0], num_integration_steps=4)
    draws = en.sample(scored, kernel, key=key, num_chains=64, num_warmup=200, num_samples=500)
    x = np.asarray(draws["x"], np.float64)
    expected = np.linalg.inv((matrix + matrix.T) / 2)
    products = np.einsum("cdi,cdj->cij", x, x) / x.shape[1]
    error = products.std(0, ddof=1) / math.sqrt(len(products))
    assert np.all(np.abs(products.mean(0) - expected) < MAX_Z * error)


def test_a_gradient_of_a_log_density_is_a_score() -> None:
    scored = en.from_score(jax.grad(lambda x: -0.5 * jnp.sum(x**2)), en.Real((2,)))
    assert scored.supports == {"x": en.Real((2,))}
    np.testing.assert_allclose(scored(jnp.array([3.0, 4.0])), 12.5, rtol=1e-5)


def test_a_score_network_learns_by_denoising(key: jax.Array) -> None:
    """A linear score of normal data ends at minus the inverse of their covariance, noised."""
    rows = np.random.default_rng(0).normal(size=(4000, 2)) * np.sqrt(VARIANCES)
    scored = en.from_score(eqx.nn.Linear(2, 2, key=key), {"x": en.Real((2,))})
    objective = en.objectives.DSM(sigma=0.5)
    schedule = optax.cosine_decay_schedule(0.05, 1500)
    fit = en.fit(
        scored,
        rows,
        objective,
        key=key,
        num_steps=1500,
        batch_size=256,
        optimizer=optax.adam(schedule),
    )
    slopes = jax.jacfwd(jax.grad(fit.energy))(jnp.zeros(2))
    np.testing.assert_allclose(slopes, np.diag(1 / (rows.var(0) + 0.25)), atol=0.06)


def test_errors_of_scores() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        en.from_score(en.Gaussian)
    with pytest.raises(ValueError, match="must have the shape"):
        en.from_score(lambda x: x[0])(jnp.zeros(2))
    with pytest.raises(ValueError, match="'z'"):
        en.from_score(lambda x: -x, {"z": en.Real()})
