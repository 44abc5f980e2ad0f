"""Any BlackJAX algorithm as a kernel."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm

from energia._types import Values, as_array, strong_tree
from energia.energies._energy import Energy
from energia.samplers._blackjax import BlackJAXKernel, log_density

NAMES = {  # what BlackJAX calls it, and ArviZ
    "acceptance_rate": "acceptance_rate",
    "is_divergent": "diverging",
    "energy": "energy",
    "num_integration_steps": "n_steps",
}


class BlackJAX(BlackJAXKernel):
    r"""Any BlackJAX algorithm, also one that its authors add tomorrow.

    `fn(log_density, **parameters)` must give an algorithm of BlackJAX's Markov kernels: `init` of a
    position, `step` of a key and a state, and a state that has a `position`. Positions are dicts by
    variable name, in unconstrained space. What the algorithm tells of each step is kept where ArviZ
    has a name for it: `acceptance_rate`, `diverging`, `energy`, `n_steps`.

    Nothing is tuned, and whether the draws follow $e^{-E}$ is the algorithm's affair. Draws can be
    saved; `Draws.load` needs `sampler=` again.

    Args:
        fn: such as `blackjax.rmh`, `blackjax.ghmc` or
            `blackjax.additive_step_random_walk.normal_random_walk`.
        **parameters: those of `fn` after the log density, by name. Numbers become arrays: another
            one compiles nothing. Functions and strings are static, and so are Python integers where
            the default of `fn` is one (`max_num_doublings`), since they may be lengths; where one
            without a default has to be, `functools.partial(fn, period=10)` fixes it.

    Raises:
        TypeError: for a parameter that `fn` does not have, or that it needs and is not given; at
            `init`, for an algorithm that is no Markov kernel of a log density.

    Example:
        >>> import blackjax, energia as en, jax, jax.numpy as jnp
        >>> walk = en.samplers.BlackJAX(
        ...     blackjax.additive_step_random_walk.normal_random_walk, sigma=jnp.ones(2))
        >>> draws = en.sample(en.Gaussian(jnp.zeros(2)), walk, key=jax.random.key(0), thin=10)
        >>> sorted(draws.stats)
        ['acceptance_rate', 'lp']
    """

    algorithm: Callable[..., Any] = eqx.field(static=True)
    numbers: dict[str, Any]
    settings: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(self, fn: Any, /, **parameters: Any):
        # BlackJAX's top-level objects cannot be hashed; the function in them can
        self.algorithm = getattr(fn, "differentiable", fn)
        if not callable(self.algorithm):
            raise TypeError(f"BlackJAX() takes an algorithm such as blackjax.rmh, got {fn!r}")
        first = next(iter(inspect.signature(self.algorithm).parameters), "")
        if "likelihood" in first or "latent_gaussian" in _name(self.algorithm):
            raise ValueError(
                f"BlackJAX() gives an algorithm the log density of all; {_name(self.algorithm)} "
                f"takes {first} beside a Gaussian, which would count twice: use 'elliptical_slice'"
            )
        defaults = _check_names(self.algorithm, parameters)
        traced = {
            name: value
            for name, value in parameters.items()
            if _is_numeric(value) and not (type(value) is type(defaults.get(name)) is int)
        }
        self.numbers = {name: _as_arrays(value) for name, value in traced.items()}
        self.settings = tuple(
            (name, value) for name, value in sorted(parameters.items()) if name not in traced
        )
        for name, value in self.settings:
            try:
                hash(value)
            except TypeError as error:
                raise TypeError(
                    f"BlackJAX({name}=...) must hold numbers alone, or be a function, a string or "
                    f"another value that can be hashed; got {value!r}"
                ) from error

    def replace(self, **changes: Any) -> "BlackJAX":
        """A copy with other parameters."""
        return BlackJAX(self.algorithm, **{**self.numbers, **dict(self.settings), **changes})

    def init(self, energy: Energy, position: Values, key: jax.Array) -> Any:
        state = super().init(energy, position, key)
        if not hasattr(state, "position"):
            raise TypeError(
                f"the state of {_name(self.algorithm)} has no position, it is a "
                f"{type(state).__name__}: it is no Markov kernel of one chain that en.sample could "
                "run"
            )
        return _hide_keys(state)

    def step(self, energy: Energy, state: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        new, info = self._algorithm(log_density(energy)).step(key, _show_keys(state))
        return _hide_keys(new), self._info(new, info)

    def _algorithm(self, log_density: Any) -> SamplingAlgorithm:
        algorithm = self.algorithm(log_density, **self.numbers, **dict(self.settings))
        name = _name(self.algorithm)
        if not isinstance(algorithm, SamplingAlgorithm):
            raise TypeError(
                f"{name} gives a {type(algorithm).__name__}, no SamplingAlgorithm: it is no Markov "
                "kernel that en.sample could run"
            )
        wanted = list(inspect.signature(algorithm.step).parameters)
        if len(wanted) != 2:
            raise TypeError(
                f"a step of {name} takes {tuple(wanted)}, expected a key and a state alone: "
                "kernels that are fed minibatches have another protocol"
            )
        return algorithm

    def _info(self, state: Any, info: Any) -> dict[str, jax.Array]:
        told = {name: getattr(info, field, None) for field, name in NAMES.items()}
        told["lp"] = getattr(state, "logdensity", None)
        types = {"diverging": bool, "n_steps": jnp.int32}
        arrays = {n: jnp.asarray(x, types.get(n)) for n, x in told.items() if x is not None}
        return {name: array for name, array in arrays.items() if array.shape == ()}


# --- parameters


def _name(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)
    module = getattr(function, "__module__", "").removeprefix("blackjax.")
    name = getattr(function, "__qualname__", repr(function))
    return f"blackjax.{module}.{name}".removesuffix(".as_top_level_api")


def _check_names(function: Callable[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """Raise for a name that the function does not have or that it lacks; else its defaults."""
    entries = list(inspect.signature(function).parameters.values())[1:]
    if any(entry.kind is entry.VAR_KEYWORD for entry in entries):
        entries = [entry for entry in entries if entry.kind is not entry.VAR_KEYWORD]
        unknown = []
    else:
        unknown = [name for name in parameters if name not in {entry.name for entry in entries}]
    known = ", ".join(entry.name for entry in entries) or "none"
    if unknown:
        near = difflib.get_close_matches(unknown[0], [entry.name for entry in entries], n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise TypeError(
            f"{_name(function)} has no parameter {unknown[0]!r}: {guess}Its parameters after the "
            f"log density are {known}"
        )
    needed = [
        entry.name
        for entry in entries
        if entry.default is entry.empty and entry.kind is not entry.VAR_POSITIONAL
    ]
    if missing := [name for name in needed if name not in parameters]:
        raise TypeError(
            f"{_name(function)} needs {', '.join(f'{name}=' for name in missing)} too; its "
            f"parameters after the log density are {known}"
        )
    return {entry.name: entry.default for entry in entries}


def _is_numeric(value: Any) -> bool:
    """Whether a parameter is made of numbers alone; a truth value is a switch."""
    if isinstance(value, bool):
        return False
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(leaf, bool | int | float | np.generic) or eqx.is_array_like(leaf)
        for leaf in leaves
    )


def _as_arrays(value: Any) -> Any:
    """Numbers as arrays: a list is one array, a dict or tuple is a tree of them."""
    return jax.tree.map(as_array, value, is_leaf=lambda node: isinstance(node, list))


# --- keys in a state, which the driver could neither copy to the host nor store


class _Key(eqx.Module):
    data: jax.Array
    impl: str = eqx.field(static=True)


def _hide_keys(state: Any) -> Any:
    def hide(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _Key(jax.random.key_data(leaf), str(jax.random.key_impl(leaf)))
        return leaf

    return strong_tree(jax.tree.map(hide, state))


def _show_keys(state: Any) -> Any:
    def show(leaf: Any) -> Any:
        return jax.random.wrap_key_data(leaf.data, impl=leaf.impl) if _is_key(leaf) else leaf

    return jax.tree.map(show, state, is_leaf=_is_key)


def _is_key(node: Any) -> bool:
    return isinstance(node, _Key)
