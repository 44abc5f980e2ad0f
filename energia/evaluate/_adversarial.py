"""Accuracy against an adversary who may move each datum a little."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, check_count, check_key, on_host
from energia.energies._energy import Energy
from energia.evaluate import _classes
from energia.evaluate._rows import over_rows, rows_of

NORMS = ("linf", "l2")


def adversarial_accuracy(
    energy: Energy,
    data: Mapping[str, Any],
    *,
    radius: Any,
    bounds: Sequence[Any] | None,
    norm: str = "linf",
    num_steps: int = 40,
    step_size: Any = None,
    num_restarts: int = 1,
    label: str = "y",
    key: jax.Array,
) -> float:
    r"""The share of rows that are classified rightly whatever projected gradient descent tries.

    The adversary knows the model and looks for an $x'$ with $\lVert x' - x \rVert \le r$, within
    bounds, that is classified wrongly: from a uniform draw in the ball it goes down on the lead of
    the right class, $m(x') = f(x')_y - \max_{k \ne y} f(x')_k$ with $f = \log p(y \mid x')$,

    $x' \leftarrow \Pi\,(x' - \alpha \operatorname{sign} \nabla m(x'))$, or by
    $\alpha \nabla m / \lVert \nabla m \rVert$ for the norm 'l2',

    where $\Pi$ projects onto the ball and the bounds. A row is lost when its lead is not positive
    at its own place or at any point visited. Unlike the cross-entropy, the lead has a gradient
    where the classifier is sure; but what resists a search for a counterexample may still have
    one: the result is an upper bound of the accuracy in the worst case.

    Args:
        energy: of a datum and its label, such as `en.Classifier`. Other variables are summed out.
        data: values of the datum and the label by variable name, with a leading axis over rows.
        radius: $r$, in units of the datum, at least 0. At 0 it is the accuracy on clean data.
        bounds: the lowest and the highest value that an entry of a datum takes, (0, 1) for images
            on that scale; None where there are none.
        norm: 'linf' (the largest change of an entry) or 'l2' (Euclidean length).
        num_steps: of the descent, from each start.
        step_size: $\alpha$; None: $2.5\, r$ over the number of steps.
        num_restarts: draws in the ball to start from.
        label: the variable that is the class.
        key: a typed JAX key for the starts; they do not depend on the number of rows.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError, ValueError: for data that do not fit the energy or the bounds, and numbers out of
            range.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu (2018), Towards deep learning models resistant to
        adversarial attacks. Carlini and Wagner (2017), Towards evaluating the robustness of neural
        networks (the lead as the loss).

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> joint = en.Classifier(lambda x: jnp.array([-x[0], x[0]]), shape=(2,))
        >>> data = {"x": jnp.array([[0.2, 0.0], [0.6, 0.0]]), "y": jnp.array([1, 1])}
        >>> en.evaluate.adversarial_accuracy(
        ...     joint, data, radius=0.3, bounds=(-1, 1), key=jax.random.key(0))
        0.5
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"adversarial_accuracy() takes an energy, got {energy!r}")
    if norm not in NORMS:
        raise ValueError(f"norm= must be one of {NORMS}, got {norm!r}")
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data must be a dict by variable name, with the labels {label!r} among them, got "
            f"{type(data).__name__}"
        )
    rows = rows_of(energy, data, unknown=True)
    _classes.check_label(energy, rows, label, given=True)
    names = [name for name in rows if name != label]
    if len(names) != 1:
        raise ValueError(
            f"adversarial_accuracy() moves one variable beside the label {label!r}, got {names}"
        )
    x = rows[names[0]]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"data for {names[0]!r} must be floats that can be moved, got {x.dtype}")
    num_steps = check_count(num_steps, "num_steps", 1)
    num_restarts = check_count(num_restarts, "num_restarts", 1)
    radius = _at_least_zero(radius, "radius")
    if step_size is None:
        step_size = 2.5 * radius / num_steps
    low, high = _bounds(bounds, x)
    attack = _Attack(
        energy,
        as_float(radius),
        as_float(_at_least_zero(step_size, "step_size")),
        as_float(low),
        as_float(high),
        on_host(num_steps + 1),
        on_host(num_restarts),
        check_key(key),
        names[0],
        label,
        norm,
    )
    lost, broken = over_rows(_lost, attack, (rows, np.arange(len(x))))
    if broken.any():
        raise ValueError(
            f"the energy is NaN at row {int(np.flatnonzero(broken)[0])}, or near it: there is no "
            "class to tell"
        )
    return 1 - float(np.mean(lost))


def _at_least_zero(value: Any, name: str) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}= must be a finite number, at least 0, got {value}")
    return number


def _bounds(bounds: Any, x: jax.Array) -> tuple[float, float]:
    if bounds is None:
        return -math.inf, math.inf
    low, high = map(float, bounds)
    if not low < high:
        raise ValueError(f"bounds= must be (low, high) with low below high, got {bounds}")
    lowest, highest = float(np.min(np.asarray(x))), float(np.max(np.asarray(x)))
    if lowest < low or highest > high:
        raise ValueError(
            f"bounds= are {low:g} to {high:g}, and the data go from {lowest:g} to {highest:g}"
        )
    return low, high


class _Attack(eqx.Module):
    energy: Energy
    radius: jax.Array
    step_size: jax.Array
    low: jax.Array
    high: jax.Array
    points: Any  # visited from each start
    restarts: Any
    key: jax.Array
    name: str = eqx.field(static=True)
    label: str = eqx.field(static=True)
    norm: str = eqx.field(static=True)

    def lead(self, x: jax.Array, index: jax.Array) -> jax.Array:
        """By how much the right class leads."""
        return _classes.margin(_classes.logits(self.energy, {self.name: x}, self.label), index)

    def start(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """A uniform draw in the ball round a datum."""
        if self.norm == "linf":
            return x + self.radius * jax.random.uniform(key, x.shape, x.dtype, -1, 1)
        direction_key, length_key = jax.random.split(key)
        direction = _unit(jax.random.normal(direction_key, x.shape, x.dtype))
        length = jax.random.uniform(length_key, (), x.dtype) ** (1 / x.size)
        return x + self.radius * length * direction

    def step(self, gradient: jax.Array) -> jax.Array:
        """The move downwards."""
        direction = jnp.sign(gradient) if self.norm == "linf" else _unit(gradient)
        return -self.step_size * direction

    def project(self, moved: jax.Array, x: jax.Array) -> jax.Array:
        """The ball, then the bounds: which hold the datum, so that clipping leaves no ball."""
        change = moved - x
        if self.norm == "linf":
            change = jnp.clip(change, -self.radius, self.radius)
        else:
            length = jnp.sqrt(jnp.sum(change**2))
            change = change * jnp.where(length > self.radius, self.radius / length, 1.0)
        return jnp.clip(x + change, self.low, self.high)


def _unit(direction: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(direction))
    scaled = direction / jnp.where(largest > 0, largest, 1.0)  # squares of tiny numbers vanish
    length = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(length > 0, length, 1.0)


def _lost(attack: _Attack, numbered: tuple[Values, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Whether a row is classified wrongly where it is or where the attack goes; whether NaN."""
    row, number = numbered
    clean = row[attack.name]
    index = _classes.position(attack.energy, row[attack.label], attack.label)
    key = jax.random.fold_in(attack.key, number)

    def visit(t: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        # the clean datum first, then so many points from each start: one gradient is compiled
        x, lost, broken = carry
        lead, gradient = jax.value_and_grad(attack.lead)(x, index)
        moved = jax.lax.cond(
            t % attack.points == 0,
            lambda: attack.start(jax.random.fold_in(key, t), clean),
            lambda: x + attack.step(gradient),
        )
        return attack.project(moved, clean), lost | (lead <= 0), broken | jnp.isnan(lead)

    last, never = attack.restarts * attack.points + 1, jnp.zeros((), bool)
    return jax.lax.fori_loop(0, last, visit, (clean, never, never))[1:]
