"""Bad input to `fit`: a clear error each, before anything compiles."""

import inspect
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_objectives import GrowingState, Probe, VectorLoss, VectorMetric

import energia as en
from energia.objectives import DSM, PCD

MODEL = en.Gaussian(jnp.zeros(2), covariance=jnp.eye(2))
DATA = np.random.default_rng(0).normal(size=(20, 2))


class Labelled(en.Energy):
    means: jax.Array

    def __call__(self, x, y):
        return 0.5 * jnp.sum((x - self.means[y]) ** 2)


class Bits(en.Energy):
    weights: jax.Array

    def __call__(self, x):
        return -jnp.sum(self.weights * x)

    def _supports(self):
        return {"x": en.Binary((3,))}


LABELLED = Labelled(jnp.zeros((2, 1)))
PAIR = {"x": np.zeros((20, 1)), "y": np.zeros(20, int)}
BOUNDED = MODEL.constrain(x=en.Interval(0, 1, 2))


def fit(model: Any = MODEL, data: Any = DATA, objective: Any = "dsm", **kwargs: Any) -> en.Fit:
    return en.fit(model, data, objective, **{"key": jax.random.key(0), "num_steps": 2, **kwargs})


def with_entry(value: float, *where: int, count: int = 1) -> np.ndarray:
    data = DATA.copy()
    data[where] = value
    data[:count, 0] = value
    return data


def refuse(compilations: Any, error: Any, *texts: str, **kwargs: Any) -> None:
    """The error has all the texts, and comes before a program for the training is compiled."""
    with compilations() as seen, pytest.raises(error) as raised:
        fit(**kwargs)
    message = str(raised.value)
    if "Type-check error" not in message:  # the type checker of the tests came first
        assert all(text in message for text in texts), message
    assert not any("begin" in name or "advance" in name for name in seen.compiled), seen.compiled


DATA_ERRORS = {
    "not a number": (with_entry(np.nan, 3, 1, count=0), ["'x'", "1 value", "nan", "(3, 1)"]),
    "infinite": (with_entry(np.inf, 3, 1, count=2), ["3 values", "inf", "(0, 0)", "impute"]),
    "too large": (with_entry(1e300, 3, 1, count=0), ["1e+300", "(3, 1)"]),
    "another shape": (np.zeros((20, 3)), ["(rows, 2)", "(20, 3)", "real (2,)"]),
    "no rows axis": (np.float32(1), ["leading axis"]),
    "no rows": (np.zeros((0, 2)), ["no rows"]),
    "nothing": ({}, ["empty"]),
    "no batches": ([], ["without any batch"]),
    "unknown name": ({"x": DATA, "w": DATA}, ["'w'", "('x',)"]),
}


@pytest.mark.parametrize("name", DATA_ERRORS)
def test_data_that_does_not_fit(name, compilations):
    data, texts = DATA_ERRORS[name]
    refuse(compilations, ValueError, *texts, data=data)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (np.array([["a", "b"]]), ["'x'", "real numbers", "U1"]),
        (np.array([[None, 1.0]]), ["real numbers", "object"]),
        (DATA + 1j, ["real numbers", "complex"]),
        (7, ["array", "iterable", "int"]),
    ],
)
def test_data_of_another_type(data, texts, compilations):
    refuse(compilations, TypeError, *texts, data=data)


def test_variables_that_the_data_lacks(compilations):
    texts = ["lacks ['y']", "condition(y=...)"]
    alone = {"x": PAIR["x"]}
    refuse(compilations, ValueError, *texts, model=LABELLED, data=alone)
    unequal = {**PAIR, "y": np.zeros(7, int)}
    refuse(compilations, ValueError, "'x': 20, 'y': 7", model=LABELLED, data=unequal)
    refuse(compilations, ValueError, "given=['z']", objective=DSM(given="z"))
    everything = DSM(given=("x", "y"))
    refuse(
        compilations, ValueError, "nothing left", model=LABELLED, data=PAIR, objective=everything
    )


def test_labels_too_large_for_an_integer(compilations):
    data = {**PAIR, "y": np.full(20, 2**40)}
    refuse(compilations, OverflowError, "'y'", model=LABELLED, data=data, objective=DSM(given="y"))


def test_a_level_that_the_objective_makes_itself(compilations):
    @en.energy
    def noised(x, sigma):
        return jnp.sum(x**2) / (1 + sigma**2)

    model = noised + MODEL
    data = {"x": DATA, "sigma": np.ones(20)}
    refuse(compilations, ValueError, "'sigma'", "makes itself", model=model, data=data)


@pytest.mark.parametrize(
    ("support", "value"),
    [
        (en.Interval(0, 1, 2), 16.0),
        (en.Positive(2), -1.0),
        (en.Binary(2), 0.5),
        (en.Spin(2), 0.0),
        (en.Simplex(2), 0.7),
        (en.Ordered(2), -9.0),
    ],
    ids=str,
)
def test_data_outside_its_support(support, value, compilations):
    inside = np.asarray(support.draw(jax.random.key(0)))
    data = np.tile(inside, (20, 1)).astype(float)
    data[4, 1] = value
    texts = ["'x'", "outside its support", str(support), "(4, "]
    model = MODEL.constrain(x=support)
    refuse(compilations, ValueError, *texts, model=model, data=data, objective=Probe())


def test_data_on_the_bounds_of_an_interval_is_taken():
    pixels = np.tile([0.0, 1.0], (20, 1))
    langevin = en.samplers.Langevin(step_size=0.01)
    result = fit(BOUNDED, pixels, PCD(sampler=langevin, num_steps=1, buffer_size=20))
    assert result.num_steps == 2


@pytest.mark.parametrize(
    ("settings", "error", "texts"),
    [
        ({"num_steps": 0}, ValueError, ["num_steps= must be at least 1"]),
        ({"num_steps": 1.5}, TypeError, ["num_steps= must be an integer"]),
        ({"batch_size": 0}, ValueError, ["batch_size= must be at least 1"]),
        ({"batch_size": 21}, ValueError, ["batch_size= is 21", "20 rows"]),
        ({"checkpoint_every": 0}, ValueError, ["checkpoint_every="]),
        ({"ema_decay": 1.0}, ValueError, ["ema_decay=", "[0, 1)"]),
        ({"ema_decay": -0.1}, ValueError, ["ema_decay="]),
        ({"key": jax.random.PRNGKey(0)}, TypeError, ["typed JAX key", "wrap_key_data"]),
        ({"key": jax.random.split(jax.random.key(0))}, ValueError, ["one key"]),
        ({"optimizer": 1e-3}, TypeError, ["optax.adam(1e-3)", "0.001"]),
        ({"optimizer": optax.adam}, TypeError, ["optax.adam(1e-3)"]),
        ({"optimizer": {"energy": optax.adam(1e-3)}}, ValueError, ["'learned'"]),
        ({"optimizer": {"energy": 1e-3, "learned": 1e-3}}, TypeError, ["Optax"]),
        ({"objective": "dms"}, ValueError, ["'dms'", "did you mean 'dsm'", "pcd"]),
        ({"objective": DSM}, TypeError, ["DSM(...)"]),
        ({"objective": 3}, TypeError, ["objective"]),
        ({"model": DATA}, TypeError, ["an energy"]),
        ({"model": MODEL.freeze()}, ValueError, ["nothing to train"]),
        ({"augment": "flip"}, TypeError, ["augment="]),
    ],
)
def test_settings_that_cannot_be(settings, error, texts, compilations):
    refuse(compilations, error, *texts, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "texts"),
    [
        (
            {"model": BOUNDED, "data": np.full((20, 2), 0.5)},
            TypeError,
            ["'x'", "(0, 1) (2,)", "constrain(x="],
        ),
        (
            {"model": Bits(jnp.ones(3)), "data": np.ones((20, 3))},
            TypeError,
            ["'x' is discrete", "binary (3,)", "'pcd'"],
        ),
        ({"objective": DSM(sigma=[0.1, 1.0])}, ValueError, ["2 noise levels", "'sigma'"]),
        (
            {"model": en.NoiseConditional(en.MLPEnergy(3, width=4, key=jax.random.key(0)))},
            ValueError,
            ["one noise level, 0.1", "ladder", "condition(sigma=0.1)"],
        ),
        (
            {
                "model": Bits(jnp.ones(3)),
                "data": np.ones((20, 3)),
                "objective": PCD(sampler="langevin"),
            },
            TypeError,
            ["Langevin", "'x' is discrete"],
        ),
        ({"objective": PCD(sampler="mala")}, ValueError, ["MALA is not tuned", "step_size=..."]),
        ({"objective": PCD(sampler="nuts")}, ValueError, ["NUTS is not tuned"]),
        ({"objective": PCD(buffer_size=10)}, ValueError, ["buffer_size=", "10", "20"]),
        ({"objective": VectorLoss()}, TypeError, ["VectorLoss", "scalar loss", "(20,)"]),
        ({"objective": VectorMetric()}, TypeError, ["scalar values", "(20,)"]),
        ({"objective": GrowingState()}, TypeError, ["state", "float32[1]", "float32[2]"]),
    ],
    ids=lambda value: "",
)
def test_objectives_that_do_not_fit_the_energy(settings, error, texts, compilations):
    if type(settings.get("objective")) in (VectorLoss, VectorMetric, GrowingState):
        settings = {**settings, "data": np.ones((20, 2))}
    refuse(compilations, error, *texts, **settings)


def test_an_energy_that_is_no_scalar(compilations):
    class Vector(en.Energy):
        scale: jax.Array

        def __call__(self, x):
            return self.scale * x

    for objective in (Probe(), "dsm"):
        refuse(
            compilations,
            TypeError,
            "Vector(x) must return a scalar, got shape (2,)",
            model=Vector(jnp.ones(2)),
            objective=objective,
        )


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"sigma": 0.0}, ValueError, "positive"),
        ({"sigma": [1.0, np.nan]}, ValueError, "positive"),
        ({"sigma": np.inf}, ValueError, "finite"),
        ({"sigma": np.ones((2, 2))}, ValueError, "vector"),
        ({"sigma": []}, ValueError, "vector"),
    ],
)
def test_noise_levels_that_cannot_be(settings, error, text):
    with pytest.raises(error, match=text):
        DSM(**settings)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"num_steps": 0}, ValueError, "num_steps= must be at least 1"),
        ({"buffer_size": 0}, ValueError, "buffer_size= must be at least 1"),
        ({"buffer_policy": "lifo"}, ValueError, "must be one of \\('slots', 'fifo', 'reservoir'"),
        ({"reinit_prob": 1.5}, ValueError, "reinit_prob="),
        ({"energy_regularization": -1.0}, ValueError, "energy_regularization="),
        ({"sampler": "langevim"}, ValueError, "did you mean 'langevin'"),
        ({"sampler": 3}, TypeError, "sampler"),
    ],
)
def test_chains_that_cannot_be(settings, error, text):
    with pytest.raises(error, match=text):
        PCD(**settings)


@pytest.mark.parametrize("rows", [DATA.tolist(), tuple(DATA)])
def test_rows_in_a_list_are_told_from_batches(rows):
    with pytest.raises(ValueError, match="batch 0") as told:
        fit(data=rows)
    assert "read as batches; for rows, give np.asarray(data)" in told.value.__notes__[0]


def test_data_in_the_place_of_the_energy():
    with pytest.raises(TypeError, match=r"trains an energy.*an array of shape \(20, 2\)"):
        inspect.unwrap(en.fit)(DATA, MODEL, "sm", key=jax.random.key(0))


@pytest.mark.parametrize(
    ("augment", "error", "text"),
    [
        (lambda datum, key: datum["x"], TypeError, "return a dict"),
        (lambda datum, key: {"z": datum["x"]}, ValueError, "gives has .'z'."),
        (lambda datum, key: {"x": datum["x"][:1]}, ValueError, r"shape \(1,\)"),
        (lambda datum, key: {"x": jnp.int32(datum["x"])}, TypeError, "dtype int32"),
    ],
)
def test_augmentations_that_give_no_datum(augment, error, text):
    with pytest.raises(error, match=text):
        fit(augment=augment)


def test_batches_of_a_stream_need_one_shape():
    batches = [DATA, DATA, DATA[:10]]
    with pytest.raises(ValueError, match=r"batch 2 of the data holds.*\[10, 2\].*\[20, 2\]"):
        fit(data=batches, num_steps=5)
    with pytest.raises(ValueError, match=r"batch 1 of the data for 'x' has 1 value not finite"):
        fit(data=[DATA, with_entry(np.nan, 3, 1, count=0)], num_steps=5)


def test_half_precision_data_is_checked_and_kept_real():
    data = jnp.asarray(DATA, jnp.bfloat16)
    with pytest.raises(ValueError, match="1 value not finite"):
        fit(data=data.at[3, 1].set(jnp.nan))

    @en.energy
    def offset(x):
        return jnp.sum(x**2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(offset + MODEL, data, Probe(), batch_size=20, num_steps=1)
    rows = {float(row) for row in np.ravel(np.asarray(data, np.float32))}
    assert {float(result.history[f"row{i}"][0]) for i in range(4)} <= rows


def test_an_error_of_the_user_s_energy_comes_through():
    class Wrong(en.Energy):
        weights: jax.Array = eqx.field(converter=jnp.asarray)

        def __call__(self, x):
            return jnp.sum(self.weights @ x)

    with pytest.raises(TypeError, match="dot_general"):
        fit(Wrong(np.ones((3, 3))))
