"""Joint energy-based models: a classifier trained as a density of data and labels."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._mesh import shared
from energia._types import Values, as_array, as_float, is_concrete, optional_float
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.energies._trainable import split
from energia.objectives._objective import Objective, Shapes, registry, rows_in
from energia.objectives.contrastive import spread_of
from energia.objectives.persistent import PCD, PCDState
from energia.samplers import Kernel
from energia.samplers._following import (
    Numbers,
    check_followed,
    first_numbers,
    next_numbers,
    with_numbers,
)
from energia.supports import Discrete

Rows = tuple[Values, Values, Values]


class JEMState(eqx.Module):
    """Persistent chains of data, numbers of the sampler that follow them, and steps done."""

    chains: PCDState
    numbers: Numbers
    count: jax.Array


@registry.register("jem")
class JEM(Objective):
    r"""A joint energy-based model: maximum likelihood of data and labels by a classifier's logits.

    The joint density is $\log p(x, y) = \log p(y \mid x) + \log p(x)$. The first term has a closed
    form; the second is learned as by `'pcd'`, from chains of the free energy
    $F(x) = -\log \sum_y e^{-E(x, y)}$. The loss is

    $\overline{-\log p(y \mid x)} + w\,(\overline{F(x^+)} - \overline{F(x^-)})
    + w\,\alpha\,(\overline{F(x^+)^2} + \overline{F(x^-)^2})$,

    whose gradient, with $w = 1$, $\alpha = 0$ and exact samples $x^-$, is that of the negative
    joint log-likelihood. Any energy of data and one label will do; `en.Classifier(logits)` is the
    usual one.

    Two phases are two calls. To begin with a trained classifier, which is cheaper and steadier than
    to learn both at once:

        start = en.fit(model, data, en.objectives.MLE(given="x"), key=key)   # cross-entropy alone
        fit = en.fit(start.energy, data, "jem", key=key)

    **What goes wrong.** Training diverges: chains run off to energies far below the data's, or all
    to one picture, and `en.fit` stops. What helps, in this order: more transitions (`num_steps`,
    `steps_growth`), a lower learning rate and clipped gradients, noise on the data (`augment=` of
    `en.fit`), `energy_regularization`, a smaller `weight`, more restarts (`reinit_prob`). Accuracy
    falls below the plain classifier's: begin with that classifier, lower `weight`, give
    `label_augment`. Cold chains (`Langevin(noise_scale=...)` below $\sqrt{2\epsilon}$), which
    images are usually trained with, do not sample $e^{-F}$: what is learned is then a short-run
    sampler with a calibrated classifier, and log-likelihoods mean nothing. Samples of one class
    only: `class_conditional`.

    Args:
        sampler: a Markov kernel, or its name. A step size or an inverse mass matrix that it lacks,
            as `'mala'` does, adapts: the step size to the acceptance rate, the matrix to the
            chains' variances. None: `'langevin'`. Grathwohl et al. have
            `Langevin(step_size=1.0, noise_scale=0.01)` for images in [-1, 1].
        weight: $w$, at least 0, of the density of data.
        label: the label's name, a variable of finitely many values.
        num_steps: transitions a training step, at least 1.
        steps_growth: transitions added for each training step done, at least 0: 0.001 is one more
            every 1,000 steps, as chains mix worse when energies grow sharp.
        buffer_size: chains in the buffer; at least the batch size.
        buffer_policy: where moved chains go, as of `PCD`.
        reinit_prob: chance that a chain starts afresh in a step, as of `PCD`.
        energy_regularization: $\alpha$, at least 0, as of `PCD`.
        class_conditional: whether chains are those of $p(x \mid y)$, each keeping a label of the
            data, so that the buffer has pictures of every class. The gradient is that of the
            likelihood where the model's share of each class is the data's; elsewhere it is not, and
            shares are learned only as far as classes overlap.
        sharpness_radius: $\rho$, positive: the gradient is that of the loss at
            $\theta + \rho\, g / \lVert g \rVert$, where $g$ is its gradient at $\theta$ with the
            same samples: a sharpness-aware step, for twice the cost of the loss. None: at $\theta$.
        label_augment: `label_augment(datum, key) -> datum`, as `augment` of `en.fit`, for
            $\log p(y \mid x)$ alone: $\log p(x)$ sees data that are not augmented.
        mutual_information: $\lambda$, at least 0: adds $-\lambda I(x; y)$ to the loss, where
            $I = H(\overline{p(y \mid x)}) - \overline{H(p(y \mid x))}$ over the batch, which asks
            for decided and diverse labels.
        given: other variables that are conditioned on.

    Raises:
        ValueError: when a number is out of its range.

    References:
        Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky (2020), Your classifier is secretly
        an energy based model and you should treat it like one. Yang, Su and Ji (2023), Towards
        bridging the performance gaps of joint energy-based models (the sharpness-aware step, data
        that are not augmented). Sustek et al. (2023), Stabilized training of joint energy-based
        models and their practical applications (mutual information). Foret, Kleiner, Mobahi and
        Neyshabur (2021), Sharpness-aware minimization for efficiently improving generalization.

    Example:
        >>> import energia as en, equinox as eqx, jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> data = {"x": x, "y": (x[:, 0] > 0).astype(int)}
        >>> joint = en.Classifier(eqx.nn.MLP(2, 2, 8, 1, key=jax.random.key(1)))
        >>> fit = en.fit(joint, data, "jem", key=jax.random.key(2), num_steps=10)
        >>> sorted(fit.history)[:3]
        ['accuracy', 'cross_entropy', 'gradient_norm']
    """

    chains: PCD
    weight: jax.Array
    label: str = eqx.field(static=True)
    steps_growth: jax.Array
    class_conditional: bool = eqx.field(static=True)
    sharpness_radius: jax.Array | None
    label_augment: Callable[..., Any] | None
    mutual_information: jax.Array | None

    def __init__(
        self,
        *,
        sampler: str | Kernel | None = None,
        weight: Any = 1.0,
        label: str = "y",
        num_steps: int = 20,
        steps_growth: Any = 0.0,
        buffer_size: int = 8192,
        buffer_policy: str = "slots",
        reinit_prob: Any = 0.05,
        energy_regularization: Any = 0.0,
        class_conditional: bool = False,
        sharpness_radius: Any = None,
        label_augment: Callable[..., Any] | None = None,
        mutual_information: Any = None,
        given: str | Sequence[str] = (),
    ):
        self.given = (given,) if isinstance(given, str) else tuple(given)
        self.label, self.class_conditional = label, class_conditional
        self.weight, self.steps_growth = as_float(weight), as_float(steps_growth)
        self.sharpness_radius = optional_float(sharpness_radius)
        self.mutual_information = optional_float(mutual_information)
        self.label_augment = label_augment
        for name in ("weight", "steps_growth", "mutual_information"):
            value = getattr(self, name)
            if value is not None and is_concrete(value) and not float(value) >= 0:
                raise ValueError(f"{name}= must be at least 0, got {value}")
        radius = self.sharpness_radius
        if radius is not None and is_concrete(radius) and not float(radius) > 0:
            raise ValueError(f"sharpness_radius= must be positive or None, got {radius}")
        self.chains = PCD(
            sampler=sampler,  # pyright: ignore[reportArgumentType]
            num_steps=num_steps,  # pyright: ignore[reportArgumentType]
            buffer_size=buffer_size,
            buffer_policy=buffer_policy,
            reinit_prob=reinit_prob,
            energy_regularization=energy_regularization,
            given=(*self.given, label) if class_conditional else self.given,
        )

    def check(self, energy: Energy, data: Shapes) -> None:
        label = self.label
        if label not in data:
            raise ValueError(
                f"JEM learns data with their labels, and {label!r} is not in the data "
                f"{list(data)}: add it, or name the variable that is, JEM(label=...)"
            )
        support = energy.supports[label]
        if not isinstance(support, Discrete) or support.shape:
            raise ValueError(
                f"JEM needs a label of finitely many values, and that of {label!r} are "
                f"{support or 'unknown'}: say which, .constrain({label}=en.Categorical(...))"
            )
        target = self._target(self.free_energy(energy, data))
        kernel = self.chains.kernel(target)
        kernel.check(target, self.chains.moving(target))
        check_followed(kernel)
        self._labels(self.free_energy(energy, data), data)

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, JEMState]:
        target = self._target(self.free_energy(energy, data))
        state = self.chains.init(target, {n: data[n] for n in target.variables}, key)[1]
        moving = self.chains.moving(target)
        positions = {name: state.buffer.values[name] for name in moving}
        numbers = first_numbers(self.chains.kernel(target), positions)
        return None, JEMState(state, numbers, as_array(0))

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: JEMState, key: jax.Array
    ) -> tuple[jax.Array, JEMState, dict[str, jax.Array]]:
        energy = self.free_energy(energy, batch)
        *chain_keys, augment_key = jax.random.split(key, 5)
        negatives, state, told = self._advance(energy, batch, state, chain_keys)
        labelled = batch
        if self.label_augment is not None:
            keys = jax.random.split(augment_key, rows_in(batch))
            labelled = jax.vmap(self.label_augment)(batch, keys)
        rows = batch, labelled, jax.lax.stop_gradient(negatives)
        if self.sharpness_radius is not None:
            energy = self._sharpest(energy, rows, self.sharpness_radius)
        loss, means = self._value(energy, rows)
        return loss, state, means | told

    def _target(self, energy: Energy) -> Energy:
        """The energy of the chains."""
        return energy if self.class_conditional else energy.marginalize(self.label)

    def _advance(
        self, energy: Energy, batch: Values, state: JEMState, keys: Sequence[jax.Array]
    ) -> tuple[Values, JEMState, dict[str, jax.Array]]:
        """Samples of the data, from chains moved with the sampler as it is now."""
        target = self._target(energy)
        kernel = self.chains.kernel(target)
        steps = self.chains.num_steps + (self.steps_growth * state.count).astype(jnp.int32)
        chains = eqx.tree_at(
            lambda chains: (chains.sampler, chains.num_steps),
            self.chains,
            (with_numbers(kernel, state.numbers), steps),
            is_leaf=lambda leaf: leaf is None,
        )
        given = {name: batch[name] for name in target.variables}
        negatives, moved, told = chains.advance(target, given, state.chains, keys)
        positions = {name: moved.buffer.values[name] for name in chains.moving(target)}
        numbers = next_numbers(kernel, state.numbers, told.get("acceptance_rate", 1.0), positions)
        negatives = {name: rows for name, rows in negatives.items() if name != self.label}
        return negatives, JEMState(moved, numbers, state.count + 1), told

    def _value(self, energy: Energy, rows: Rows) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of data, labelled data and samples, and what the history keeps of it."""
        batch, labelled, negatives = rows
        positives = {name: batch[name] for name in negatives}
        others = [positives, negatives] + [labelled] * (self.label_augment is not None)
        # one pass over all of them
        joined = shared({n: jnp.concatenate([each[n] for each in others]) for n in negatives})
        factors = self._labels(energy, joined)
        free = jax.vmap(Categorical.free_energy)(factors)
        positive, negative = free[: rows_in(batch)], free[rows_in(batch) : 2 * rows_in(batch)]
        log_shares = jax.nn.log_softmax(factors.logits)
        shown = log_shares[-rows_in(batch) :] if len(others) == 3 else log_shares[: rows_in(batch)]
        states = jnp.asarray(energy.supports[self.label].states)  # pyright: ignore
        place = jnp.argmax(states == labelled[self.label][:, None], axis=-1)
        cross_entropy = -jnp.mean(jnp.take_along_axis(shown, place[:, None], -1))
        gap = jnp.mean(positive) - jnp.mean(negative)
        size = jnp.mean(positive**2) + jnp.mean(negative**2)
        loss = cross_entropy + self.weight * (gap + self.chains.energy_regularization * size)
        told = {
            "cross_entropy": cross_entropy,
            "accuracy": jnp.mean((jnp.argmax(shown, -1) == place).astype(float)),
            "positives": jnp.mean(positive),
            "negatives": jnp.mean(negative),
            "spread": spread_of(negatives, positives),
        }
        if self.mutual_information is not None:
            shares = jnp.mean(jnp.exp(shown), 0)
            information = jnp.mean(jnp.sum(jnp.exp(shown) * shown, -1))
            information -= jnp.sum(jax.scipy.special.xlogy(shares, shares))
            loss = loss - self.mutual_information * information
            told["mutual_information"] = information
        return loss, told

    def _labels(self, energy: Energy, rows: Any) -> Categorical:
        """The factors of the label given each row."""

        def one(row: Values) -> Categorical:
            factors = energy._factorize(self.label, row)
            assert isinstance(factors, Categorical)
            return factors

        others = {name: rows[name] for name in energy.variables if name != self.label}
        if all(eqx.is_array(leaf) for leaf in others.values()):
            return jax.vmap(one)(others)
        return eqx.filter_eval_shape(one, others)

    def _sharpest(self, energy: Energy, rows: Rows, radius: jax.Array) -> Energy:
        """The energy moved to where the loss is about largest within a radius."""
        parameters, skeleton = split(energy)
        slopes = jax.grad(lambda moved: self._value(skeleton.merge(moved), rows)[0])(parameters)
        norm = jnp.sqrt(sum((jnp.sum(s**2) for s in slopes), jnp.zeros(())))
        scale = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        moves = jax.lax.stop_gradient([scale * slope for slope in slopes])
        return skeleton.merge([p + move for p, move in zip(parameters, moves, strict=True)])
