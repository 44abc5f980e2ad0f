"""The training loop: compiled chunks with a donated carry, counts traced."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from energia._types import Values, strong_tree
from energia.energies._trainable import Skeleton
from energia.objectives._objective import Objective

CHUNK_STEPS = 1024


class Setup(eqx.Module):
    """What does not change along a run."""

    skeleton: Skeleton
    objective: Objective
    ema_decay: jax.Array
    batch_size: int = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    augment: Callable[..., Any] | None
    streamed: bool = eqx.field(static=True)


class Train(eqx.Module):
    """What changes: parameters, their moving averages, the optimiser's and objective's states."""

    parameters: dict[str, Any]
    averages: dict[str, Any]
    optimizer_state: Any
    objective_state: Any
    order: jax.Array


@eqx.filter_jit
def begin(
    setup: Setup, parameters: list[jax.Array], rows: Values, key: jax.Array
) -> Train:
    """The carry before the first step; `rows` is the data, or the first batch of a stream."""
    energy = setup.skeleton.merge(parameters)
    learned, state = setup.objective.init(energy, rows, jax.random.fold_in(key, 2**31 - 1))
    trained = {"energy": parameters, "learned": learned}
    count = next(iter(rows.values())).shape[0]
    # the averages are copies: a donated carry must not hold one array twice
    averages = jax.tree.map(lambda leaf: leaf + 0, trained)
    return Train(
        trained, averages, setup.optimizer.init(trained), state, jnp.arange(count, dtype=jnp.int32)
    )


@eqx.filter_jit(donate="all-except-first")
def advance(
    fixed: tuple[Setup, Values, jax.Array, jax.Array, jax.Array], train: Train
) -> tuple[Train, dict[str, jax.Array], jax.Array, jax.Array]:
    """Steps start to stop: the carry, the metrics in a buffer, the step reached, and whether all
    was finite. The step that was not is left out, and the loop ends there."""
    setup, rows, key, start, stop = fixed
    arrays, static = eqx.partition(train, eqx.is_array)

    def body(loop):
        t, arrays, metrics, _ = loop
        new, seen, finite = _step(setup, rows, key, start, t, eqx.combine(arrays, static))
        metrics = jax.tree.map(lambda history, value: history.at[t - start].set(value), metrics, seen)
        return t + 1, eqx.filter(new, eqx.is_array), metrics, finite

    seen = eqx.filter_eval_shape(_step, setup, rows, key, start, start, train)[1]
    metrics = jax.tree.map(lambda leaf: jnp.zeros((CHUNK_STEPS,), leaf.dtype), seen)
    t, arrays, metrics, finite = jax.lax.while_loop(
        lambda loop: (loop[0] < stop) & loop[3],
        body,
        (start, arrays, metrics, jnp.ones((), bool)),
    )
    return eqx.combine(arrays, static), metrics, t, finite


def _step(
    setup: Setup, rows: Values, key: jax.Array, start: jax.Array, t: jax.Array, train: Train
) -> tuple[Train, dict[str, jax.Array], jax.Array]:
    objective, optimizer = setup.objective, setup.optimizer
    augment_key, loss_key = jax.random.split(jax.random.fold_in(key, t))
    batch, order = _batch(setup, rows, key, start, t, train.order)
    if setup.augment is not None:
        keys = jax.random.split(augment_key, setup.batch_size)
        batch = jax.vmap(setup.augment)(batch, keys)

    def loss(parameters):
        energy = setup.skeleton.merge(parameters["energy"])
        value, state, metrics = objective.loss(
            energy, parameters["learned"], batch, train.objective_state, loss_key
        )
        return value, (state, metrics)

    differentiate = eqx.filter_value_and_grad(loss, has_aux=True)
    (value, (state, metrics)), gradient = differentiate(train.parameters)
    norm = optax.global_norm(gradient)
    updates, optimizer_state = optimizer.update(gradient, train.optimizer_state, train.parameters)
    parameters = eqx.apply_updates(train.parameters, updates)
    checks = [value, norm, *jax.tree.leaves(parameters)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in checks]))
    decay = jnp.minimum(setup.ema_decay, (1.0 + t) / (10.0 + t))
    averages = jax.tree.map(
        lambda old, new: (decay * old + (1 - decay) * new).astype(new.dtype),
        train.averages,
        parameters,
    )
    kept = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (parameters, averages, optimizer_state),
        (train.parameters, train.averages, train.optimizer_state),
    )
    seen = {"loss": value, "gradient_norm": norm, **metrics}
    return Train(*kept, state, order), seen, finite


def _batch(
    setup: Setup, rows: Values, key: jax.Array, start: jax.Array, t: jax.Array, order: jax.Array
) -> tuple[Values, jax.Array]:
    """The rows of step t: epochs without replacement, each in an order of its own."""
    if setup.streamed:
        return {name: batches[t - start] for name, batches in rows.items()}, order
    count = order.shape[0]
    steps = count // setup.batch_size
    epoch, position = t // steps, t % steps
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 2), epoch)
    order = jax.lax.cond(
        position == 0,
        lambda: jax.random.permutation(epoch_key, count).astype(order.dtype),
        lambda: order,
    )
    picked = jax.lax.dynamic_slice(order, (position * setup.batch_size,), (setup.batch_size,))
    return {name: values[picked] for name, values in rows.items()}, order


def metric_names(setup: Setup, train: Train, rows: Values, key: jax.Array) -> dict[str, Any]:
    """Shapes of the metrics; traces one step, so that mistakes in a loss come before compiling.

    Raises:
        TypeError: when the loss or a metric is no scalar.
    """
    zero = np.int32(0)
    seen = eqx.filter_eval_shape(_step, setup, rows, key, zero, zero, train)[1]
    for name, leaf in seen.items():
        if leaf.shape != ():
            raise TypeError(
                f"{type(setup.objective).__name__}'s {name} must be a scalar, got shape {leaf.shape}"
            )
    return seen


def strong_train(train: Train) -> Train:
    """Strong dtypes throughout, so that the second call is the first one's program."""
    arrays, static = eqx.partition(train, eqx.is_array)
    return eqx.combine(strong_tree(arrays), static)
