"""The training loop: compiled chunks with a donated carry, counts traced."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from energia._mesh import shared, sharing, whole
from energia._types import Values, strong_tree
from energia.energies._trainable import Skeleton, split
from energia.objectives._objective import Objective, rows_in
from energia.training._precision import Lowered

CHUNK_STEPS = 1024
TRAINED = ("energy", "learned")


class Setup(eqx.Module):
    """What does not change along a run."""

    skeleton: Skeleton
    objective: Objective
    ema_decay: jax.Array
    batch_size: int = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    augment: Callable[..., Any] | None
    streamed: bool = eqx.field(static=True)
    half: bool = eqx.field(static=True)  # products of the energy are computed in bfloat16
    mesh: Mesh | None = eqx.field(static=True, default=None)  # devices that share the rows


class Train(eqx.Module):
    """What changes: parameters, their moving averages, the optimiser's and objective's states.

    Parameters are those of the energy and of the objective's `learned`, of which `rest` is what is
    not trained. Beside them, under the name 'followed', stand constants of the energy that follow
    its parameters: the averages have their own.
    """

    parameters: dict[str, list[jax.Array]]
    averages: dict[str, list[jax.Array]]
    rest: Skeleton
    optimizer_state: Any
    objective_state: Any
    order: jax.Array

    @property
    def learned(self) -> "Learned":
        """What a `Fit` is made of."""
        return self.parameters, self.averages, self.rest


Learned = tuple[dict[str, list[jax.Array]], dict[str, list[jax.Array]], Skeleton]


@eqx.filter_jit
def begin(setup: Setup, parameters: list[jax.Array], rows: Values, key: jax.Array) -> Train:
    """The carry before the first step; `rows` is the data, or the first batch of a stream."""
    count = next(iter(rows.values())).shape[0]
    if setup.augment is not None:
        keys = jax.random.split(jax.random.fold_in(key, 2**31 - 3), count)
        rows = jax.vmap(setup.augment)(rows, keys)
    energy = setup.skeleton.merge(parameters)
    learned, state = setup.objective.init(energy, rows, jax.random.fold_in(key, 2**31 - 1))
    learned, rest = split(learned)
    trained = {"energy": parameters, "learned": learned}
    own = {**trained, "followed": jax.tree.map(jnp.copy, setup.skeleton.followed)}
    # strong dtypes throughout, so that the second chunk is the first one's program
    return strong_tree(
        Train(
            own,
            jax.tree.map(jnp.copy, own),
            rest,
            setup.optimizer.init(trained),
            state,
            jnp.arange(0 if setup.streamed else count, dtype=jnp.int32),
        )
    )


@eqx.filter_jit(donate="all-except-first")
def advance(
    fixed: tuple[Setup, Any, jax.Array, Any, Any], train: Train
) -> tuple[Train, dict[str, jax.Array], jax.Array, jax.Array]:
    """Steps start to stop: the carry, the metrics in a buffer, the step reached, whether finite.

    A step that is not finite leaves the parameters as they were, and the loop ends there.
    """
    setup, rows, key, start, stop = fixed
    arrays, static = eqx.partition(train, eqx.is_array)

    def body(loop):
        t, arrays, metrics, _ = loop
        with sharing(setup.mesh):
            new, seen, finite = _step(setup, rows, key, start, t, eqx.combine(arrays, static))
        metrics = jax.tree.map(
            lambda history, value: history.at[t - start].set(value), metrics, seen
        )
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
    batch = shared(batch)
    if setup.augment is not None:
        keys = jax.random.split(augment_key, setup.batch_size)
        batch = jax.vmap(setup.augment)(batch, keys)

    trained = {name: train.parameters[name] for name in TRAINED}

    def loss(trained):
        energy, learned = _computed(setup, train.rest, {**train.parameters, **trained})
        value, state, metrics = objective.loss(
            energy, learned, batch, train.objective_state, loss_key
        )
        seen, state = {"loss": value, **strong_tree(metrics)}, strong_tree(state)
        _check_loss(objective, seen, train.objective_state, state)
        return value, (state, seen)

    differentiate = jax.value_and_grad(loss, has_aux=True)
    (value, (state, seen)), gradient = differentiate(trained)
    flat = [jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(gradient)]
    squares = [jnp.vdot(leaf, leaf) for leaf in flat]  # a sum would not be vectorised on a CPU
    norm = jnp.sqrt(sum(squares, start=jnp.zeros(())))
    updates, optimizer_state = optimizer.update(gradient, train.optimizer_state, trained)
    parameters = eqx.apply_updates(trained, updates)
    checks = [value, norm, *jax.tree.leaves(parameters)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in checks]))
    decay = jnp.minimum(setup.ema_decay, (1.0 + t) / (10.0 + t))
    averages = jax.tree.map(
        lambda old, new: (decay * old + (1 - decay) * new).astype(new.dtype),
        {name: train.averages[name] for name in TRAINED},
        parameters,
    )
    parameters, averages = (
        {**new, "followed": setup.skeleton.refresh(new["energy"], old["followed"])}
        for new, old in ((parameters, train.parameters), (averages, train.averages))
    )
    parameters, averages, optimizer_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (parameters, averages, optimizer_state),
        (train.parameters, train.averages, train.optimizer_state),
    )
    new = whole(Train(parameters, averages, train.rest, optimizer_state, state, order))
    return new, {**seen, "gradient_norm": norm}, finite


def _batch(
    setup: Setup, rows: Values, key: jax.Array, start: jax.Array, t: jax.Array, order: jax.Array
) -> tuple[Values, jax.Array]:
    """The rows of step t: epochs without replacement, each in an order of its own."""
    if setup.streamed:
        return {name: batches[t - start] for name, batches in rows.items()}, order
    count = order.shape[0]
    steps = count // setup.batch_size
    epoch, position = t // steps, t % steps
    order = jax.lax.cond(position == 0, lambda: epoch_order(key, epoch, count), lambda: order)
    picked = jax.lax.dynamic_slice(order, (position * setup.batch_size,), (setup.batch_size,))
    return {name: values[picked] for name, values in rows.items()}, order


@functools.partial(jax.jit, static_argnums=2)
def epoch_order(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """In which order the rows of the data come in an epoch."""
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 2), epoch)
    return jax.random.permutation(epoch_key, count).astype(jnp.int32)


@eqx.filter_jit
def validate(setup: Setup, rows: Values, key: jax.Array, train: Train) -> jax.Array:
    """The mean loss on held-out rows, in batches, with the same random numbers each time.

    Batches are of one size, no larger than in training; fewer rows than there are batches may be
    left over.
    """
    energy, learned = _computed(setup, train.rest, train.parameters)
    batches = -(-rows_in(rows) // setup.batch_size)
    size = rows_in(rows) // batches

    def add(index, total):
        taken = [index * size, size]
        batch = {n: jax.lax.dynamic_slice_in_dim(values, *taken) for n, values in rows.items()}
        batch = shared(batch)
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, index))
        if setup.augment is not None:
            batch = jax.vmap(setup.augment)(batch, jax.random.split(augment_key, size))
        loss, _, _ = setup.objective.loss(energy, learned, batch, train.objective_state, loss_key)
        return total + loss

    key = jax.random.fold_in(key, 2**31 - 4)
    with sharing(setup.mesh):
        return jax.lax.fori_loop(0, batches, add, jnp.zeros(())) / batches


@eqx.filter_jit
def copy(tree: Any) -> Any:
    """Arrays of their own, which outlive the donated carry."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, tree)


def merge(setup: Setup, rest: Skeleton, parameters: dict[str, list[jax.Array]]) -> tuple[Any, Any]:
    """The energy with these parameters, and what is learned beside it."""
    energy = setup.skeleton.merge(parameters["energy"], parameters["followed"])
    return energy, rest.merge(parameters["learned"])


def _computed(
    setup: Setup, rest: Skeleton, parameters: dict[str, list[jax.Array]]
) -> tuple[Any, Any]:
    """The same, the energy in the precision of training."""
    energy, learned = merge(setup, rest, parameters)
    return Lowered(energy) if setup.half else energy, learned


def _check_loss(objective: Objective, seen: dict[str, Any], old: Any, new: Any) -> None:
    """Raise while tracing where an objective breaks the protocol."""
    name = type(objective).__name__
    for what, value in seen.items():
        if jnp.shape(value) != ():
            raise TypeError(f"{name}.loss must give a scalar {what}, got shape {jnp.shape(value)}")
    before, after = (jax.tree.map(_kind, state) for state in (old, new))
    if jax.tree.structure(before) != jax.tree.structure(after) or before != after:
        raise TypeError(
            f"{name}.loss must keep the structure, shapes and dtypes of the state: it was given "
            f"{before}, it returns {after}"
        )


def _kind(leaf: Any) -> Any:
    return f"{leaf.dtype}{list(leaf.shape)}" if eqx.is_array(leaf) else leaf
