"""The laws of energies."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values, as_array, check_key, strong_tree
from energia.energies import Energy, mixture
from energia.energies._unconstrained import Unconstrained, by_dependency
from energia.supports import Support
from energia.testing._law import avals, differences, law, other_numbers

POINTS = 3
DIRECTIONS = 3
TOLERANCE = 1e-4


def check_energy(
    energy: Energy, values: Mapping[str, Any] | None = None, *, key: jax.Array | None = None
) -> None:
    """Check that an energy keeps the laws which the rest of the library relies on.

    It is a real scalar of one configuration; compiled, batched by `jax.vmap` and called by
    position it has the value that it has when called by name; other numbers compile nothing;
    flattening and serialising lose nothing; its gradient is finite and agrees with finite
    differences; its supports fit its values; and the algebra holds.

    Args:
        energy: the energy; Python floats in it are taken as arrays, as `en.sample` does.
        values: a value by variable name, for one configuration; drawn from the supports where
            missing. A variable of unknown support needs one.
        key: a typed JAX key for the points at which the laws are tried.

    Raises:
        AssertionError: with the law that broke and the numbers that broke it.
        TypeError: when `energy` is none.
        ValueError: when a variable has neither a value nor a support.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> en.testing.check_energy(en.Ring())
        >>> @en.energy(x=en.Real((2,)))
        ... def batched(x):
        ...     return jnp.sum(x**2, axis=-1, keepdims=True)
        >>> en.testing.check_energy(batched)
        Traceback (most recent call last):
        AssertionError: batched(x) breaks the law that it is a real scalar: shape (1,), ...
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"check_energy() takes an energy, got {energy!r}")
    key = jax.random.key(0) if key is None else check_key(key)
    energy = strong_tree(energy)
    key_points, key_directions = jax.random.split(key)
    points = _points(energy, values or {}, key_points)
    _check_supports(energy, points)
    _check_value(energy, points)
    _check_tree(energy, points[0])
    _check_gradient(energy, points, key_directions)
    _check_algebra(energy, points[0])


def _points(energy: Energy, values: Mapping[str, Any], key: jax.Array) -> list[Values]:
    """Configurations to try: the values given first, the rest drawn."""
    if unknown := [name for name in values if name not in energy.variables]:
        raise ValueError(f"values= has {unknown}; the variables are {energy.variables}")
    given = {name: as_array(value, name) for name, value in values.items()}
    points: list[Values] = []
    for point in range(POINTS):
        drawn = {}
        for index, (name, support) in enumerate(by_dependency(energy.supports, energy._formula())):
            value = given.get(name)
            if support is None and value is None:
                raise ValueError(
                    f"the support of {name!r} is unknown: give values={{{name!r}: ...}}, or say "
                    f".constrain({name}=en.Real(...))"
                )
            subkey = jax.random.fold_in(jax.random.fold_in(key, point), index)
            if value is not None and (point == 0 or support is None):
                near = 0.1 * jax.random.normal(subkey, value.shape) * (point > 0)
                drawn[name] = value + near if eqx.is_inexact_array(value) else value
            elif support is not None:
                support = energy._support_at(name, drawn)
                assert support is not None
                drawn[name] = support.draw(subkey)
        points.append({name: drawn[name] for name in energy.variables})
    return points


def _check_supports(energy: Energy, points: list[Values]) -> None:
    with law(energy._formula(), "its supports name its variables and hold their values") as require:
        supports = energy.supports
        require(
            tuple(supports) == energy.variables,
            f"supports of {tuple(supports)}, variables {energy.variables}",
        )
        for name, support in supports.items():
            require(support is None or isinstance(support, Support), f"{name!r} has {support!r}")
            for point in points if support is not None else []:
                value, there = point[name], energy._support_at(name, point)
                assert there is not None
                require(value.shape == there.shape, f"{name!r} in {support} is {avals(value)}")
                require(jnp.all(there.contains(value)), f"{name}={value} is outside {support}")


def _check_value(energy: Energy, points: list[Values]) -> None:
    subject, point = energy._formula(), points[0]
    with law(subject, "it is a real scalar") as require:
        results = [jnp.asarray(energy.at(point)) for point in points]
        for result in results:
            kind = f"shape {result.shape}, dtype {result.dtype}"
            require(result.shape == () and jnp.issubdtype(result.dtype, jnp.floating), kind)
    values = np.array([float(result) for result in results])
    with law(subject, "it is finite on its supports") as require:
        require(np.isfinite(values).all(), f"{values.tolist()} at {points}")
    with jax.enable_x64(True), law(subject, "32 bits give the value that 64 give") as require:
        wide = float(_wide(energy).at(_wide(point)))
        require(_close(values[0], wide, 10 * abs(wide)), f"{values[0]:.8g} against {wide:.8g}")
    with law(subject, "position and name give the same value") as require:
        try:
            by_position = energy(*point.values())
        except TypeError:  # a sum of several variables takes names alone, and says so
            require(len(point) > 1, "its only variable cannot be given by position")
        else:
            require(_close(by_position, values[0]), f"{by_position} against {values[0]}")

    traces = []

    @eqx.filter_jit
    def compiled(energy: Energy, point: Values) -> jax.Array:
        traces.append(1)
        return energy.at(point)

    with law(subject, "compiled it has the value that it has when not compiled") as require:
        value = compiled(energy, point)
        require(_close(value, values[0]), f"{value} against {values[0]}")
    with law(subject, "other numbers of the same shapes compile nothing") as require:
        compiled(other_numbers(energy), points[1])
        require(len(traces) == 1, f"traced {len(traces)} times for two sets of numbers")
    with law(subject, "jax.vmap gives what a loop gives") as require:
        batch = jax.tree.map(lambda *rows: jnp.stack(rows), *points)
        batched = jax.vmap(energy.at)(batch)
        require(_close(batched, values), f"{batched.tolist()} against {values.tolist()}")


def _check_tree(energy: Energy, point: Values) -> None:
    subject, value = energy._formula(), energy.at(point)
    with law(subject, "flattening and unflattening lose nothing") as require:
        leaves, structure = jax.tree.flatten(energy)
        again = jax.tree.unflatten(structure, leaves)
        require(again.variables == energy.variables, f"variables {again.variables}")
        require(again.supports == energy.supports, f"supports {again.supports}")
        require(_close(again.at(point), value), f"{again.at(point)} against {value}")
    with law(subject, "eqx.tree_serialise_leaves and its inverse lose nothing") as require:
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, energy)
        file.seek(0)
        read = eqx.tree_deserialise_leaves(file, other_numbers(energy))
        found = differences(avals(energy), avals(read))
        require(not found, found)
        require(_close(read.at(point), value), f"{read.at(point)} against {value}")


def _check_gradient(energy: Energy, points: list[Values], key: jax.Array) -> None:
    """The gradient in unconstrained space, where a small step leaves no support.

    In 64 bits, where differences of an energy that computes in them are exact to nine digits.
    """
    moving = [n for n, value in points[0].items() if _is_continuous(energy.supports[n], value)]
    if not moving:
        return

    @jax.jit
    def slopes_at(point: Values) -> Values:
        rest = {name: value for name, value in point.items() if name not in moving}
        return jax.grad(lambda x: energy.at({**rest, **x}))({name: point[name] for name in moving})

    for point in points:
        with law(energy._formula(), "its gradient is finite") as require:
            for name, slope in slopes_at(point).items():
                require(jnp.all(jnp.isfinite(slope)), f"d/d{name} = {slope} at {point}")
    with jax.enable_x64(True), law(energy._formula(), "its gradient is its derivative") as require:
        wide = Unconstrained(_wide(energy))
        position = wide.unconstrain(_wide(points[-1]))
        start = {name: np.asarray(position[name]) for name in moving}

        @jax.jit
        def value_and_slopes(moved: Values) -> tuple[jax.Array, Values]:
            return jax.value_and_grad(lambda moved: wide.at({**position, **moved}))(moved)

        for direction in range(DIRECTIONS):
            keys = jax.random.split(jax.random.fold_in(key, direction), len(moving))
            arrow = {
                n: np.asarray(jax.random.normal(k, start[n].shape))
                for n, k in zip(moving, keys, strict=True)
            }
            slope, difference, error = _slopes(value_and_slopes, start, arrow)
            require(
                abs(slope - difference) <= error,
                f"along a random direction {slope:.8g} by jax.grad, {difference:.8g} by finite "
                f"differences (± {error:.1g}), at {points[-1]}",
            )


def _slopes(
    value_and_slopes: Callable[[Any], tuple[jax.Array, Values]],
    start: Mapping[str, np.ndarray],
    arrow: Mapping[str, np.ndarray],
) -> tuple[float, float, float]:
    """The slope along an arrow: by the gradient, by differences, and how far they may differ."""

    def along(step: float) -> float:
        return float(value_and_slopes({n: x + step * arrow[n] for n, x in start.items()})[0])

    value, gradient = value_and_slopes(start)
    parts = [np.asarray(gradient[name]) * arrow[name] for name in arrow]
    slope, size = (sum(float(np.sum(f(part))) for part in parts) for f in (np.positive, np.abs))
    epsilon = float(jnp.finfo(value.dtype).eps)
    step = epsilon ** (1 / 3)
    fine, coarse = ((along(h) - along(-h)) / (2 * h) for h in (step, 2 * step))
    rounding = 100 * epsilon * (1 + abs(float(value))) / step
    return slope, fine, TOLERANCE * size + 10 * abs(fine - coarse) + rounding


def _check_algebra(energy: Energy, point: Values) -> None:
    subject, value = energy._formula(), float(energy.at(point))
    renamed = {name: f"{name}_renamed" for name in energy.variables}
    new = {renamed[name]: x for name, x in point.items()}
    both = energy + energy.rename(**renamed)
    laws = {
        "2 * E is twice E": (2 * energy, point, 2 * value),
        "E / 4 is a quarter of E": (energy / 4, point, value / 4),
        "-E is minus E": (-energy, point, -value),
        "E - E is nothing": (energy - energy, point, 0.0),
        "E.rename(...) has the values of E": (energy.rename(**renamed), new, value),
        "E + E.rename(...) is twice E": (both, {**point, **new}, 2 * value),
        "en.mixture([E, E]) is E": (mixture([energy, energy]), point, value),
        "E.freeze() has the values of E": (energy.freeze(), point, value),
    }
    for name, x in point.items() if len(point) > 1 else []:
        if (support := energy.supports[name]) is not None and support.depends:
            continue  # it cannot be fixed before its bounds
        rest = {other: y for other, y in point.items() if other != name}
        laws[f"E.condition({name}=...) has the values of E"] = (
            energy.condition(**{name: x}),
            rest,
            value,
        )
    for text, (composite, where, expected) in laws.items():
        with law(subject, text) as require:
            require(
                set(composite.variables) == set(where),
                f"it has the variables {composite.variables}, expected {tuple(where)}",
            )
            result = composite.at(where)
            require(_close(result, expected, abs(value)), f"{result} against {expected}")
    with law(subject, "supports go with their variables under E.rename") as require:
        sources = {name: (other,) for name, other in renamed.items()}
        expected = {
            renamed[name]: None if support is None else support.renamed(sources)
            for name, support in energy.supports.items()
        }
        found = energy.rename(**renamed).supports
        require(found == expected, f"{found} against {expected}")


def _is_continuous(support: Support | None, value: jax.Array) -> bool:
    return eqx.is_inexact_array(value) if support is None else not support.discrete


def _wide(tree: Any) -> Any:
    """Every float array in 64 bits."""
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(np.asarray(leaf, np.float64)) if eqx.is_inexact_array(leaf) else leaf
        ),
        tree,
    )


def _close(value: Any, expected: Any, scale: float = 0.0) -> bool:
    value, expected = np.asarray(value), np.asarray(expected)
    return bool(np.all(np.abs(value - expected) <= TOLERANCE * (1 + scale + np.abs(expected))))
