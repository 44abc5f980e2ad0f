"""What kernels made of kernels share: parts that move some variables given the others."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_array, check_count, is_concrete
from energia.energies._energy import Energy
from energia.samplers._sampler import AlongPath, Kernel, Starts, registry

Same = TypeVar("Same", bound="Combined")


class Part(NamedTuple):
    """What a kernel of a combination left when it last moved: for its tuning."""

    state: Any
    info: dict[str, jax.Array]


class CombinedState(NamedTuple):
    """Position of a chain, and what each kernel left."""

    position: Values
    parts: tuple[Part, ...]


class Combined(Kernel):
    """Kernels that each move some variables given the others as they are.

    A kernel renews its state each time, so that nothing that it keeps of the energy is out of date.
    """

    @abc.abstractmethod
    def _kernels(self) -> tuple[Kernel, ...]:
        """The kernels."""

    @abc.abstractmethod
    def _with(self: Same, kernels: Sequence[Kernel]) -> Same:
        """The same combination of other kernels."""

    def _names(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The variables that each kernel moves, of these."""
        return [tuple(names) for _ in self._kernels()]

    def has(self, marker: type) -> bool:
        return any(kernel.has(marker) for kernel in self._kernels())

    def bias(self) -> str | None:
        reasons = [f"{class_name(k)}: {b}" for k in self._kernels() if (b := k.bias()) is not None]
        return "; ".join(reasons) or None

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        for kernel, own in zip(self._kernels(), self._names(names), strict=True):
            kernel.check(energy, own)

    def unset(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for kernel in self._kernels() for name in kernel.unset()))

    def check_set(self) -> None:
        lacking = [kernel for kernel in self._kernels() if kernel.unset()]
        if not lacking:
            return
        forms = [
            f"{class_name(kernel)}({', '.join(f'{field}=...' for field in kernel.unset())})"
            for kernel in lacking
        ]
        raise ValueError(
            f"{class_name(self)} is not tuned: give {' and '.join(forms)}, or draw with en.sample "
            "and num_warmup > 0, which tunes them"
        )

    def init(self, energy: Energy, position: Values, key: jax.Array) -> CombinedState:
        self.check_set()
        parts = []
        for index, (kernel, names) in enumerate(self._pairs(energy)):
            subkey = jax.random.fold_in(key, index)
            conditional, own = given(energy, names, position)
            state = kernel.init(conditional, own, subkey)
            parts.append(Part(state, nothing_told(kernel, conditional, state, key)))
        return CombinedState(position, tuple(parts))

    def renew(
        self, energy: Energy, state: CombinedState, position: Values, key: jax.Array
    ) -> CombinedState:
        return state._replace(position=position)  # each part is renewed when it moves

    def keeps(self) -> bool:
        return any(kernel.keeps() for kernel in self._kernels())

    def tune_init(
        self: Same, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple[Same, Any]:
        first = {name: value[0, ...] for name, value in positions.items()}
        tuned = []
        for kernel, names in self._pairs(energy):
            own = {name: positions[name] for name in names}
            tuned.append(kernel.tune_init(given(energy, names, first)[0], own, num_warmup))
        kernels, tunings = zip(*tuned, strict=True)
        return self._with(kernels), None if all(t is None for t in tunings) else tunings

    def tune(
        self: Same, tuning: Any, states: Any, info: dict[str, jax.Array], step: jax.Array
    ) -> tuple[Same, Any]:
        if tuning is None:
            return self, None
        triples = zip(self._kernels(), tuning, states.parts, strict=True)
        tuned = [kernel.tune(own, part.state, part.info, step) for kernel, own, part in triples]
        kernels, tunings = zip(*tuned, strict=True)
        return self._with(kernels), tunings

    def _pairs(self, energy: Energy) -> list[tuple[Kernel, tuple[str, ...]]]:
        return list(zip(self._kernels(), self._names(energy.variables), strict=True))

    def _in_turn(
        self, energy: Energy, state: CombinedState, key: jax.Array, labels: Sequence[str]
    ) -> tuple[CombinedState, dict[str, jax.Array]]:
        """A step of each kernel, one after another."""
        position, parts = state.position, []
        for index, (kernel, names) in enumerate(self._pairs(energy)):
            subkey = jax.random.fold_in(key, index)
            position, part = move(kernel, energy, names, position, subkey, state.parts[index].state)
            parts.append(part)
        infos = {label: part.info for label, part in zip(labels, parts, strict=True)}
        return CombinedState(position, tuple(parts)), told(infos)


# --- the parts


def given(energy: Energy, names: Sequence[str], position: Starts) -> tuple[Energy, dict[str, Any]]:
    """The energy of some variables given the others, and their values."""
    others = {name: value for name, value in position.items() if name not in names}
    own = {name: position[name] for name in names}
    return energy.condition(**others) if others else energy, own


def move(
    kernel: Kernel,
    energy: Energy,
    names: Sequence[str],
    position: Values,
    key: jax.Array,
    last: Any,
) -> tuple[Values, Part]:
    """A step of a kernel that moves some variables, from what its last step left."""
    key_init, key_step = jax.random.split(key)
    conditional, own = given(energy, names, position)
    state = kernel.renew(conditional, last, own, key_init)
    state, info = kernel.step(conditional, state, key_step)
    return {**position, **state.position}, Part(state, info)


def nothing_told(kernel: Kernel, energy: Energy, state: Any, key: jax.Array) -> dict[str, Any]:
    """What a step would tell, with zeros."""
    seen = eqx.filter_eval_shape(lambda k, *rest: k.step(*rest)[1], kernel, energy, state, key)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), seen)


def told(infos: Mapping[str, dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """The statistics of kernels one after another, under names that tell them apart."""
    told: dict[str, jax.Array] = {}
    last = list(infos.values())[-1]
    if "lp" in last:
        told["lp"] = last["lp"]
    for label, info in infos.items():
        for name, value in info.items():
            if name.startswith("_") or name == "lp":
                continue
            told[f"{name}_{label}"] = value
            if value.dtype == bool:
                told[name] = value | told[name] if name in told else value
    rates = [info["acceptance_rate"] for info in infos.values() if "acceptance_rate" in info]
    if rates:
        told["acceptance_rate"] = sum(rates[1:], start=rates[0]) / len(rates)
    return told


def a_count(value: Any, name: str) -> jax.Array:
    """A number of steps as an array, so that another one compiles nothing; at least 1."""
    count = as_array(value, name)
    if is_concrete(count) and count.ndim == 0:
        count = as_array(np.int32(check_count(count.item(), name, 1)))
    return count


def optional_kernel(config: Any, where: str) -> Kernel | None:
    return None if config is None else as_kernel(config, where)


def as_kernel(config: Any, where: str) -> Kernel:
    kernel = registry.resolve(config)
    if not isinstance(kernel, Kernel):
        raise TypeError(
            f"{where} takes Markov kernels, such as 'hmc' or 'gibbs', and {type(kernel).__name__} "
            "is none"
        )
    if kernel.has(AlongPath):
        raise TypeError(
            f"{where} takes kernels that move one position, and {class_name(kernel)} moves "
            "replicas along a path, which would begin anew each time: put the kernels inside it"
        )
    return kernel


def class_name(kernel: Kernel) -> str:
    return type(kernel).__name__
