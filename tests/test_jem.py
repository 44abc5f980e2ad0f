"""Joint energy-based models: the gradient of the joint likelihood, what is learned, the options."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.energies._trainable import split
from energia.objectives import JEM, MLE

MEANS = np.array([[-1.5, 0.0], [1.5, 0.5], [0.0, 2.0]])
VARIANCES = np.array([0.8, 0.5])
SHARES = np.array([0.2, 0.5, 0.3])


class Discriminant(eqx.Module):
    """Logits of classes with normal laws of one covariance: their joint density is known."""

    means: jax.Array
    log_precision: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return self.bias - 0.5 * jnp.sum(jnp.exp(self.log_precision) * (x - self.means) ** 2, -1)

    def log_partition(self):
        volume = len(self.log_precision) * jnp.log(2 * jnp.pi) - jnp.sum(self.log_precision)
        return jax.nn.logsumexp(self.bias) + 0.5 * volume


def discriminant(means=MEANS, variances=VARIANCES, shares=SHARES):
    arrays = means, -np.log(variances), np.log(shares)
    return Discriminant(*(jnp.asarray(each, float) for each in arrays))


def joint(*numbers):
    return en.Classifier(discriminant(*numbers), shape=2)


def labelled(key, count):
    label_key, noise_key = jax.random.split(key)
    y = jax.random.categorical(label_key, jnp.log(jnp.asarray(SHARES)), shape=(count,))
    noise = jax.random.normal(noise_key, (count, 2)) * np.sqrt(VARIANCES)
    return {"x": jnp.asarray(MEANS, float)[y] + noise, "y": y.astype(jnp.int32)}


class State(NamedTuple):
    position: dict[str, jax.Array]


class Exact(en.samplers.Kernel):
    """Draws of the mixture at the parameters of `at`, whatever it is told of the energy."""

    at: Discriminant = en.constant()

    def init(self, energy, position, key):
        return State(position)

    def step(self, energy, state, key):
        label_key, noise_key = jax.random.split(key)
        mean = self.at.means[jax.random.categorical(label_key, self.at.bias)]
        noise = jax.random.normal(noise_key, (2,)) * jnp.exp(-0.5 * self.at.log_precision)
        return State({"x": mean + noise}), {}


class Counts(en.samplers.Kernel):
    """Adds one in each step, so that positions tell how many there were."""

    def init(self, energy, position, key):
        return State(position)

    def step(self, energy, state, key):
        return State({"x": state.position["x"] + 1.0}), {}


@eqx.filter_jit
def prepared(objective, energy, data, key):
    return objective.init(energy, data, key)[1]


@eqx.filter_jit
def told(objective, energy, batch, state, key):
    return objective.loss(energy, None, batch, state, key)


# --- the gradient


@eqx.filter_jit
def slopes_of(objective, parameters, skeleton, batch, state, keys):
    def one(key):
        def value(moved):
            return objective.loss(skeleton.merge(moved), None, batch, state, key)[0]

        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.grad(value)(parameters)])

    return jax.lax.map(one, keys)


def slopes(objective, energy, batch, key, count):
    """The gradient of the loss for several keys, flat: (key, parameter)."""
    parameters, skeleton = split(energy)
    state = prepared(objective, energy, batch, key)
    keys = jax.random.split(key, count)
    return np.asarray(slopes_of(objective, parameters, skeleton, batch, state, keys), np.float64)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_gradient_is_that_of_the_joint_likelihood(weight, key):
    """Off the truth, with exact samples of the model; with another weight it is not."""
    logits = discriminant(MEANS + 0.3, 2 * VARIANCES, np.ones(3) / 3)
    energy, batch = en.Classifier(logits, shape=2), labelled(key, 256)
    exact = Exact(at=logits)
    objective = JEM(sampler=exact, num_steps=1, buffer_size=256, reinit_prob=0.0, weight=weight)
    found = slopes(objective, energy, batch, key, 128)
    parameters, skeleton = split(energy)

    def likelihood(moved):
        model = skeleton.merge(moved)
        return jnp.mean(jax.vmap(model)(batch["x"], batch["y"])) + model.logits.log_partition()

    wanted = np.concatenate([np.ravel(leaf) for leaf in jax.grad(likelihood)(parameters)])
    z = (found.mean(0) - wanted) / (found.std(0, ddof=1) / np.sqrt(len(found)) + 1e-6)
    assert (np.abs(z).max() < 5) == (weight == 1.0), z


def test_with_no_weight_it_is_the_cross_entropy(key):
    energy, batch = joint(), labelled(key, 64)
    objective = JEM(num_steps=1, buffer_size=64, weight=0.0)
    state = prepared(objective, energy, batch, key)
    loss, _, metrics = told(objective, energy, batch, state, key)
    np.testing.assert_allclose(
        loss, MLE(given="x").loss(energy, None, batch, None, key)[0], rtol=1e-5
    )
    guessed = jnp.argmax(jax.vmap(energy.logits)(batch["x"]), -1)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(guessed == batch["y"]), rtol=1e-6)


# --- what is learned


@pytest.mark.parametrize("class_conditional", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_recovers_means_covariance_and_shares(class_conditional):
    data = {name: np.asarray(rows) for name, rows in labelled(jax.random.key(3), 3000).items()}
    start = joint(np.array([[-0.1, 0.0], [0.1, 0.0], [0.0, 0.1]]), np.ones(2), np.ones(3) / 3)
    objective = JEM(
        sampler=en.samplers.MALA(step_size=0.3),
        num_steps=5,
        buffer_size=1024,
        reinit_prob=0.0,
        class_conditional=class_conditional,
    )
    fit = en.fit(
        start,
        data,
        objective,
        key=jax.random.key(4),
        num_steps=1500,
        batch_size=256,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 1500)),
        ema_decay=0.99,
    )
    logits = fit.ema_energy.logits
    counts = np.bincount(data["y"], minlength=3)
    found = [
        ((logits.means - MEANS) / np.sqrt(VARIANCES / counts[:, None])),
        (logits.log_precision + np.log(VARIANCES)) / np.sqrt(2 / len(data["y"])),
        (jax.nn.softmax(logits.bias) - SHARES) / np.sqrt(SHARES * (1 - SHARES) / len(data["y"])),
    ]
    if class_conditional:  # chains have the data's shares, and leave the model's to the overlaps
        found = found[:2]
    z = np.concatenate([np.ravel(each) for each in found])
    assert np.abs(z).max() < 3, z


# --- options


def test_augmented_data_enter_the_cross_entropy_alone(key):
    energy, batch = joint(), labelled(key, 32)
    shifted = {**batch, "x": batch["x"] + 0.5}

    def augment(datum, key):
        return {**datum, "x": datum["x"] + 0.5}

    plain = JEM(sampler=Counts(), num_steps=1, buffer_size=32)
    state = prepared(plain, energy, batch, key)
    results = [
        told(
            JEM(sampler=Counts(), num_steps=1, buffer_size=32, label_augment=f),
            energy,
            b,
            state,
            key,
        )
        for f, b in ((augment, batch), (None, batch), (None, shifted))
    ]
    one, two, three = (metrics for _, _, metrics in results)
    np.testing.assert_allclose(one["cross_entropy"], three["cross_entropy"], rtol=1e-5)
    np.testing.assert_allclose(one["positives"], two["positives"], rtol=1e-5)
    assert abs(one["cross_entropy"] - two["cross_entropy"]) > 0.01


def test_the_sharpness_aware_gradient_is_taken_uphill(key):
    energy, batch = joint(MEANS + 0.3), labelled(key, 32)
    settings = {"sampler": Counts(), "num_steps": 1, "buffer_size": 32}
    plain, sharp = JEM(**settings), JEM(**settings, sharpness_radius=0.7)
    first = slopes(plain, energy, batch, key, 1)[0]
    parameters, skeleton = split(energy)
    ends = np.cumsum([leaf.size for leaf in parameters])[:-1]
    moves = np.split(0.7 * first / np.linalg.norm(first), ends)
    moved = [p + m.reshape(p.shape).astype(p.dtype) for p, m in zip(parameters, moves, strict=True)]
    uphill = slopes(plain, skeleton.merge(moved), batch, key, 1)[0]
    np.testing.assert_allclose(
        slopes(sharp, energy, batch, key, 1)[0], uphill, rtol=1e-3, atol=1e-4
    )
    assert np.abs(uphill - first).max() > 0.05


def test_mutual_information_is_that_of_the_batch(key):
    energy, batch = joint(), labelled(key, 32)
    settings = {"sampler": Counts(), "num_steps": 1, "buffer_size": 32}
    state = prepared(JEM(**settings), energy, batch, key)
    plain = told(JEM(**settings), energy, batch, state, key)[0]
    loss, _, metrics = told(JEM(**settings, mutual_information=2.0), energy, batch, state, key)
    shares = np.asarray(jax.nn.softmax(jax.vmap(energy.logits)(batch["x"])), np.float64)
    mean = shares.mean(0)
    information = -np.sum(mean * np.log(mean)) + np.mean(np.sum(shares * np.log(shares), -1))
    np.testing.assert_allclose(metrics["mutual_information"], information, rtol=1e-4)
    np.testing.assert_allclose(plain - loss, 2 * information, rtol=1e-4)


def test_the_number_of_steps_grows(key):
    energy, batch = joint(), labelled(key, 8)
    objective = JEM(sampler=Counts(), num_steps=2, steps_growth=0.5, buffer_size=8, reinit_prob=0.0)
    state = prepared(objective, energy, batch, key)
    sums = [float(jnp.sum(state.chains.buffer.values["x"]))]
    for index in range(5):
        _, state, _ = told(objective, energy, batch, state, jax.random.fold_in(key, index))
        sums.append(float(jnp.sum(state.chains.buffer.values["x"])))
    np.testing.assert_allclose(np.diff(sums) / 16, [2, 2, 3, 3, 4], rtol=1e-3)


def test_the_step_size_adapts_to_the_acceptance_rate(key):
    energy, batch = joint(), labelled(key, 256)
    objective = JEM(sampler="mala", num_steps=2, buffer_size=256, reinit_prob=0.0)
    state = prepared(objective, energy, batch, key)
    assert set(state.numbers) == {"step_size"}
    rates = []
    for index in range(40):
        _, state, metrics = told(objective, energy, batch, state, jax.random.fold_in(key, index))
        rates.append(float(metrics["acceptance_rate"]))
    assert abs(np.mean(rates[20:]) - 0.574) < 0.05


def test_chains_of_a_class_stay_with_it(key):
    means = np.array([[-20.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    energy = joint(means)
    batch = labelled(key, 96)
    batch["x"] = jnp.asarray(means, float)[batch["y"]]
    sampler = en.samplers.Langevin(step_size=0.2)
    objective = JEM(
        sampler=sampler, num_steps=40, buffer_size=96, reinit_prob=0.0, class_conditional=True
    )
    state = prepared(objective, energy, batch, key)
    _, new, _ = told(objective, energy, batch, state, key)
    values = new.chains.buffer.values
    np.testing.assert_array_equal(values["y"], state.chains.buffer.values["y"])
    np.testing.assert_allclose(values["x"], means[np.asarray(values["y"])], atol=5.0)
    assert len(set(np.asarray(values["y"]).tolist())) == 3


# --- mistakes


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"weight": -1.0}, "weight= must be at least 0"),
        ({"steps_growth": -1.0}, "steps_growth= must be at least 0"),
        ({"mutual_information": -1.0}, "mutual_information= must be at least 0"),
        ({"sharpness_radius": 0.0}, "sharpness_radius= must be positive or None"),
        ({"num_steps": 0}, "num_steps= must be at least 1"),
        ({"reinit_prob": 2.0}, "reinit_prob= must lie in"),
    ],
)
def test_numbers_out_of_range(settings, text):
    with pytest.raises(ValueError, match=text):
        JEM(**settings)


def test_data_without_a_label(key):
    data = labelled(key, 16)
    with pytest.raises(ValueError, match=r"'y' is not in the data .* JEM\(label="):
        en.fit(joint(), data["x"], "jem", key=key)
    unknown = en.Classifier(lambda x: x * jnp.ones(2))
    with pytest.raises(ValueError, match=r"'y' are unknown: say which, .constrain\(y=en.Categ"):
        JEM().check(unknown, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in "xy"})
