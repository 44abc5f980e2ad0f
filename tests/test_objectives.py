"""Objectives: what they learn, closed forms, and what the conformance check rejects."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_objectives import (
    ForgetsChains,
    GrowingState,
    Impure,
    ToyNCE,
    VectorLoss,
    VectorMetric,
    WrongResidual,
    WrongSign,
)

import energia as en
from energia.objectives import CD, CNCE, DRL, DSM, MLE, NCE, PCD, SM, SSM
from energia.objectives._objective import registry
from energia.samplers import MALA, Langevin
from energia.testing._objective import check_objective

EXACT = {"sampler": MALA(step_size=0.5), "num_steps": 5, "buffer_size": 256, "reinit_prob": 0.01}
ONE_LEVEL = {
    "sampler": MALA(step_size=0.25),
    "num_levels": 1,
    "num_steps": 12,
    "sigma_min": 0.5,
    "sigma_max": 2.0,
}

# for every registered name: an objective that learns a Gaussian without bias, and the noise it adds
CONFIGS = {
    "cd": (CD(sampler=MALA(step_size=0.5), num_steps=5), 0.0),
    "cnce": (CNCE(ratio=5), 0.0),
    "drl": (DRL(**ONE_LEVEL), 0.5),
    "dsm": (DSM(sigma=0.5), 0.5),
    "mle": (MLE(), 0.0),
    "nce": (NCE(ratio=5), 0.0),
    "pcd": (PCD(**EXACT), 0.0),
    "sm": (SM(), 0.0),
    "ssm": (SSM(), 0.0),
}
QUICK = ("dsm", "pcd")
LABELLED = ("jem",)  # learn data with labels: see test_jem.py


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in en.objectives.names()
        if name not in LABELLED
    ],
)
def test_every_objective_learns_a_gaussian(name):
    assert name in CONFIGS, f"give {name!r} a configuration in CONFIGS"
    objective, noise = CONFIGS[name]
    assert registry.name_of(type(objective)) == name
    check_objective(objective, noise=noise)


def test_the_check_passes_an_objective_that_learns_beside_the_energy():
    check_objective(ToyNCE())


@pytest.mark.parametrize(
    ("objective", "noise", "law"),
    [
        (WrongSign(sigma=0.5), 0.5, "points back"),
        (ForgetsChains(**{**EXACT, "num_steps": 1}), 0.0, "gradient is zero"),
        pytest.param(
            PCD(**{**EXACT, "num_steps": 1, "reinit_prob": 1.0}),
            0.0,
            "gradient is zero",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            PCD(**{**EXACT, "sampler": Langevin(step_size=0.2)}),
            0.0,
            "gradient is zero",
            marks=pytest.mark.slow,
        ),
        (WrongResidual(sigma=0.5, factor=1.0), 0.5, "gradient is zero"),
        (WrongResidual(sigma=0.5, factor=-2.0), 0.5, "gradient is zero"),
        (DSM(sigma=0.5), 0.45, "gradient is zero"),
        (Impure(), 0.1, "pure"),
        (GrowingState(), 0.0, "state"),
        (VectorLoss(), 0.0, "scalar"),
        (VectorMetric(), 0.0, "scalar"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, en.objectives.Objective) else "",
)
def test_the_check_rejects_a_broken_objective(objective, noise, law):
    with pytest.raises(AssertionError, match=law):
        check_objective(objective, noise=noise)


def test_the_check_refuses_conditional_objectives():
    with pytest.raises(ValueError, match="given"):
        check_objective(DSM(given="y"))


# --- denoising score matching


def losses(objective: Any, energy: Any, draw: Any, key: jax.Array, count: int = 64) -> np.ndarray:
    """The loss on `count` independent batches."""

    @jax.jit
    def one(key):
        data_key, loss_key = jax.random.split(key)
        return objective.loss(energy, None, draw(data_key), None, loss_key)[0]

    return np.asarray(jax.lax.map(one, jax.random.split(key, count)), np.float64)


def assert_mean(values: np.ndarray, expected: float, z: float = 5.0) -> None:
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert abs(values.mean(0) - expected) < z * error, (values.mean(0), expected, error)


def test_dsm_at_the_optimum_has_the_closed_form_of_the_loss(key):
    mean, sigma = np.array([1.0, -2.0, 0.5]), 0.7
    root = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.6]])
    smoothed = root @ root.T + sigma**2 * np.eye(3)
    energy = en.Gaussian(mean, covariance=smoothed)

    def draw(key):
        return {"x": mean + jax.random.normal(key, (1000, 3)) @ root.T}

    expected = 3 / (2 * sigma**2) - np.trace(np.linalg.inv(smoothed)) / 2
    assert_mean(losses(DSM(sigma=sigma), energy, draw, key), expected)


class Ladder(en.Energy):
    """The energy of N(0, variance) data with noise of level sigma."""

    variance: jax.Array

    def __call__(self, x, sigma):
        return jnp.sum(x**2) / (2 * (self.variance + sigma**2))


def test_a_ladder_weights_the_levels_with_their_variance(key):
    variance, levels = 2.0, np.array([2.0, 0.5, 0.1])

    def draw(key):
        return {"x": np.sqrt(variance) * jax.random.normal(key, (2000, 1))}

    # a level's loss is D/(2 s^2) - tr((C + s^2)^-1)/2, weighted with s^2
    expected = np.mean(0.5 - 0.5 * levels**2 / (variance + levels**2))
    objective = DSM(sigma=levels)
    assert objective.supplies(Ladder(jnp.array(1.0))) == ("sigma",)
    values = losses(objective, Ladder(jnp.array(variance)), draw, key)
    assert_mean(values, float(expected))


def test_a_ladder_learns_the_variance_of_the_data(key):
    data = np.sqrt(2.0) * np.random.default_rng(1).normal(size=(4096, 1))
    result = en.fit(
        Ladder(jnp.array(0.5)),
        data,
        DSM(sigma=[2.0, 0.5, 0.2]),
        key=key,
        num_steps=1500,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1500)),
    )
    # 5 standard errors of the variance of so many numbers, and as much again for the noise added
    tolerance = 10 * 2.0 * np.sqrt(2 / len(data))
    assert abs(float(result.ema_energy.variance) - np.mean(data**2)) < tolerance


class Labelled(en.Energy):
    """Unit normals around a mean for each label."""

    means: jax.Array

    def __call__(self, x, y):
        return 0.5 * jnp.sum((x - self.means[y]) ** 2)


@pytest.fixture(scope="module")
def labelled():
    """A thousand rows around -2 and 3."""
    generator = np.random.default_rng(2)
    y = generator.integers(0, 2, 1024)
    return {"x": np.array([-2.0, 3.0])[y][:, None] + generator.normal(size=(1024, 1)), "y": y}


@pytest.mark.parametrize(
    "objective",
    [
        DSM(sigma=0.5, given="y"),
        PCD(sampler=MALA(step_size=0.5), num_steps=10, buffer_size=256, given="y"),
    ],
    ids=["dsm", "pcd"],
)
def test_given_labels_are_conditioned_on(objective, labelled, key):
    result = en.fit(
        Labelled(jnp.zeros((2, 1))),
        labelled,
        objective,
        key=key,
        num_steps=600,
        batch_size=128,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 600)),
    )
    expected = [labelled["x"][labelled["y"] == label].mean() for label in (0, 1)]
    np.testing.assert_allclose(np.ravel(result.ema_energy.means), expected, atol=0.2)


# --- persistent contrastive divergence


class Quadratic(en.Energy):
    """theta x^2 of one real number."""

    theta: jax.Array

    def __call__(self, x):
        return self.theta * x**2


def quiet(step_size: float = 0.05, **kwargs: Any) -> PCD:
    """PCD with one noiseless Langevin step."""
    langevin = Langevin(step_size=step_size, noise_scale=0.0)
    return PCD(**{"sampler": langevin, "num_steps": 1, "buffer_size": 6, **kwargs})


def begin(objective: PCD, energy: en.Energy, data: Any, key: jax.Array, **chains: Any) -> Any:
    """The state of an objective, with chains where they are put."""
    _, state = objective.init(energy, data, key)
    values = {name: jnp.asarray(value) for name, value in chains.items()}
    buffer = en.objectives.ReplayBuffer({**state.buffer.values, **values})
    return type(state)(buffer, state.mean, state.scale)


def test_one_noiseless_langevin_step_worked_by_hand(key):
    batch, energy = {"x": jnp.ones(3)}, Quadratic(jnp.array(1.0))
    objective = quiet(reinit_prob=0.0)
    state = begin(objective, energy, batch, key, x=jnp.ones(6))

    def loss(energy):
        value, new, metrics = objective.loss(energy, None, batch, state, key)
        return value, (new, metrics)

    gradient, (new, metrics) = jax.grad(loss, has_aux=True)(energy)
    # x' = 1 - 0.05 · 2 · 1 = 0.9, and d/dtheta of E(1) - E(0.9) is 1 - 0.81
    np.testing.assert_allclose(gradient.theta, 0.19, rtol=1e-6)
    np.testing.assert_allclose(metrics["positives"], 1.0)
    np.testing.assert_allclose(metrics["negatives"], 0.81, rtol=1e-6)
    assert sorted(np.asarray(new.buffer.values["x"]).round(6)) == pytest.approx([0.9] * 3 + [1] * 3)


def test_energy_regularization_adds_the_mean_squares(key):
    batch, energy = {"x": jnp.array([1.0, 2.0])}, Quadratic(jnp.array(1.0))
    values = []
    for weight in (0.0, 0.1):
        objective = quiet(reinit_prob=0.0, energy_regularization=weight)
        state = begin(objective, energy, batch, key, x=jnp.ones(6))
        values.append(float(objective.loss(energy, None, batch, state, key)[0]))
    expected = 0.1 * ((1 + 16) / 2 + 0.81**2)
    assert values[1] - values[0] == pytest.approx(expected, rel=1e-5)


def test_chains_are_written_back_where_they_were_drawn(key):
    batch, energy = {"x": jnp.ones(4)}, Quadratic(jnp.array(1.0))
    objective = quiet(reinit_prob=0.0, buffer_size=10)
    before = 1.0 + jnp.arange(10)
    state = begin(objective, energy, batch, key, x=before)
    drawn = np.zeros(10)
    step = jax.jit(lambda key: objective.loss(energy, None, batch, state, key)[1])
    for subkey in jax.random.split(key, 200):
        after = np.asarray(step(subkey).buffer.values["x"])
        moved = after != before
        np.testing.assert_allclose(after[moved], 0.9 * np.asarray(before)[moved], rtol=1e-6)
        assert moved.sum() == 4
        drawn += moved
    assert drawn.min() > 40, drawn  # each slot is drawn with chance 0.4, the last ones too


def test_first_in_first_out(key):
    batch, energy = {"x": jnp.ones(4)}, Quadratic(jnp.array(1.0))
    objective = quiet(reinit_prob=0.0, buffer_size=10, buffer_policy="fifo")
    state = objective.init(energy, batch, key)[1]
    step = jax.jit(lambda state, key: objective.loss(energy, None, batch, state, key)[1])
    for turn, subkey in enumerate(jax.random.split(key, 5)):
        before = np.asarray(state.buffer.values["x"])
        state = step(state, subkey)
        after = np.asarray(state.buffer.values["x"])
        places = (4 * turn + np.arange(4)) % 10
        assert np.flatnonzero(after != before).tolist() == sorted(places)
        moved = np.abs(after[places][:, None] - 0.9 * before).min(1)  # what any chain became
        np.testing.assert_allclose(moved, 0, atol=1e-6)


def test_a_policy_that_no_buffer_has():
    with pytest.raises(ValueError, match=r"policy= must be one of .*, got 'lifo'"):
        en.objectives.ReplayBuffer({"x": jnp.zeros(3)}, "lifo")


def test_a_reservoir_is_an_even_draw_of_all_samples(key):
    size, rows, turns = 50, 10, 20

    def fill(key):
        buffer = en.objectives.ReplayBuffer({"x": jnp.arange(size)}, "reservoir")
        for turn, subkey in enumerate(jax.random.split(key, turns)):
            draw, place = jax.random.split(subkey)
            slots = buffer.places(buffer.draw(draw, rows)[0], place)
            buffer = buffer.write(slots, {"x": size + rows * turn + jnp.arange(rows)})
        return buffer.values["x"], buffer.count

    runs = 2000
    kept, count = jax.jit(jax.vmap(fill))(jax.random.split(key, runs))
    total = size + rows * turns
    assert np.all(count == total)
    slots, many = jnp.arange(size), en.objectives.ReplayBuffer({"x": jnp.arange(size)}, "reservoir")
    written = np.asarray(many.places(slots, key))
    written = written[written < size]
    assert size / 4 < len(set(written)) == len(written)  # no slot comes twice
    seen = np.bincount(np.ravel(kept), minlength=total) / runs
    share = size / total
    error = np.sqrt(share * (1 - share) / runs)
    assert abs(seen[:size].mean() - share) < 5 * error / np.sqrt(size)
    # two samples of one write may take one slot, and the later of them stays: rows / total of them
    assert abs(seen[-1] - share) < 5 * error
    assert abs(seen.mean() - share) < 1e-6
    assert np.abs(seen - share).max() < 5 * error + share * rows / total


def test_reinit_prob_is_the_chance_to_start_afresh(key):
    data = {"x": jnp.asarray(5.0 + 2.0 * np.random.default_rng(3).normal(size=4096))}
    still = Quadratic(jnp.array(0.0))  # no slope, no noise: chains stay where they start
    for reinit_prob in (0.0, 0.3, 1.0):
        objective = quiet(reinit_prob=reinit_prob, buffer_size=4096)
        state = begin(objective, still, data, key, x=jnp.full(4096, -100.0))
        new = objective.loss(still, None, data, state, key)[1]
        chains = np.asarray(new.buffer.values["x"])
        fresh = chains[chains != -100]
        error = np.sqrt(reinit_prob * (1 - reinit_prob) / 4096)
        assert len(fresh) / 4096 == pytest.approx(reinit_prob, abs=5 * error)
        if len(fresh):
            assert fresh.mean() == pytest.approx(5, abs=5 * 2 / np.sqrt(len(fresh)))
            assert fresh.std() == pytest.approx(2, abs=5 * 2 / np.sqrt(2 * len(fresh)))


def test_a_chain_keeps_the_label_that_it_was_given(labelled, key):
    data = {name: jnp.asarray(rows) for name, rows in labelled.items()}
    energy = Labelled(jnp.array([[-2.0], [3.0]]))
    objective = PCD(
        sampler=MALA(step_size=0.5), num_steps=50, buffer_size=256, reinit_prob=0.0, given="y"
    )
    state = objective.init(energy, data, key)[1]
    batch = {name: rows[:256] for name, rows in data.items()}
    new = jax.jit(lambda: objective.loss(energy, None, batch, state, key)[1])()
    labels, x = np.asarray(new.buffer.values["y"]), np.ravel(new.buffer.values["x"])
    np.testing.assert_array_equal(labels, state.buffer.values["y"])
    assert set(labels) == {0, 1}
    for label, mean in enumerate([-2.0, 3.0]):
        here = x[labels == label]
        assert here.mean() == pytest.approx(mean, abs=5 / np.sqrt(len(here)))


def test_a_given_variable_with_a_bound_keeps_its_values(key):
    @en.energy(x=en.Real(), s=en.Positive())
    def scaled(x, s):
        return 0.5 * (x / s) ** 2

    data = {"x": jnp.ones(512), "s": jnp.linspace(0.5, 3.0, 512)}
    objective = PCD(
        sampler=MALA(step_size=0.2), num_steps=100, buffer_size=512, reinit_prob=0.0, given="s"
    )
    state = objective.init(scaled, data, key)[1]
    _, new, metrics = jax.jit(lambda: objective.loss(scaled, None, data, state, key))()
    np.testing.assert_array_equal(new.buffer.values["s"], state.buffer.values["s"])
    spread = np.asarray(new.buffer.values["x"] / new.buffer.values["s"])
    expected = 0.5 * np.mean(spread**2)
    assert float(metrics["negatives"]) == pytest.approx(expected, rel=1e-5)


class Tilted(en.Energy):
    """The exponential density with rate theta, cut off outside (0, 1)."""

    theta: jax.Array

    def __call__(self, x):
        return self.theta * x

    def _supports(self):
        return {"x": en.Interval(0, 1)}


def test_pcd_learns_a_bounded_variable(key):
    theta = 3.0
    uniform = np.random.default_rng(4).uniform(size=4096)
    data = -np.log1p(-uniform * -np.expm1(-theta)) / theta
    objective = PCD(sampler=MALA(step_size=0.5), num_steps=10, buffer_size=512, reinit_prob=0.01)
    result = en.fit(
        Tilted(jnp.array(0.5)),
        data,
        objective,
        key=key,
        num_steps=800,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 800)),
        ema_decay=0.99,
    )
    # the Fisher information is the variance of x; as much again for the chains
    tolerance = 2 * 5 / np.sqrt(len(data) * data.var())
    assert abs(float(result.ema_energy.theta) - theta) < tolerance
    assert 0 < result.history["acceptance_rate"].mean() <= 1


def test_reading_a_configuration():
    objective = PCD(given=["y", "z"])
    assert objective.given == ("y", "z")
    assert objective.modelled(en.Gaussian(0.0), {"x"}) == ("x",)
    assert objective.latent(en.Gaussian(0.0), {"x"}) == ()
    assert objective.sampler_for(en.Gaussian(0.0), None) is None
