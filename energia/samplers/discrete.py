"""Samplers of discrete variables that follow differences of the energy."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import Values, as_float, optional_float
from energia.energies._energy import Energy
from energia.energies._factors import Categorical
from energia.samplers._adaptation import StepSizeTuned
from energia.samplers._sampler import Biased, DiscreteSpace, Kernel, positive, registry, ways_out
from energia.supports import Discrete

Same = TypeVar("Same", bound="DiscreteLangevin")

STEEPEST = 80.0  # bound on a difference: exp of it is still a number in 32 bits
LARGEST_STEP_SIZE = 1e3
AT_ONCE = 2**10  # energies of changed positions that are held at once


class DiscreteState(NamedTuple):
    """Position of a chain, its energy, and what each change of one entry would lower it by.

    An entry in state k has K - 1 changes, to the states k + 1, k + 2, ... modulo K: those are the
    last axis of the differences.
    """

    position: Values
    energy: jax.Array
    differences: Values


class _Informed(Kernel, DiscreteSpace):
    """A kernel whose proposals follow differences of the energy."""

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        for name in names:
            support = energy.supports[name]
            if not isinstance(support, Discrete):
                raise TypeError(
                    f"{type(self).__name__} moves variables of finitely many values, and {name!r} "
                    f"is {support}: {ways_out(energy, name, 'nuts')}"
                )

    def init(self, energy: Energy, position: Values, key: jax.Array) -> DiscreteState:
        self.check_set()
        return _at(energy, position)


def _at(energy: Energy, position: Values) -> DiscreteState:
    """The state of a chain at a position."""
    supports = {name: _finite(energy, name) for name in position}
    smooth = {n: x for n, x in position.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    value, slopes = jax.value_and_grad(lambda moving: energy.at({**position, **moving}))(smooth)
    found = {}
    for name, x in position.items():
        support = supports[name]
        changed = support.values(_changes(support, x))
        if name in slopes:
            drops = -slopes[name][..., None] * (changed - x[..., None])
        else:
            drops = value - _changed_energies(energy, name, position, changed)
        drops = jnp.where(jnp.isnan(drops), 0.0, drops)
        found[name] = jnp.clip(drops, -STEEPEST, STEEPEST)
    return DiscreteState(position, value, found)


def _finite(energy: Energy, name: str) -> Discrete:
    support = energy.supports[name]
    if not isinstance(support, Discrete):
        raise TypeError(f"{name!r} of {energy._formula()} has no finite support: it is {support}")
    return support


def _changes(support: Discrete, x: jax.Array) -> jax.Array:
    """The positions of the other states of each entry, on a last axis."""
    count = len(support.states)
    return (support.positions(x)[..., None] + jnp.arange(1, count)) % count


def _changed_energies(energy: Energy, name: str, position: Values, changed: jax.Array) -> jax.Array:
    """The energy after each change of one entry."""
    size, others = position[name].size, changed.shape[-1]
    flat, states = position[name].reshape(size), changed.reshape(size * others)

    def one(where: jax.Array) -> jax.Array:
        moved = flat.at[where // others].set(states[where])
        return energy.at({**position, name: moved.reshape(position[name].shape)})

    every = jnp.arange(size * others)
    energies = jax.lax.map(one, every, batch_size=min(AT_ONCE, max(size * others, 1)))
    return energies.reshape(changed.shape)


def _metropolis(
    key: jax.Array, old: DiscreteState, new: DiscreteState, log_ratio: jax.Array
) -> tuple[DiscreteState, jax.Array]:
    """The new state with the probability of Metropolis and Hastings, and that probability."""
    rate = jnp.exp(jnp.minimum(0.0, old.energy - new.energy + log_ratio))
    rate = jnp.where(jnp.isnan(rate), 0.0, rate)
    accepted = jax.random.uniform(key, (), rate.dtype) < rate
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old), rate


@registry.register("gibbs_with_gradients")
class GibbsWithGradients(_Informed):
    r"""Gibbs with gradients: Metropolis that proposes the one change worth most. Exact.

    Of all changes of one entry of one variable, a step proposes one with probability proportional
    to $\exp(\tfrac12 d)$, where $d \approx E(x) - E(x')$ is what the change lowers the energy by,
    and corrects by Metropolis and Hastings. For binary variables and spins, which are floats, $d$
    comes from the gradient, $d = -\nabla_i E(x) (x'_i - x_i)$: one gradient gives all of them. A
    categorical variable is an integer and has none: its $d$ are exact, from n (K - 1) evaluations
    of the energy. Either way the draws follow $e^{-E}$; a poor gradient costs acceptance alone.

    A step changes at most one entry: `en.samplers.Repeat` takes several a draw.

    References:
        Grathwohl et al. (2021), Oops I took a gradient: scalable sampling for discrete
        distributions. Zanella (2020), Informed proposals for local MCMC in discrete spaces.

    Example:
        >>> import energia as en, jax
        >>> spins = en.Ising((4, 4), coupling=0.2, field=0.1)
        >>> draws = en.sample(spins, "gibbs_with_gradients", key=jax.random.key(0), thin=20)
        >>> draws["x"].shape
        (4, 1000, 4, 4)
    """

    def step(
        self, energy: Energy, state: DiscreteState, key: jax.Array
    ) -> tuple[DiscreteState, dict[str, jax.Array]]:
        key_move, key_accept = jax.random.split(key)
        logits = _change_logits(state)
        chosen = jax.random.categorical(key_move, logits)
        position, back, offset = {}, jnp.zeros_like(chosen), 0
        for name in sorted(state.position):
            x, support = state.position[name], _finite(energy, name)
            count, size = len(support.states), state.differences[name].size
            here = (chosen >= offset) & (chosen < offset + size)
            entry, change = jnp.divmod(chosen - offset, count - 1)
            moving = here & (jnp.arange(x.size).reshape(x.shape) == entry)
            positions = support.positions(x)
            positions = jnp.where(moving, (positions + change + 1) % count, positions)
            position[name] = support.values(positions)
            # the change that leads back goes on round the circle of states
            reverse = offset + entry * (count - 1) + (count - 2 - change)
            back, offset = jnp.where(here, reverse, back), offset + size
        new = _at(energy, {name: position[name] for name in state.position})
        log_ratio = jax.nn.log_softmax(_change_logits(new))[back]
        log_ratio = log_ratio - jax.nn.log_softmax(logits)[chosen]
        state, rate = _metropolis(key_accept, state, new, log_ratio)
        return state, {"acceptance_rate": rate, "lp": -state.energy}


def _change_logits(state: DiscreteState) -> jax.Array:
    """Of every change of one entry, those of all variables one after another."""
    parts = [state.differences[name].ravel() / 2 for name in sorted(state.differences)]
    return jnp.concatenate(parts)


@registry.register("discrete_langevin")
class DiscreteLangevin(_Informed, StepSizeTuned):
    r"""Discrete Langevin: every entry may move in a step. Exact, unless `adjusted=False`.

    Each entry proposes its new state by itself, with probability proportional to

    $\exp\bigl(\tfrac12 d_i(x'_i) - \lVert x'_i - x_i \rVert^2 / 2\alpha\bigr)$,

    where $d_i$ is what the change of entry i alone would lower the energy by, as in
    `GibbsWithGradients`: by the gradient for binary variables and spins, by exact differences for
    categorical ones, whose states all lie $\sqrt 2$ apart. Metropolis and Hastings correct it.
    Warm-up tunes the step size to the target acceptance rate; where every step size is accepted
    more often than that, it ends at 1,000, which is no bound on a move any more.

    Args:
        step_size: $\alpha$, positive; None: tuned.
        adjusted: whether to correct. Without, the chain follows another law than $e^{-E}$, `bias`
            tells so, and the step size must be given.
        target_acceptance_rate: in (0, 1).

    Raises:
        ValueError: when a number is out of its range, or `adjusted=False` has no step size.

    References:
        Zhang et al. (2022), A Langevin-like sampler for discrete distributions.

    Example:
        >>> import energia as en
        >>> en.samplers.DiscreteLangevin().unset()
        ('step_size',)
        >>> print(en.samplers.DiscreteLangevin(step_size=0.2, adjusted=False).bias())
        no Metropolis step: entries move at once, each as if the others stood still
    """

    tunable = ("step_size",)

    step_size: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    adjusted: bool = eqx.field(default=True, static=True, kw_only=True)
    target_acceptance_rate: jax.Array = eqx.field(default=0.574, converter=as_float, kw_only=True)

    def __check_init__(self):
        positive(self, "step_size")
        if not self.adjusted and self.step_size is None:
            raise ValueError(
                "DiscreteLangevin(adjusted=False) needs step_size=: with no acceptance rate there "
                "is nothing to tune it by"
            )

    def has(self, marker: type) -> bool:
        return not self.adjusted if marker is Biased else super().has(marker)

    def bias(self) -> str | None:
        if self.adjusted:
            return None
        return "no Metropolis step: entries move at once, each as if the others stood still"

    def step(
        self, energy: Energy, state: DiscreteState, key: jax.Array
    ) -> tuple[DiscreteState, dict[str, jax.Array]]:
        key_move, key_accept = jax.random.split(key)
        forward = self._logits(energy, state)
        position, back = {}, {}
        log_ratio = jnp.zeros_like(state.energy)
        for index, name in enumerate(sorted(forward)):
            support, logits = _finite(energy, name), forward[name]
            factors = Categorical(jnp.zeros(()), logits)
            moves = factors.draw_positions(jax.random.fold_in(key_move, index)).astype(jnp.int32)
            count = len(support.states)
            positions = support.positions(state.position[name])
            position[name] = support.values((positions + moves) % count)
            back[name] = (count - moves) % count
            log_ratio -= _log_probability(logits, moves)
        new = _at(energy, {name: position[name] for name in state.position})
        if not self.adjusted:
            return new, {"lp": -new.energy}
        for name, logits in self._logits(energy, new).items():
            log_ratio += _log_probability(logits, back[name])
        state, rate = _metropolis(key_accept, state, new, log_ratio)
        step_size = jnp.asarray(self.step_size)
        return state, {"acceptance_rate": rate, "lp": -state.energy, "step_size": step_size}

    def _logits(self, energy: Energy, state: DiscreteState) -> Values:
        """Of every entry, to stay and to change to each other state."""
        logits = {}
        for name, x in state.position.items():
            support, drops = _finite(energy, name), state.differences[name]
            if jnp.issubdtype(x.dtype, jnp.floating):
                squared = (support.values(_changes(support, x)) - x[..., None]) ** 2
            else:
                squared = 2.0
            changes = drops / 2 - squared / (2 * jnp.asarray(self.step_size))
            stay = jnp.zeros((*x.shape, 1), changes.dtype)
            logits[name] = jnp.concatenate([stay, changes], axis=-1)
        return logits

    def tune(
        self: Same, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Any]:
        kernel, tuning = super().tune(tuning, states, info, step)
        if tuning is None:
            return kernel, tuning
        step_size = jnp.minimum(jnp.asarray(kernel.step_size), LARGEST_STEP_SIZE)
        return kernel.replace(step_size=step_size), tuning


def _log_probability(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """Of the chosen states of all entries."""
    each = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[..., None], axis=-1)
    return jnp.sum(each)
