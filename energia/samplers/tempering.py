"""Parallel tempering: replicas along a path that swap places."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._reference import check_reference, given_reference, prior_of, prior_terms
from energia._types import Values, as_float, check_count, is_concrete
from energia.energies._energy import Energy
from energia.paths import Path, geometric
from energia.samplers import _ladder
from energia.samplers._combined import as_kernel
from energia.samplers._ladder import Ladder, Tuning
from energia.samplers._sampler import AllChains, AlongPath, Kernel, Starts, registry

INNER = "_kernel_"  # before the names of what the kernels tell, for their tuning


class TemperingState(NamedTuple):
    """Replicas, a level a row; the position is the target's."""

    position: Values
    positions: Values
    states: Any
    replicas: jax.Array
    ascending: jax.Array
    round_trips: jax.Array
    steps: jax.Array


def _kernel(config: Any) -> Kernel:
    return as_kernel(config, "ParallelTempering")


@registry.register("parallel_tempering")
class ParallelTempering(Kernel, AllChains, AlongPath):
    r"""Parallel tempering, with swaps that are not reversible. Exact where its kernel is.

    Replicas at the levels $0 = \beta_0 < \dots < \beta_n = 1$ of a path from a reference, where it
    is easy to draw, to the target: $E_\beta = (1 - \beta) E_0 + \beta E$, or any `en.Path`. A step
    moves every replica by the kernel on the energy of its level, the one at the reference by an
    independent exact draw where there is one; then neighbours $i, i + 1$ swap places with
    probability
    $\min(1, e^{E_i(x_i) + E_{i+1}(x_{i+1}) - E_i(x_{i+1}) - E_{i+1}(x_i)})$,
    even and odd pairs in turn. So replicas go up and down the ladder in runs, not by diffusion,
    and bring draws of the reference to the target. The draws are the target's alone.

    Warm-up tunes, on all chains together, the kernel at each level; the levels, at the ends of
    rounds of doubling length, so that all swaps are rejected equally often; and, where neither a
    reference nor a prior is known, the reference: a normal law, at first wide round the starting
    points, then fitted to the target's draws so far, of which as many count as independent as came
    down from the reference, and even odds for discrete variables. A fitted law only covers what
    chains have seen: start them far apart (`init=`), or give `reference=` as wide as the target may
    be.

    With $\Lambda$ the global barrier, the sum of the mean rejections, there are about
    $1/(2 + 2\Lambda)$ round trips from the reference to the target and back in a step, if the
    kernel forgets where it was at each level. `draws.diagnose()` reports both, and how many
    replicas to take, about $2\Lambda + 1$; `draws.stats` has `swap_acceptance_rate` of each pair
    in each step (chain, draw, pair), `round_trips` so far, the `levels`, and of each pair
    `log_ratio_up`, $E_i - E_{i+1}$ at $x_i$, and `log_ratio_down`, $E_{i+1} - E_i$ at $x_{i+1}$, of
    which `en.evaluate.log_partition(E, 'tempering', draws=draws)` makes $\log Z$.

    Args:
        kernel: what moves a replica, or its name: of continuous or discrete variables.
        num_replicas: levels, the reference's and the target's among them, at least 2; along an
            `en.Path` there are as many as the path has.
        reference: $E_0$, an energy of the target's variables, best with exact draws; None: the
            prior, where terms of the energy have exact draws of all variables together, else a
            normal law that is fitted, and even odds.
        ladder: what warm-up found, in `draws.tuned_sampler`; None before.

    Raises:
        TypeError: when the kernel is none, or the reference no energy.
        ValueError: when there are fewer than 2 replicas.

    References:
        Swendsen and Wang (1986), Replica Monte Carlo simulation of spin-glasses. Syed,
        Bouchard-Côté, Deligiannidis and Doucet (2022), Non-reversible parallel tempering: a
        scalable highly parallel MCMC scheme. Surjanovic, Syed, Bouchard-Côté and Campbell (2022),
        Parallel tempering with a variational reference.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> @en.energy(x=en.Real())
        ... def wells(x):
        ...     return -jnp.logaddexp(-8 * (x - 2) ** 2, -8 * (x + 2) ** 2)
        >>> sampler = en.samplers.ParallelTempering("hmc", num_replicas=5)
        >>> draws = en.sample(wells, sampler, key=jax.random.key(0))
        >>> draws["x"].shape, draws.stats["swap_acceptance_rate"].shape
        ((4, 1000), (4, 1000, 4))
    """

    kernel: Kernel = eqx.field(default="hmc", converter=_kernel)
    num_replicas: int = eqx.field(default=10, static=True, kw_only=True)
    reference: Energy | None = eqx.field(default=None, kw_only=True)
    ladder: Ladder | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_count(self.num_replicas, "num_replicas", 2)
        check_reference(self.reference)

    def has(self, marker: type) -> bool:
        return isinstance(self, marker) or self.kernel.has(marker)

    def bias(self) -> str | None:
        return self.kernel.bias()

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        try:
            self.kernel.check(energy, names)
        except TypeError as error:
            raise TypeError(
                f"{error}. It moves the replicas of ParallelTempering, whose first argument is "
                "another kernel: ParallelTempering('gibbs') where all variables are discrete"
            ) from None

    def unset(self) -> tuple[str, ...]:
        return self.kernel.unset() if self.ladder is None else self.ladder.kernels.unset()

    def check_set(self) -> None:
        if self.ladder is None:
            self.kernel.check_set()

    # --- a chain

    def init(self, energy: Energy | Path, position: Values, key: jax.Array) -> TemperingState:
        self.check_set()
        path, levels = self.path(energy), self._levels(energy)
        count = len(levels)
        positions = {name: jnp.stack([value] * count) for name, value in position.items()}
        key_first, key = jax.random.split(key)
        moved, positions = self._first_drawn(path, positions, key_first)
        rows, rebuild = self._rows()

        def one(rows: Any, level: jax.Array, position: Values, key: jax.Array) -> Any:
            return rebuild(rows).init(path(level), position, key)

        keys = jax.random.split(key, moved)
        states = jax.vmap(one)(rows, levels[-moved:], _last(positions, moved), keys)
        replicas = jnp.arange(count, dtype=jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        return TemperingState(
            position, positions, states, replicas, jnp.ones(count, bool), zero, zero
        )

    def step(
        self, energy: Energy | Path, state: TemperingState, key: jax.Array
    ) -> tuple[TemperingState, dict[str, jax.Array]]:
        path, levels = self.path(energy), self._levels(energy)
        key_first, key_move, key_swap = jax.random.split(key, 3)
        moved, positions = self._first_drawn(path, state.positions, key_first)
        rows, rebuild = self._rows()

        def one(
            rows: Any, level: jax.Array, position: Values, last: Any, key: jax.Array
        ) -> tuple[Any, dict[str, jax.Array]]:
            kernel, energy = rebuild(rows), path(level)
            key_renew, key_step = jax.random.split(key)
            # a swap may have moved it, and tuning may have changed its energy
            last = kernel.renew(energy, last, position, key_renew)
            return kernel.step(energy, last, key_step)

        keys = jax.random.split(key_move, moved)
        states, seen = jax.vmap(one)(
            rows, levels[-moved:], _last(positions, moved), state.states, keys
        )
        positions = {
            name: rows.at[-moved:].set(states.position[name]) for name, rows in positions.items()
        }
        ratios, rates, places, energy_there = _swap(path, levels, positions, state.steps, key_swap)
        positions = {name: rows[places] for name, rows in positions.items()}
        replicas = state.replicas[places]
        arrived = ~state.ascending[replicas[0]]
        new = TemperingState(
            {name: rows[-1] for name, rows in positions.items()},
            positions,
            states,
            replicas,
            state.ascending.at[replicas[0]].set(True).at[replicas[-1]].set(False),
            state.round_trips + arrived.astype(jnp.int32),
            state.steps + 1,
        )
        info = _told(seen) | {f"{INNER}{name}": rows for name, rows in seen.items()}
        info |= {"lp": -energy_there, "swap_acceptance_rate": rates, "levels": levels}
        info |= {"log_ratio_up": ratios[:, 0], "log_ratio_down": ratios[:, 1]}
        return new, info | {"round_trips": new.round_trips}

    def _first_drawn(
        self, path: Path, positions: Values, key: jax.Array
    ) -> tuple[int, dict[str, jax.Array]]:
        """How many levels the kernel moves, and positions with an exact draw at the first."""
        count, exact = len(next(iter(positions.values()))), path.exact()
        if exact is None:
            return count, dict(positions)
        drawn = exact.draw(key)
        return count - 1, {
            name: rows.at[0].set(drawn[name].astype(rows.dtype)) for name, rows in positions.items()
        }

    def path(self, energy: Energy | Path) -> Path:
        """From the reference to the target; two levels, as it runs along others."""
        if isinstance(energy, Path):
            self._check_path(energy)
            return energy
        ladder = self.ladder
        if self.reference is not None:
            reference = given_reference(self.reference, energy)
        elif ladder is None:
            raise ValueError(
                "ParallelTempering finds its reference in warm-up: draw with en.sample and "
                "num_warmup > 0, or give reference=, an energy with exact draws"
            )
        elif ladder.prior is not None:
            reference = prior_of(energy, ladder.prior)
        else:
            assert ladder.fitted is not None
            reference = ladder.fitted
        return geometric(reference, energy, levels=2)

    def _check_path(self, path: Path) -> None:
        if self.reference is not None:
            raise ValueError(
                "ParallelTempering(reference=...) is for an energy; a path has its own first level"
            )
        if path.num_levels < 2:
            raise ValueError(f"ParallelTempering needs a path of at least 2 levels, got {path!r}")
        steps = np.diff(np.asarray(path.levels)) if is_concrete(path.levels) else np.ones(1)
        if not (np.all(steps > 0) or np.all(steps < 0)):
            raise ValueError(
                f"ParallelTempering needs levels that rise or fall all the way, from the reference "
                f"to the target; those of {path!r} are {np.asarray(path.levels)}"
            )

    def _levels(self, energy: Energy | Path) -> jax.Array:
        if self.ladder is not None:
            return self.ladder.levels
        if isinstance(energy, Path):
            return energy.levels
        return as_float(_ladder.first_levels(self.num_replicas))

    def _rows(self) -> Any:
        if self.ladder is None:
            return [], lambda rows: self.kernel
        return _ladder.rows_of(self.ladder.kernels, self.kernel)

    # --- warm-up

    def tune_init(
        self, energy: Energy | Path, positions: Starts, num_warmup: int
    ) -> tuple["ParallelTempering", Tuning]:
        target = energy.target if isinstance(energy, Path) else energy
        prior, fitted = None, None
        if isinstance(energy, Energy) and self.reference is None:
            prior = prior_terms(energy)
            if prior is None:
                unit = _ladder.unit_reference(self.kernel, energy)
                fitted = _ladder.wide_reference(unit, positions)
        kernel, tuning = self.kernel.tune_init(target, positions, num_warmup)
        levels = self._levels(energy)
        draft = self.replace(ladder=Ladder(levels, kernel, fitted, prior))
        moved = len(levels) - (draft.path(energy).exact() is not None)
        ladder = Ladder(levels, _ladder.stacked(kernel, self.kernel, moved), fitted, prior)
        summary = None
        if fitted is not None:
            summary = fitted.summary({n: jnp.asarray(x) for n, x in positions.items()})
        tuning = _ladder.over_rows(tuning, moved)
        start = _ladder.start_tuning(tuning, len(levels), summary, num_warmup)
        return self.replace(ladder=ladder), start

    def tune(
        self, tuning: Tuning, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["ParallelTempering", Tuning]:
        ladder = self.ladder
        assert ladder is not None
        if tuning.kernels is not None:
            kernels, own = self._tune_kernels(tuning.kernels, states, info, step)
            ladder = dataclasses.replace(ladder, kernels=kernels)
            tuning = dataclasses.replace(tuning, kernels=own)
        rejections = 1 - jnp.mean(info["swap_acceptance_rate"], axis=0)
        trips = as_float(jnp.sum(states.round_trips))
        summary = None if ladder.fitted is None else ladder.fitted.summary(states.position)
        ladder, tuning = _ladder.end_step(tuning, ladder, rejections, trips, summary, step)
        return self.replace(ladder=ladder), tuning

    def _tune_kernels(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Kernel, Any]:
        rows, rebuild = self._rows()
        seen = {n.removeprefix(INNER): x for n, x in info.items() if n.startswith(INNER)}
        arrays, static = eqx.partition(tuning, eqx.is_array)

        def one(rows: Any, arrays: Any, states: Any, seen: Any) -> Any:
            own = eqx.combine(arrays, static)
            kernel, own = rebuild(rows).tune(own, states, seen, step)
            return _ladder.rows_of(kernel, self.kernel)[0], eqx.filter(own, eqx.is_array)

        # states and what was seen: first the chains, then the levels
        rows, arrays = jax.vmap(one, in_axes=(0, 0, 1, 1))(rows, arrays, states.states, seen)
        return rebuild(rows), eqx.combine(arrays, static)


def _swap(
    path: Path, levels: jax.Array, positions: Values, steps: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A round of swaps, of the even or of the odd pairs.

    Returns for every pair the two log ratios of its densities, up at the lower position and down at
    the upper one, shape (pair, 2); its acceptance rate, whether its turn or not; the level from
    which each level gets its position; and the energy of what the target gets.
    """
    count = len(levels)
    index = np.arange(count)
    near = levels[np.stack([np.maximum(index - 1, 0), index, np.minimum(index + 1, count - 1)], 1)]

    def at_three(levels: jax.Array, position: Values) -> jax.Array:
        # what does not depend on the level is evaluated once
        return jax.vmap(lambda level: path(level).at(position))(levels)

    below, own, above = jax.vmap(at_three)(near, positions).T
    ratios = jnp.stack([own[:-1] - above[:-1], own[1:] - below[1:]], axis=1)
    log_ratio = jnp.sum(ratios, axis=1)
    rates = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
    chosen = jax.random.uniform(key, rates.shape, rates.dtype) < rates
    swapped = chosen & (index[:-1] % 2 == steps % 2)
    never = jnp.zeros(1, bool)
    up, down = jnp.concatenate([swapped, never]), jnp.concatenate([never, swapped])
    places = jnp.asarray(index) + up - down
    return ratios, rates, places, jnp.where(swapped[-1], above[-2], own[-1])


def _last(positions: Values, count: int) -> Values:
    return {name: rows[-count:] for name, rows in positions.items()}


def _told(seen: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Of what the kernels tell, a level a row: the target's, and the cost of all.

    A transition that diverges at another level is a rejection there: the swaps tell its cost.
    """
    told = {}
    for name, rows in seen.items():
        if name.startswith("_") or name in ("lp", "energy"):
            continue
        told[name] = rows[-1]
        if name == "n_steps":
            told[name] = jnp.sum(rows)
    return told
