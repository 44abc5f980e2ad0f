"""log Z against closed forms and enumeration."""

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

import energia as en
from energia.evaluate import EvaluationWarning, log_partition

Counter = Callable[[], AbstractContextManager[Any]]

quiet = pytest.mark.filterwarnings("ignore::energia.evaluate.EvaluationWarning")


@en.energy(x=en.Positive())
def gamma(x):
    return 2 * x - 2.5 * jnp.log(x)


@en.energy(x=en.Real())
def cauchy(x):
    return jnp.log1p(x**2)


@en.energy(x=en.Interval(-1, 3), z=en.Categorical(3))
def mixed(x, z):
    return x * z


def rbm_of(seed: int, num_visible: int = 12, num_hidden: int = 8, scale: float = 1.0) -> en.RBM:
    rng = np.random.default_rng(seed)
    shape = num_visible, num_hidden
    numbers = (scale * rng.normal(size=s) for s in (shape, num_visible, num_hidden))
    return en.RBM.from_parameters(*numbers)


def enumerated(rbm: en.RBM) -> float:
    """log Z of a Boltzmann machine over all states of its hidden units, in NumPy."""
    weights, visible, hidden = (
        np.asarray(a, float) for a in (rbm.weights, rbm.visible_bias, rbm.hidden_bias)
    )
    h = np.array(list(itertools.product([0, 1], repeat=len(hidden))))
    return float(
        np.asarray(logsumexp(h @ hidden + np.logaddexp(0, visible + h @ weights.T).sum(1)))
    )


def modes(count: int) -> en.GaussianMixture:
    """Unit modes uniform in a square, as in FAB's and later tests: normalised."""
    means = jax.random.uniform(jax.random.key(0), (count, 2), minval=-40, maxval=40)
    return en.GaussianMixture(means, scales=1.0)


MIXED = math.log(sum((math.exp(z) - math.exp(-3 * z)) / z if z else 4 for z in range(3)))

EXACT: dict[str, tuple[Callable[[], en.Energy], float, str]] = {
    "a normaliser that is known": (lambda: en.Funnel(10), 0.0, "exact"),
    "a temperature": (lambda: en.Gaussian([0.0, 1.0]) / 2, 0.5 * math.log(8 * math.pi), "exact"),
    "layers": (lambda: rbm_of(0), enumerated(rbm_of(0)), "exact"),
    "states": (lambda: en.Ising((4, 4), coupling=0.4), 14.561093, "exact"),
    "a layer left": (lambda: rbm_of(0).marginalize("h"), enumerated(rbm_of(0)), "exact"),
    "a positive variable": (lambda: gamma, gammaln(3.5) - 3.5 * math.log(2), "quadrature"),
    "tails like Cauchy's": (lambda: cauchy, math.log(math.pi), "quadrature"),
    "a bounded variable with labels": (lambda: mixed, MIXED, "quadrature"),
    "a plane": (lambda: en.Rosenbrock(), math.log(math.pi / 10), "quadrature"),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name):
    make, value, method = EXACT[name]
    result = log_partition(make())
    assert result.method == method
    assert result.ok
    assert result.value == pytest.approx(value, rel=1e-6, abs=3e-5)
    assert result.lower <= result.value <= result.upper
    assert abs(result.value - value) <= result.stderr + 1e-6 * max(abs(value), 1)
    assert float(result) == result.value
    assert result.ess is None


def test_exact_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"Ising\(x\): no closed form, and more than 1,048,576"):
        log_partition(en.Ising((5, 5), coupling=0.4), "exact")
    with pytest.raises(ValueError, match="3 continuous entries, more than 2"):
        log_partition(en.Rosenbrock(3), "exact")
    with pytest.raises(TypeError, match="needs key="):
        log_partition(en.Rosenbrock(3))

    @en.energy(x=en.Real())
    def undefined(x):
        return jnp.log(x)

    with pytest.raises(ValueError, match="is NaN at"):
        log_partition(undefined)


def test_quadrature_warns_where_there_is_no_integral():
    @en.energy(x=en.Real())
    def flat(x):
        return 0.0 * x

    for energy in (flat, en.MLPEnergy(2, width=8, key=jax.random.key(0))):
        with pytest.warns(EvaluationWarning, match="may have no integral"):
            result = log_partition(energy)
        assert result.upper == result.stderr == np.inf
        assert not result.ok

    @en.energy(x=en.Real())
    def heavy(x):
        return 0.75 * jnp.log1p(x**2)

    with pytest.warns(EvaluationWarning, match="does not vanish far out"):
        result = log_partition(heavy)
    assert not result.ok
    assert "not to be trusted" in repr(result)


# --- weights are unbiased, however few the levels

PLANE = en.samplers.HMC(
    step_size=0.5, inverse_mass_matrix=jnp.array([0.8, 1.2]), num_integration_steps=3
)


def agrees(result: en.evaluate.LogPartition, value: float, errors: float = 4.0) -> bool:
    return abs(result.value - value) < errors * result.stderr


def holds(result: en.evaluate.LogPartition, value: float) -> bool:
    """Within its own bounds; one standard error is left for chance, as many tests ask."""
    return result.lower - result.stderr < value < result.upper + result.stderr


def in_plane(method: str, shift: Any = 0.5, scale: Any = (0.9, 1.1), **options: Any) -> Any:
    """log Z, 0, of a normal law in the plane, from a standard one; one program for all tests."""
    target = en.Gaussian(jnp.full(2, shift), scale=jnp.array(scale))
    options = {
        "reference": en.Gaussian(jnp.zeros(2)),
        "kernel": PLANE,
        "num_chains": 1024,
    } | options
    return log_partition(target, method, **options)


@quiet
@pytest.mark.parametrize("method", ["ais", "smc", "raise"])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_weights_are_unbiased(method, num_steps, key):
    result = in_plane(method, num_steps=num_steps, key=key)
    assert result.stderr < 0.04
    assert agrees(result, 0.0), result


class Drift(en.samplers.Kernel):
    """Broken: it leaves nothing invariant, and does not say so."""

    def init(self, energy: en.Energy, position: Any, key: jax.Array) -> Any:
        return en.samplers.Gibbs().init(energy, position, key)

    def step(self, energy: en.Energy, state: Any, key: jax.Array) -> Any:
        return state._replace(position={n: x + 0.5 for n, x in state.position.items()}), {}


@quiet
def test_a_kernel_that_drifts_is_seen(key):
    result = in_plane("ais", num_steps=3, key=key, kernel=Drift())
    assert not agrees(result, 0.0, errors=10)


@pytest.mark.parametrize("method", ["ais", "smc", "raise", "bracket", "tempering"])
def test_boltzmann_machine(method, key):
    rbm = rbm_of(1)
    result = log_partition(rbm, method, key=key, num_steps=300)
    assert result.stderr < 0.2
    assert agrees(result, enumerated(rbm)), result
    assert holds(result, enumerated(rbm))
    assert np.isinf(result.lower) == (method in ("raise", "tempering"))
    assert np.isinf(result.upper) == (method in ("ais", "smc", "tempering"))
    assert [side.method for side in result.sides] == ["ais", "raise"] * (method == "bracket")
    for side in result.sides:
        assert agrees(side, enumerated(rbm)), side


@quiet
def test_a_layer_is_summed_out(key):
    """With one level, the error is that of the exact weights of p(v), not of p(v, h)."""
    rbm, count = rbm_of(2), 1024
    weights, visible, hidden = (
        np.asarray(a, float) for a in (rbm.weights, rbm.visible_bias, rbm.hidden_bias)
    )
    v = np.array(list(itertools.product([0, 1], repeat=len(visible))))
    log_weights = v @ visible + np.logaddexp(0, hidden + v @ weights).sum(1)
    share = np.exp(log_weights - logsumexp(log_weights))
    error = math.sqrt((len(v) * np.sum(share**2) - 1) / count)
    uniform = en.Bernoulli("v", probs=np.full(12, 0.5)) + en.Bernoulli("h", probs=np.full(8, 0.5))
    result = log_partition(
        rbm, "ais", key=key, num_steps=1, num_chains=count, reference=uniform, levels=[0.0, 1.0]
    )
    assert agrees(result, enumerated(rbm)), result
    assert result.stderr == pytest.approx(error, rel=0.5)


@quiet
def test_every_other_layer_is_summed_out(key):
    """Of a deep machine one level gives the exact weights of p(h1) alone, visible units apart."""
    rbms, count = [rbm_of(1, 9, 6), rbm_of(2, 6, 8)], 1024
    low, high = (
        [np.asarray(a, float) for a in (m.weights, m.visible_bias, m.hidden_bias)] for m in rbms
    )
    h1 = np.array(list(itertools.product([0, 1], repeat=6)))
    log_weights = h1 @ (low[2] + high[1])
    log_weights += np.logaddexp(0, low[1] + h1 @ low[0].T).sum(1)
    log_weights += np.logaddexp(0, high[2] + h1 @ high[0]).sum(1)
    share = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    error = math.sqrt((len(h1) * np.sum(share**2) - 1) / count)
    even = [
        en.Bernoulli(name, probs=np.full(size, 0.5))
        for name, size in (("v", 9), ("h1", 6), ("h2", 8))
    ]
    result = log_partition(
        en.DBM.from_rbms(rbms),
        "ais",
        key=key,
        reference=even[0] + even[1] + even[2],
        num_chains=count,
        levels=[0.0, 1.0],
    )
    assert agrees(result, np.logaddexp.reduce(log_weights)), result
    assert result.stderr == pytest.approx(error, rel=0.5)


@quiet
@pytest.mark.parametrize(
    ("side", "coupling", "field", "value"),
    [
        (5, 0.2, 0.2, 19.674086),
        pytest.param(8, 0.440687, 0.0, 60.141801, marks=pytest.mark.slow),
        pytest.param(10, 0.2, 0.2, 78.688056, marks=pytest.mark.slow),
    ],
)
def test_ising(side, coupling, field, value, key):
    model = en.Ising((side, side), coupling=coupling, field=field)
    result = log_partition(model, "bracket", key=key, num_steps=500)
    assert result.stderr < 0.25
    assert holds(result, value), result


@pytest.mark.slow
def test_bounded_and_discrete_variables(key):
    @en.energy(x=en.Positive(), y=en.Interval(-1, 3), z=en.Categorical(3))
    def labelled(x, y, z):
        return 2 * x - 2.5 * jnp.log(x) + y * z

    value = MIXED + gammaln(3.5) - 3.5 * math.log(2)
    result = log_partition(labelled, "bracket", key=key, num_steps=200)
    assert result.acceptance_rate is not None
    assert result.acceptance_rate > 0.5
    assert agrees(result, value), result
    assert holds(result, value), result


@quiet
def test_a_path_of_ones_own(key):
    """The last of a ladder of noise: the first is exact, and the levels fall."""
    prior = en.Normal("x", 0.0, scale=2.0)
    path = en.Path(prior + en.Normal("x", 1.0, scale="sigma"), sigma=[100.0, 10.0, 1.0, 0.5])
    value = -0.5 * (math.log(2 * math.pi * 4.25) + 1 / 4.25)  # of two normals at a distance 1
    kernel = en.samplers.HMC(step_size=0.5, inverse_mass_matrix=[0.3])
    result = log_partition(path, "bracket", key=key, num_steps=200, kernel=kernel)
    assert result.levels is not None
    assert result.levels[[0, -1]] == pytest.approx([100.0, 0.5])
    assert np.all(np.diff(result.levels) < 0)
    assert agrees(result, value), result
    given = log_partition(path, "ais", key=key, levels=np.geomspace(100, 0.5, 300), kernel=kernel)
    assert agrees(given, value), given
    assert given.num_steps == 299


# --- parallel tempering

TEMPERED = en.samplers.ParallelTempering(
    en.samplers.HMC(step_size=0.6, inverse_mass_matrix=jnp.ones(2), num_integration_steps=4),
    num_replicas=5,
)


@pytest.fixture(scope="module")
def tempered() -> en.Draws:
    """Of a law whose log Z is log 2, along a path from one whose log Z is 0."""
    target = 2.0 * en.Gaussian(jnp.ones(2))  # exp(-2 E) = N(x; 1, 1/2) / (4 pi)
    sampler = TEMPERED.replace(reference=en.Gaussian(jnp.zeros(2), scale=2.0))
    return en.sample(target, sampler, key=jax.random.key(0), num_warmup=200, num_samples=500)


def test_draws_of_parallel_tempering_tell_log_partition(tempered, tmp_path):
    value = -math.log(4 * math.pi)
    result = log_partition(tempered.energy, "tempering", draws=tempered)
    assert result.stderr < 0.05
    assert agrees(result, value), result
    assert result.ok
    assert result.levels is not None
    assert len(result.levels) == 5
    longer = log_partition(tempered.energy, "tempering", draws=tempered.extend(1500))
    assert longer.stderr == pytest.approx(result.stderr / 2, rel=0.35)
    tempered.save(tmp_path / "draws")
    loaded = en.Draws.load(tmp_path / "draws", energy=tempered.energy, sampler=tempered.sampler)
    assert log_partition(tempered.energy, "tempering", draws=loaded).value == result.value
    with pytest.raises(ValueError, match=r"Draws.load\(path, energy=E\)"):
        log_partition(tempered.energy, "tempering", draws=en.Draws.load(tmp_path / "draws"))


def test_tempering_refuses(tempered, key):
    target = tempered.energy
    with pytest.raises(ValueError, match="needs draws= of ParallelTempering, got"):
        log_partition(target, "tempering", draws=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="levels= is not for 'tempering'"):
        log_partition(target, "tempering", key=key, levels=[0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="Langevin does not leave"):
        log_partition(target, "tempering", key=key, kernel=en.samplers.Langevin(step_size=0.1))
    path = en.paths.tempering(en.Ring(), [2.0, 1.0])
    with pytest.raises(ValueError, match="nobody knows log Z where the path begins"):
        log_partition(path, "tempering", key=key, num_steps=10, num_chains=8, kernel=TEMPERED)


@quiet
@pytest.mark.slow
def test_errors_of_tempering_are_of_the_right_size():
    """Though draws are correlated along chains, and neighbours share them."""
    target = en.GaussianMixture([[-4.0, 0.0], [4.0, 0.0]], scales=[1.0, 0.6], weights=[0.75, 0.25])
    reference = en.Gaussian(jnp.zeros(2), scale=4.0)
    results = [
        log_partition(
            target,
            "tempering",
            key=jax.random.key(seed),
            reference=reference,
            kernel=TEMPERED,
            num_steps=400,
            num_chains=32,
        )
        for seed in range(40)
    ]
    scores = np.array([result.value / result.stderr for result in results])
    assert 0.7 < np.sqrt(np.mean(scores**2)) < 1.35
    assert np.mean([result.ok for result in results]) > 0.8


# --- errors that are told


@pytest.mark.slow
def test_errors_of_smc_are_of_the_right_size():
    """The spread over seeds is what the stderr says, though chains are resampled."""
    target = en.Gaussian(jnp.full(4, 3.0), scale=jnp.full(4, 0.5))
    results = [
        log_partition(
            target,
            "smc",
            key=jax.random.key(seed),
            reference=en.Gaussian(jnp.zeros(4), scale=2.0),
            num_steps=20,
            num_chains=256,
        )
        for seed in range(24)
    ]
    values = np.array([result.value for result in results])
    told = np.sqrt(np.mean([result.stderr**2 for result in results]))
    assert 0.6 < told / values.std(ddof=1) < 1.7
    assert abs(values.mean()) < 4 * told / math.sqrt(len(values)) + told**2
    assert all(result.ess is not None and result.ess < 200 for result in results)


def test_it_warns_where_weights_are_few(key):
    with pytest.warns(EvaluationWarning, match="effective number of weights is"):
        result = in_plane("ais", shift=3.0, scale=(0.02, 0.02), key=key, levels=[0.0, 1.0])
    assert not result.ok
    assert result.ess is not None
    assert result.ess < 20


def test_it_warns_where_the_bracket_stays_open(key):
    """The draws are those of another law."""
    wrong = 0.1 * np.random.default_rng(0).normal(size=(1024, 2)) + 1.5
    with pytest.warns(EvaluationWarning, match="the bracket does not close"):
        result = in_plane("bracket", key=key, draws=wrong, levels=[0.0, 1.0])
    assert result.stderr >= 0.5 * abs(np.mean([result.lower, result.upper]) - result.value)


@quiet
@pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
def test_given_draws(key):
    target = en.Gaussian(jnp.full(2, 0.5), scale=jnp.array([0.9, 1.1]))
    draws = en.sample(target, "mala", key=key, num_samples=1000, thin=3)
    run = {"key": key, "num_steps": 3}
    for given in (draws, draws["x"].reshape(-1, 2), {"x": np.asarray(draws["x"][0])}):
        result = in_plane("raise", draws=given, **run)
        assert abs(result.value) < 0.15, result
        assert not result.notes
    assert result.num_chains == 1000
    with pytest.raises(ValueError, match=r"draws= lacks \['x'\]"):
        in_plane("raise", draws={"z": draws["x"][0]}, **run)
    with pytest.raises(ValueError, match="at least 2; got"):
        in_plane("raise", draws=draws["x"][0, :1], **run)


def test_what_cannot_run_is_refused(key):
    other: dict[str, Any] = {"reference": en.Gaussian(0.0).rename(x="y")}
    for options, message in (
        ({"kernel": "langevin"}, "does not leave exp"),
        ({"reference": en.Ring()}, "nobody knows exact draws"),
        ({"num_steps": 0}, "num_steps= must be at least 1"),
        ({"num_chains": 1}, "num_chains= must be at least 2"),
        ({"levels": [0.0, 0.5, 0.4, 1.0]}, r"and then 0.4, at levels\[2\]"),
        ({"levels": [0.0, 0.5]}, "from 0 to 1"),
        (other, "a reference of the target's"),
    ):
        with pytest.raises(ValueError, match=message):
            in_plane("ais", **{"key": key} | options)
    with pytest.raises(ValueError, match="method= must be one of"):
        in_plane("annealing", key=key)
    with pytest.raises(TypeError, match="'v' is discrete"):
        log_partition(rbm_of(0), "ais", key=key, kernel="hmc")
    path = en.paths.geometric(en.Gaussian(0.0), en.DoubleWell())
    with pytest.raises(ValueError, match="a path has its own first level"):
        log_partition(path, "ais", key=key, reference=en.Gaussian(0.0))
    unknown = en.energy(lambda y: y**2)
    with pytest.raises(ValueError, match="the support of 'y'"):
        log_partition(unknown)
    half = en.energy(x=en.Real((2,)))(lambda x: jnp.sum(jnp.sqrt(x + 1) + x**2))
    with pytest.raises(ValueError, match=r"the energy is NaN where \d+ of 128 chains.*'x': \["):
        log_partition(half, "ais", key=key)


def test_other_numbers_compile_nothing(compilations: Counter):
    keys = [jax.random.key(seed) for seed in range(3)]
    levels = np.linspace(0, 1, 70)
    for method in ("bracket", "smc"):
        in_plane(method, key=keys[0], num_steps=40)
        in_plane(method, key=keys[0], levels=levels)
        with compilations() as seen:
            in_plane(method, key=keys[1], num_steps=90, shift=0.6)
            in_plane(method, key=keys[2], levels=levels**2, shift=0.4)
        assert seen.count == 0, seen.compiled


# --- harder ones


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_funnel(seed):
    """Chains do not reach the neck or the mouth: no side alone is right, and the bracket holds."""
    options: dict[str, Any] = {"reference": en.Gaussian(jnp.zeros(10), scale=3.0)}
    options["key"] = jax.random.key(seed)
    result = log_partition(en.Funnel(10), "bracket", **options)
    assert holds(result, 0.0), result
    told = log_partition(en.Funnel(10), "tempering", **options)
    assert agrees(told, 0.0) or not told.ok, told


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_forty_modes(seed):
    reference = en.Gaussian(jnp.zeros(2), scale=30.0)
    result = log_partition(modes(40), "bracket", key=jax.random.key(seed), reference=reference)
    assert result.stderr < 0.3
    assert holds(result, 0.0), result


@en.energy(x=en.Real((32,)))
def many_well(x):
    """Sixteen double wells, each beside a standard normal."""
    d, v = x[::2], x[1::2]
    return -jnp.sum(0.5 * d + 6 * d**2 - d**4) + 0.5 * jnp.sum(v**2)


@pytest.mark.slow
def test_many_well(key):
    result = log_partition(many_well, "ais", key=key, num_chains=512, num_steps=500)
    assert result.stderr < 0.3
    assert agrees(result, 164.695675, errors=3), result


@pytest.mark.slow
def test_german_credit(data_file, key):
    from posteriors.models import german_credit

    data = np.load(data_file("german_credit.npz"))
    model = german_credit(data)
    mean, sd = data["posterior_mean"], data["posterior_sd"]  # the prior is far, and costs levels
    near = en.Gaussian(mean, scale=1.2 * sd).rename(x="weights")
    result = log_partition(model, "ais", key=key, reference=near, num_steps=100, num_chains=64)
    assert result.stderr < 0.3
    assert agrees(result, -529.1752, errors=3), result
