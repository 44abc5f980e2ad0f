"""Warm-up tuning shared by kernels: dual averaging of the step size, windows of the metric."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import is_concrete, on_host, strong_tree
from energia.energies._energy import Energy
from energia.samplers import _blackjax
from energia.samplers._metric import metric_init, metric_update
from energia.samplers._sampler import Kernel, Starts, positive

Same = TypeVar("Same", bound="StepSizeTuned")

INITIAL_STEP_SIZE = 1.0
TARGET, CAREFUL_TARGET = 0.8, 0.95  # acceptance rates, where none is given
ASTRAY = 1e-12  # where the first step of a transition met what it cannot follow
FIRST_WINDOW = 16
MAX_WINDOWS = 32  # windows double in length: enough for 16 · 2³² warm-up steps


def window_schedule(num_warmup: int) -> dict[str, np.ndarray]:
    """The windows of warm-up as data of a fixed shape, so that another length compiles nothing.

    The metric is estimated from the first step on, in windows that double in length, and is left
    alone in the last 50 steps, or the last third of fewer than 150.
    """
    stop = num_warmup - min(50, num_warmup // 3)
    ends, begin, window = [], 0, FIRST_WINDOW
    while begin + 3 * window <= stop:  # the last one takes what another would not fill
        begin, window = begin + window, 2 * window
        ends.append(begin - 1)
    ends = [*ends, stop - 1]
    ends += [-1] * (MAX_WINDOWS - len(ends))
    schedule = {"last": num_warmup - 1, "stop": stop, "window_ends": ends}
    return {name: np.asarray(value, np.int32) for name, value in schedule.items()}


class Tuning(eqx.Module):
    """State of warm-up: dual averaging, the metric's estimate, and the schedule as data."""

    step_size: Any
    metric: Any
    schedule: dict[str, jax.Array | np.ndarray]
    tunes_step_size: bool = eqx.field(static=True)
    tunes_target: bool = eqx.field(static=True)


class StepSizeTuned(Kernel):
    """A kernel whose `step_size` is tuned to `target_acceptance_rate`.

    Its `inverse_mass_matrix`, where it has one, is estimated beside it: see `metric_kind`. A number
    that was given stays. The acceptance rate is averaged over the chains tuned together.

    Dual averaging is not begun again when a window ends: the metric changes a little every few
    steps, and a restart tries ten times the step size, which a short last phase does not make up
    for.
    """

    step_size: eqx.AbstractVar[jax.Array | None]
    target_acceptance_rate: eqx.AbstractVar[jax.Array | None]

    def __check_init__(self):
        positive(self, "target_acceptance_rate")
        rate = self.target_acceptance_rate
        if rate is not None and is_concrete(rate) and not np.all(np.asarray(rate) < 1):
            raise ValueError(
                f"{type(self).__name__}(target_acceptance_rate=...) must lie in (0, 1), got {rate}"
            )

    def metric_kind(self) -> str:
        """How the inverse mass matrix is estimated: 'auto', 'diagonal', 'dense' or 'low_rank'.

        'low_rank' reads `logdensity_grad` of the kernel's states.
        """
        return "diagonal"

    def tune_init(
        self: Same, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple[Same, Tuning | None]:
        unset = self.unset()
        if not unset:
            return self, None
        size = sum(int(np.prod(leaf.shape[1:])) for leaf in positions.values())
        kind = self.metric_kind()
        metric = metric_init(kind, size) if "inverse_mass_matrix" in unset else None
        initial = INITIAL_STEP_SIZE if self.step_size is None else float(self.step_size)
        dual = _blackjax.step_size_init(initial)
        state = jax.tree.map(on_host, (dual, metric, window_schedule(num_warmup)))
        free = self.target_acceptance_rate is None
        tuning = Tuning(*state, tunes_step_size="step_size" in unset, tunes_target=free)
        filled: dict[str, Any] = {"step_size": initial} if "step_size" in unset else {}
        if free:
            filled["target_acceptance_rate"] = TARGET
        if metric is not None:
            filled["inverse_mass_matrix"] = metric.inverse_mass_matrix
        return strong_tree(self.replace(**filled)), tuning

    def tune(
        self: Same, tuning: Tuning | None, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Tuning | None]:
        if tuning is None:
            return self, None
        schedule, changes = tuning.schedule, {}
        target = jnp.asarray(self.target_acceptance_rate)
        if tuning.tunes_target:
            astray = (info["acceptance_rate"] < ASTRAY) | info["diverging"]
            curved = jnp.any(astray) & (step > schedule["last"] // 4)
            target = jnp.where(curved, jnp.asarray(CAREFUL_TARGET, target.dtype), target)
            changes["target_acceptance_rate"] = target
        acceptance_rate = jnp.mean(info["acceptance_rate"])
        dual = _blackjax.step_size_update(tuning.step_size, acceptance_rate, target)
        metric = tuning.metric
        if metric is not None:
            moved = info["acceptance_rate"] > 0
            if "diverging" in info:
                moved = moved & ~info["diverging"]
            metric = metric_update(metric, states, moved)
            ends = jnp.any(step == schedule["window_ends"])
            metric = metric.advance(step, step < schedule["stop"], ends)
            changes["inverse_mass_matrix"] = metric.inverse_mass_matrix
        if tuning.tunes_step_size:
            log_step_size = jnp.where(
                step == schedule["last"], dual.log_step_size_avg, dual.log_step_size
            )
            changes["step_size"] = jnp.exp(log_step_size)
        tuning = Tuning(dual, metric, schedule, tuning.tunes_step_size, tuning.tunes_target)
        return self.replace(**changes), tuning
