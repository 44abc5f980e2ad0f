"""Kernels made of kernels: one after another, one by chance, one repeated."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_float, is_concrete
from energia.energies._energy import Energy
from energia.samplers._combined import (
    Combined,
    CombinedState,
    a_count,
    as_kernel,
    move,
    nothing_told,
)
from energia.samplers._sampler import Kernel, Starts


class Cycle(Combined):
    """Kernels one after another, a step of each. Exact where they are.

    Each moves all variables, from where the last one left them, and is tuned on its own. Statistics
    of a kernel have its number behind theirs, `acceptance_rate_0`; `acceptance_rate` is their mean,
    and `diverging` tells whether any did.

    Args:
        kernels: kernels, or names of them.

    Raises:
        TypeError: when one is none.
        ValueError: when there is none.

    References:
        Tierney (1994), Markov chains for exploring posterior distributions.

    Example:
        >>> import energia as en
        >>> en.samplers.Cycle(["nuts", "mala"]).unset()
        ('step_size', 'inverse_mass_matrix')
    """

    kernels: tuple[Kernel, ...]

    def __init__(self, kernels: Iterable[str | Kernel]):
        self.kernels = _all_kernels(kernels, "Cycle")

    def _kernels(self) -> tuple[Kernel, ...]:
        return self.kernels

    def _with(self, kernels: Sequence[Kernel]) -> "Cycle":
        return Cycle(kernels)

    def step(
        self, energy: Energy, state: CombinedState, key: jax.Array
    ) -> tuple[CombinedState, dict[str, jax.Array]]:
        return self._in_turn(energy, state, key, [str(i) for i in range(len(self.kernels))])


class RandomKernel(Combined):
    """One of several kernels at each step, by chance. Exact where they are.

    Each moves all variables, and is tuned on its own, with what it last saw. What is told is what
    the kernel of the step tells, where all of them tell it (one that tells no acceptance rate
    accepts), and `kernel`, its number. Chains that run side by side each take their own, which
    costs a step of every kernel: `chain_method='parallel'` runs the chosen one alone.

    Args:
        kernels: kernels, or names of them.
        weights: the probability of each, positive, divided by their sum; equal by default.

    Raises:
        TypeError: when a kernel is none.
        ValueError: when there is none, or the weights do not fit.

    References:
        Tierney (1994), Markov chains for exploring posterior distributions.

    Example:
        >>> import energia as en
        >>> en.samplers.RandomKernel(["nuts", "mala"], weights=[0.1, 0.9]).weights.shape
        (2,)
    """

    kernels: tuple[Kernel, ...]
    weights: jax.Array

    def __init__(self, kernels: Iterable[str | Kernel], *, weights: Any = None):
        self.kernels = _all_kernels(kernels, "RandomKernel")
        count = len(self.kernels)
        self.weights = as_float(np.full(count, 1 / count) if weights is None else weights)
        if self.weights.shape != (count,):
            raise ValueError(
                f"{count} kernels need weights of shape ({count},), got {self.weights.shape}"
            )
        numbers = np.asarray(self.weights) if is_concrete(self.weights) else np.ones(1)
        if not (np.all(numbers > 0) and np.all(np.isfinite(numbers))):
            raise ValueError(f"weights= must be positive and finite, got {numbers.tolist()}")

    def _kernels(self) -> tuple[Kernel, ...]:
        return self.kernels

    def _with(self, kernels: Sequence[Kernel]) -> "RandomKernel":
        return RandomKernel(kernels, weights=self.weights)

    def step(
        self, energy: Energy, state: CombinedState, key: jax.Array
    ) -> tuple[CombinedState, dict[str, jax.Array]]:
        key_choice, key_move = jax.random.split(key)
        infos = [part.info for part in state.parts]
        fill = _fill(infos)

        def branch(index: int, kernel: Kernel) -> Any:
            def moved(state: CombinedState) -> tuple[CombinedState, dict[str, jax.Array]]:
                names, parts = energy.variables, list(state.parts)
                last = parts[index].state
                position, parts[index] = move(kernel, energy, names, state.position, key_move, last)
                told = {**fill, **{n: v for n, v in parts[index].info.items() if n in fill}}
                return CombinedState(position, tuple(parts)), told

            return moved

        branches = [branch(index, kernel) for index, kernel in enumerate(self.kernels)]
        chosen = jax.random.categorical(key_choice, jnp.log(self.weights)).astype(jnp.int32)
        state, told = jax.lax.switch(chosen, branches, state)
        return state, {**told, "kernel": chosen}


class Repeat(Kernel):
    """Several steps of a kernel as one. Exact where it is.

    What is told is the mean acceptance rate, whether any step diverged, the sum of `n_steps`, and
    what else the last step tells; between its steps nothing is kept. Tuning runs once for all of
    them. (Of `en.sample` the argument `thin` does the same for a whole run, tuning at every step.)

    Args:
        kernel: a kernel, or the name of one.
        num_steps: how many steps, at least 1.

    Raises:
        TypeError: when the kernel is none.
        ValueError: when there are no steps.

    Example:
        >>> import energia as en
        >>> moves = en.samplers.Repeat("gibbs_with_gradients", 20)
        >>> sampler = en.samplers.BlockGibbs({"z": moves, "theta": "nuts"})
    """

    kernel: Kernel
    num_steps: jax.Array

    def __init__(self, kernel: str | Kernel, num_steps: Any):
        self.kernel = as_kernel(kernel, "Repeat")
        self.num_steps = a_count(num_steps, "num_steps")

    def has(self, marker: type) -> bool:
        return self.kernel.has(marker)

    def bias(self) -> str | None:
        return self.kernel.bias()

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        self.kernel.check(energy, names)

    def unset(self) -> tuple[str, ...]:
        return self.kernel.unset()

    def check_set(self) -> None:
        self.kernel.check_set()

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        return self.kernel.init(energy, position, key)

    def renew(self, energy: Energy, state: Any, position: Values, key: jax.Array) -> Any:
        return self.kernel.renew(energy, state, position, key)

    def keeps(self) -> bool:
        return self.kernel.keeps()

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        def body(t: jax.Array, carry: Any) -> Any:
            state, before = carry
            state, info = self.kernel.step(energy, state, jax.random.fold_in(key, t))
            for name, value in info.items():
                if value.dtype == bool:
                    info[name] = value | before[name]
                elif name in ("acceptance_rate", "n_steps"):
                    info[name] = value + before[name]
            return state, info

        start = state, nothing_told(self.kernel, energy, state, key)
        state, info = jax.lax.fori_loop(0, self.num_steps, body, start)
        if "acceptance_rate" in info:
            info["acceptance_rate"] = info["acceptance_rate"] / self.num_steps
        return state, info

    def tune_init(self, energy: Energy, positions: Starts, num_warmup: int) -> tuple["Repeat", Any]:
        kernel, tuning = self.kernel.tune_init(energy, positions, num_warmup)
        return Repeat(kernel, self.num_steps), tuning

    def tune(
        self, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple["Repeat", Any]:
        kernel, tuning = self.kernel.tune(tuning, states, info, step)
        return Repeat(kernel, self.num_steps), tuning


def _fill(infos: Sequence[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """What one of several kernels is told to have said where it says nothing."""
    fill = {}
    for name, value in {n: v for info in infos for n, v in info.items()}.items():
        said = [info[name] for info in infos if name in info]
        alike = all(v.dtype == value.dtype and v.shape == value.shape for v in said)
        optional = name == "acceptance_rate" or value.dtype == bool
        if name.startswith("_") or not alike or (len(said) < len(infos) and not optional):
            continue
        whole = jnp.ones if name == "acceptance_rate" else jnp.zeros
        fill[name] = whole(value.shape, value.dtype)
    return fill


def _all_kernels(kernels: Iterable[Any], where: str) -> tuple[Kernel, ...]:
    if isinstance(kernels, str | Kernel):
        raise TypeError(f"{where} takes a list of kernels, got {kernels!r}")
    found = tuple(as_kernel(kernel, where) for kernel in kernels)
    if not found:
        raise ValueError(f"{where} needs a kernel at least")
    return found
