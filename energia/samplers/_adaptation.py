"""Warm-up tuning shared by kernels: dual averaging of the step size, Stan's windows."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_array, is_concrete, strong_tree
from energia.energies._energy import Energy
from energia.samplers import _blackjax
from energia.samplers._sampler import Kernel, Starts, positive

Same = TypeVar("Same", bound="StepSizeTuned")

INITIAL_STEP_SIZE = 1.0
MAX_WINDOWS = 32  # windows double in length: enough for 25 · 2³² warm-up steps


def window_schedule(num_warmup: int) -> dict[str, np.ndarray]:
    """Stan's windows as data of a fixed shape, so that another length compiles nothing.

    A fast start and a fast end tune the step size alone; between them the metric is estimated in
    windows that double in length. Stan's split of a warm-up below 150 steps leaves a tenth for the
    end; here it is a third, since dual averaging begins anew at ten times the step size after each
    window, and two steps do not bring it back.
    """
    initial, window, final = 75, 25, 50
    if num_warmup < initial + window + final:
        initial, final = num_warmup * 15 // 100, num_warmup // 3
        window = num_warmup - initial - final
    start, stop = (initial, num_warmup - final) if num_warmup >= 20 else (num_warmup, num_warmup)
    ends, begin = [], start
    while begin < stop:
        length = window if 3 * window <= stop - begin else stop - begin
        begin, window = begin + length, 2 * window
        ends.append(begin - 1)
    padding = [-1] * (MAX_WINDOWS - len(ends))
    schedule = {
        "last": num_warmup - 1,
        "slow_start": start,
        "slow_stop": stop,
        "window_ends": ends + padding,
    }
    return {name: np.asarray(value, np.int32) for name, value in schedule.items()}


class Tuning(eqx.Module):
    """State of warm-up: dual averaging, the metric's estimate, and the schedule as data."""

    step_size: Any
    metric: Any
    schedule: dict[str, jax.Array]
    tunes_step_size: bool = eqx.field(static=True)


class StepSizeTuned(Kernel):
    """A kernel whose `step_size` is tuned to `target_acceptance_rate`.

    Its `inverse_mass_matrix`, where it has one, is the variance of Stan's doubling windows. A
    number that was given stays. The acceptance rate is averaged over the chains tuned together.
    """

    step_size: eqx.AbstractVar[jax.Array | None]
    target_acceptance_rate: eqx.AbstractVar[jax.Array]

    def __check_init__(self):
        positive(self, "target_acceptance_rate")
        rate = self.target_acceptance_rate
        if is_concrete(rate) and not np.all(np.asarray(rate) < 1):
            raise ValueError(
                f"{type(self).__name__}(target_acceptance_rate=...) must lie in (0, 1), got {rate}"
            )

    def tune_init(
        self: Same, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple[Same, Tuning | None]:
        unset = self.unset()
        if not unset:
            return self, None
        size = sum(int(np.prod(leaf.shape[1:])) for leaf in positions.values())
        metric = _blackjax.metric_init(size) if "inverse_mass_matrix" in unset else None
        initial = INITIAL_STEP_SIZE if self.step_size is None else float(self.step_size)
        dual = _blackjax.step_size_init(initial)
        state = jax.tree.map(as_array, (dual, metric, window_schedule(num_warmup)))
        tuning = Tuning(*state, tunes_step_size="step_size" in unset)
        filled = {"step_size": initial} if "step_size" in unset else {}
        if metric is not None:
            filled["inverse_mass_matrix"] = metric.inverse_mass_matrix
        return strong_tree(self.replace(**filled)), tuning

    def tune(
        self: Same, tuning: Tuning | None, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Tuning | None]:
        if tuning is None:
            return self, None
        schedule, target = tuning.schedule, self.target_acceptance_rate
        acceptance_rate = jnp.mean(info["acceptance_rate"])
        dual = _blackjax.step_size_update(tuning.step_size, acceptance_rate, target)
        metric, inverse_mass_matrix = tuning.metric, None
        if metric is not None:
            slow = (step >= schedule["slow_start"]) & (step < schedule["slow_stop"])
            metric = jax.tree.map(
                lambda new, old: jnp.where(slow, new, old),
                _blackjax.metric_update(metric, states.position),
                metric,
            )
            metric, dual = jax.lax.cond(
                jnp.any(step == schedule["window_ends"]),
                lambda: (
                    _blackjax.metric_final(metric),
                    _blackjax.step_size_restart(dual, target),
                ),
                lambda: (metric, dual),
            )
            inverse_mass_matrix = metric.inverse_mass_matrix
        changes = (
            {} if inverse_mass_matrix is None else {"inverse_mass_matrix": inverse_mass_matrix}
        )
        if tuning.tunes_step_size:
            log_step_size = jnp.where(
                step == schedule["last"], dual.log_step_size_avg, dual.log_step_size
            )
            changes["step_size"] = jnp.exp(log_step_size)
        tuning = Tuning(dual, metric, schedule, tuning.tunes_step_size)
        return self.replace(**changes), tuning
