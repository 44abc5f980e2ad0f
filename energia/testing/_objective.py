"""The laws of objectives: the protocol, and the density that they learn."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from energia._types import Values, check_key, float_dtype, strong_tree
from energia.energies import Gaussian
from energia.energies._trainable import split
from energia.objectives import Objective
from energia.objectives._objective import registry
from energia.testing._law import avals, differences, law, other_numbers
from energia.training import fit

MEAN = np.array([0.5, -1.0])
COVARIANCE = np.array([[1.0, 0.5], [0.5, 0.8]])
BATCH = 128
REPEATS = 32
SETTLE, MEASURE = 200, 100
OFF = 0.2
FITS, ROWS, STEPS = 8, 4096, 1000
MAX_Z = 5.0
FLOOR = 0.02


def check_objective(
    objective: str | Objective, *, noise: float = 0.0, key: jax.Array | None = None
) -> None:
    r"""Check that an objective keeps the protocol, and that it learns the density of the data.

    The protocol: pure functions of arrays, a scalar loss, a state whose structure does not change,
    compiled once for all numbers. The statistics, on a correlated Gaussian in two dimensions:

    - at the true parameters the expected gradient of the loss is zero. 32 independent repetitions
      each draw their own data, let chains and `learned` settle for 200 batches, and average the
      gradient over 100 more; its mean over them must lie within 5 of their standard errors. This
      holds for any autocorrelation, and it is the sharpest of the checks;
    - with the mean or the precision moved off the truth, the gradient points back by 5 standard
      errors;
    - `en.fit` recovers mean and covariance: the average of `ema_energy` over 8 fits, each to 4,096
      rows of its own, lies within 5 standard errors or 2 % of the scale. The error is that among
      the fits, so it holds the data's sampling error and the optimiser's.

    Where chains persist, give a sampler that leaves the density invariant, with its numbers, and no
    more than some 500 chains, so that they settle: an unadjusted one is rightly rejected here.

    Args:
        objective: a registered name or a configured objective.
        noise: standard deviation of Gaussian noise that the objective adds to the data, so that the
            law that it learns has the covariance $C + \text{noise}^2 I$.
        key: a typed JAX key.

    Raises:
        AssertionError: with the law that broke and the numbers that broke it.
        TypeError, ValueError: when the objective cannot learn a Gaussian of one variable `x`.

    Example:
        >>> import energia as en
        >>> en.testing.check_objective(en.objectives.DSM(sigma=0.5), noise=0.5)
    """
    checked: Objective = strong_tree(registry.resolve(objective))
    key = jax.random.key(0) if key is None else check_key(key)
    if checked.given:
        raise ValueError(
            f"check_objective() learns a Gaussian of x alone, {type(checked).__name__} has "
            f"given={checked.given}: leave that out"
        )
    truth = Gaussian(MEAN, covariance=COVARIANCE + noise**2 * np.eye(2))
    checked.check(truth, {"x": jax.ShapeDtypeStruct(MEAN.shape, float_dtype())})
    protocol_key, gradient_key, fit_key = jax.random.split(key, 3)
    _check_protocol(checked, truth, protocol_key)
    _check_gradients(checked, truth, gradient_key)
    _check_fits(checked, truth, fit_key)


# --- the protocol


def _check_protocol(objective: Objective, energy: Gaussian, key: jax.Array) -> None:
    name = type(objective).__name__
    data_key, init_key, first_key, second_key = jax.random.split(key, 4)
    batch = _draw(data_key, BATCH)
    given = energy, batch, init_key, first_key
    traces = []

    def loss(objective: Objective, *args: Any) -> Any:
        traces.append(1)
        return objective.loss(*args)

    compiled = eqx.filter_jit(loss)
    with law(name, "init() and loss() compile, with the energy as an argument"):
        init = eqx.filter_jit(lambda objective, *args: objective.init(*args))
        learned, state = strong_tree(init(objective, energy, batch, init_key))
        value, new_state, metrics = compiled(objective, energy, learned, batch, state, first_key)
    with law(name, "the loss is a real scalar, the metrics are a dict of scalars") as require:
        kind = f"shape {jnp.shape(value)}, dtype {jnp.asarray(value).dtype}"
        real = jnp.issubdtype(jnp.asarray(value).dtype, jnp.floating)
        require(jnp.shape(value) == () and real, f"a loss of {kind}")
        require(isinstance(metrics, dict), f"metrics are a {type(metrics).__name__}")
        shapes = {what: jnp.shape(number) for what, number in metrics.items()}
        require(not any(shapes.values()), f"metrics of shapes {shapes}")
        require(bool(jnp.isfinite(value)), f"the loss is {value}")
    with law(name, "loss() keeps the structure, shapes and dtypes of the state") as require:
        found = differences(avals(state), avals(new_state))
        require(not found, found)
    with law(name, "other numbers of the same shapes compile nothing") as require:
        others = other_numbers((objective, energy, learned, batch))
        compiled(*others, strong_tree(new_state), second_key)
        require(len(traces) == 1, f"traced {len(traces)} times for two sets of numbers")
    with law(
        name, "init() and loss() are pure: what they give depends on what they are given"
    ) as require:
        programs = [_program(objective, *given).splitlines() for _ in range(2)]
        for one, two in itertools.zip_longest(*programs):
            require(one == two, f"traced twice they say {one!r} and {two!r}")


def _program(objective: Objective, *given: Any) -> str:
    """What `init` and `loss` compute, traced anew, so that Python's side effects show."""
    arrays, static = eqx.partition((objective, *given), eqx.is_array)

    def run(arrays: Any) -> Any:
        objective, energy, batch, init_key, loss_key = eqx.combine(arrays, static)
        learned, state = objective.init(energy, batch, init_key)
        result = objective.loss(energy, learned, batch, state, loss_key)
        return eqx.filter((learned, state, result), eqx.is_array)

    return jax.jit(run).lower(arrays).as_text()


# --- the statistics


def _draw(key: jax.Array, rows: int) -> Values:
    root = jnp.asarray(np.linalg.cholesky(COVARIANCE), float)
    return {"x": jnp.asarray(MEAN, float) + jax.random.normal(key, (rows, 2)) @ root.T}


@eqx.filter_jit
def _gradients(objective: Objective, energy: Gaussian, key: jax.Array) -> jax.Array:
    """Of independent repetitions, the average gradient of the settled loss: (repeat, parameter)."""
    parameters, skeleton = split(energy)
    learner = optax.adam(optax.cosine_decay_schedule(0.05, SETTLE))

    def repeat(key: jax.Array) -> jax.Array:
        data_key, init_key, run_key = jax.random.split(key, 3)
        learned, state = objective.init(energy, _draw(data_key, 1024), init_key)
        learned, rest = split(learned)

        def loss(trained, batch, state, key):
            energy, learned = skeleton.merge(trained[0]), rest.merge(trained[1])
            value, state, _ = objective.loss(energy, learned, batch, state, key)
            return value, strong_tree(state)

        def step(t, carry):
            learned, learner_state, state, total = carry
            batch_key, loss_key = jax.random.split(jax.random.fold_in(run_key, t))
            (slope, learned_slope), state = jax.grad(loss, has_aux=True)(
                (parameters, learned), _draw(batch_key, BATCH), state, loss_key
            )
            updates, learner_state = learner.update(learned_slope, learner_state)
            learned = eqx.apply_updates(learned, updates)
            settled = t >= SETTLE
            total = jax.tree.map(lambda a, b: a + settled * b / MEASURE, total, slope)
            return learned, learner_state, state, total

        total = jax.tree.map(jnp.zeros_like, parameters)
        carry = strong_tree((learned, learner.init(learned), state, total))
        *_, total = jax.lax.fori_loop(0, SETTLE + MEASURE, step, carry)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in total])

    return jax.vmap(repeat)(jax.random.split(key, REPEATS))


def _check_gradients(objective: Objective, truth: Gaussian, key: jax.Array) -> None:
    subject = f"{type(objective).__name__} on a Gaussian"
    names = _parameter_names(truth)
    with law(
        subject, f"at the truth its expected gradient is zero within {MAX_Z:g} standard errors"
    ) as require:
        mean, error = _mean_and_error(_gradients(objective, truth, key))
        wrong = [
            f"d/d{name} is {mean[i]:+.3g} ± {error[i]:.2g}"
            for i, name in names.items()
            if not abs(mean[i]) <= MAX_Z * error[i]
        ]
        require(not wrong, "; ".join(wrong))
    with law(
        subject, f"off the truth its gradient points back by {MAX_Z:g} standard errors"
    ) as require:
        for place, name in enumerate(["mean", "precision_cholesky"]):
            moved, step = _moved(truth, place)
            along = _gradients(objective, moved, jax.random.fold_in(key, place)) @ step
            mean, error = _mean_and_error(along)
            require(
                mean >= MAX_Z * error,
                f"with {name} {OFF} too large the slope away from the truth is {mean:+.3g} ± "
                f"{error:.2g}",
            )


def _mean_and_error(values: Any) -> tuple[Any, Any]:
    numbers = np.asarray(values, np.float64)
    return numbers.mean(0), numbers.std(0, ddof=1) / np.sqrt(len(numbers))


def _parameter_names(energy: Gaussian) -> dict[int, str]:
    """The parameters by their place in the gradient, without the factor's unused upper triangle."""
    names = {0: "mean[0]", 1: "mean[1]"}
    cells = {2 + 2 * i + j: f"precision_cholesky[{i}, {j}]" for i in range(2) for j in range(i + 1)}
    return {**names, **cells}


def _moved(energy: Gaussian, place: int) -> tuple[Gaussian, np.ndarray]:
    """The energy with one of its parameter arrays too large, and the step that was made."""
    parameters, skeleton = split(energy)
    steps = [np.zeros(leaf.shape, np.float32) for leaf in parameters]
    steps[place] = np.full(parameters[place].shape, OFF, np.float32)
    moved = [leaf + step for leaf, step in zip(parameters, steps, strict=True)]
    return skeleton.merge(moved), np.concatenate([step.ravel() for step in steps])


def _check_fits(objective: Objective, truth: Gaussian, key: jax.Array) -> None:
    text = f"en.fit recovers mean and covariance within {MAX_Z:g} standard errors"
    with law(f"{type(objective).__name__} on a Gaussian", text) as require:
        start = Gaussian(np.zeros(2), covariance=np.eye(2))
        learned = []
        for index in range(FITS):
            data_key, fit_key = jax.random.split(jax.random.fold_in(key, index))
            result = fit(
                start,
                _draw(data_key, ROWS),
                objective,
                key=fit_key,
                num_steps=STEPS,
                batch_size=BATCH,
                optimizer=optax.adam(optax.cosine_decay_schedule(0.02, STEPS)),
                ema_decay=0.99,
                progress=False,
            )
            require(result.stopped is None, f"{result.stopped}")
            learned.append(_moments(result.ema_energy))
        mean, error = _mean_and_error(np.stack(learned))
        expected = _moments(truth)
        scale = float(np.sqrt(expected[2:].max()))
        wrong = [
            f"{name} is {mean[i]:.4g} ± {error[i]:.2g}, exactly {expected[i]:.4g}"
            for i, name in enumerate(["E x[0]", "E x[1]", "Var x[0]", "Cov x[0], x[1]", "Var x[1]"])
            if not abs(mean[i] - expected[i]) <= max(MAX_Z * error[i], FLOOR * scale)
        ]
        require(not wrong, "; ".join(wrong))
        noisy = float(error.max())
        require(noisy <= FLOOR * scale, f"the standard error of {FITS} fits is {noisy:.2g}")


def _moments(energy: Any) -> np.ndarray:
    covariance = np.linalg.inv(np.asarray(energy.precision, np.float64))
    return np.concatenate([np.asarray(energy.mean), covariance[[0, 0, 1], [0, 1, 1]]])
