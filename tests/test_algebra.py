"""Random expression trees of the algebra against an evaluator in plain NumPy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import energia as en

# An expression is nested tuples, so that one drawing can be built as an energy under any dtype and
# evaluated by NumPy, which knows nothing of energia. Every variable is a vector of two numbers.
NAMES = ("x", "y", "z", "u")
Tree = tuple[Any, ...]
Values = dict[str, np.ndarray]

numbers = st.integers(-20, 20).map(lambda n: n / 10)
positives = st.integers(1, 30).map(lambda n: n / 10)
vectors = st.tuples(numbers, numbers)


def coupled(xp, a, b):
    return xp.sum(a * b + 0.5 * a**2)


def chained(xp, a, b, c):
    return xp.sum(xp.cos(a - b) * c) + xp.sum(c**2)


def blend(xp, *inputs):
    return xp.tanh(inputs[0]) - 0.5 * sum(inputs[1:], 0.0)


def function_of(parameters: tuple[str, ...], body: Any) -> Any:
    """A function of jax.numpy with these parameter names."""
    listed = ", ".join(parameters)
    return eval(f"lambda {listed}: body(jnp, {listed})", {"body": body, "jnp": jnp})


# --- what a tree means: its variables, its energy, its value by NumPy


def names(tree: Tree) -> tuple[str, ...]:
    match tree:
        case ("gaussian" | "well" | "ring", name, *_):
            return (name,)
        case ("coupled" | "chained", given):
            return given
        case ("sum" | "mixture", parts, *_):
            return tuple(dict.fromkeys(name for part in parts for name in names(part)))
        case ("minus", inner, other):
            return tuple(dict.fromkeys(names(inner) + names(other)))
        case ("condition", inner, old, _):
            return tuple(name for name in names(inner) if name != old)
        case ("rename", inner, changes):
            return tuple(dict(changes).get(name, name) for name in names(inner))
        case ("substitute", inner, old, new):
            lists = (new if name == old else (name,) for name in names(inner))
            return tuple(dict.fromkeys(name for some in lists for name in some))
        case (_, inner, *_):
            return names(inner)
    raise AssertionError(tree)


def build(tree: Tree) -> en.Energy:
    match tree:
        case ("gaussian", name, mean, scale):
            return named(en.Gaussian(np.array(mean), scale=scale), name)
        case ("well", name, barrier):
            return named(en.DoubleWell(barrier, shape=(2,)), name)
        case ("ring", name, radius):
            return named(en.Ring(radius, scale=0.5), name)
        case ("coupled", given):
            return en.energy(function_of(given, coupled))
        case ("chained", given):
            return en.energy(function_of(given, chained), **{given[0]: en.Real((2,))})
        case ("sum", parts):
            return sum(build(part) for part in parts)  # pyright: ignore[reportReturnType]
        case ("minus", inner, other):
            return build(inner) - build(other)
        case ("negative", inner):
            return -build(inner)
        case ("weight", inner, weight):
            return weight * build(inner)
        case ("temperature", inner, temperature):
            return build(inner) / temperature
        case ("mixture", parts, weights):
            return en.mixture([build(part) for part in parts], weights=list(weights))
        case ("condition", inner, old, value):
            return build(inner).condition(**{old: np.array(value)})
        case ("rename", inner, changes):
            return build(inner).rename(**dict(changes))
        case ("substitute", inner, old, new):
            return build(inner).substitute(**{old: function_of(new, blend)})
        case ("constrain", inner, name):
            return build(inner).constrain(**{name: en.Real((2,))})
        case ("freeze", inner):
            return build(inner).freeze()
    raise AssertionError(tree)


def named(energy: en.Energy, name: str) -> en.Energy:
    return energy if name == "x" else energy.rename(x=name)


def evaluate(tree: Tree, values: Values, shift: float = 0.0) -> np.ndarray:
    """The value, and the size of the numbers that it was summed from.

    `shift` is added to the mean of every Gaussian.
    """

    def inner(changed: Values | None = None) -> np.ndarray:
        return evaluate(tree[1], values if changed is None else changed, shift)

    def plain(value: Any) -> np.ndarray:
        return np.array([value, abs(value)])

    match tree:
        case ("gaussian", name, mean, scale):
            whitened = (values[name] - np.array(mean) - shift) / scale
            return plain(0.5 * whitened @ whitened + 2 * np.log(scale) + np.log(2 * np.pi))
        case ("well", name, barrier):
            return plain(barrier * np.sum((values[name] ** 2 - 1) ** 2))
        case ("ring", name, radius):
            return plain(0.5 * ((np.hypot(*values[name]) - radius) / 0.5) ** 2)
        case ("coupled", given):
            return plain(coupled(np, *(values[name] for name in given)))
        case ("chained", given):
            return plain(chained(np, *(values[name] for name in given)))
        case ("sum", parts):
            return np.sum([evaluate(part, values, shift) for part in parts], axis=0)
        case ("minus", _, other):
            return inner() + np.array([-1, 1]) * evaluate(other, values, shift)
        case ("negative", _):
            return inner() * np.array([-1, 1])
        case ("weight", _, weight):
            return inner() * np.array([weight, abs(weight)])
        case ("temperature", _, temperature):
            return inner() / temperature
        case ("mixture", parts, weights):
            energies = np.array([evaluate(part, values, shift) for part in parts])
            lowest = energies[:, 0].min()
            density = np.sum(np.array(weights) * np.exp(lowest - energies[:, 0]))
            return np.array([lowest - np.log(density), energies[:, 1].max()])
        case ("condition", _, old, value):
            return inner({**values, old: np.array(value)})
        case ("rename", _, changes):
            back = {new: old for old, new in changes}
            return inner({back.get(name, name): values[name] for name in names(tree)})
        case ("substitute", _, old, new):
            return inner({**values, old: blend(np, *(values[name] for name in new))})
        case _:
            return inner()


# --- strategies


@st.composite
def leaves(draw: st.DrawFn) -> Tree:
    kind = draw(st.sampled_from(["gaussian", "well", "ring", "coupled", "chained"]))
    order = tuple(draw(st.permutations(NAMES)))
    if kind == "gaussian":
        return (kind, order[0], draw(vectors), draw(positives))
    if kind in ("coupled", "chained"):
        return (kind, order[: 2 if kind == "coupled" else 3])
    return (kind, order[0], draw(positives))


@st.composite
def with_other_variables(draw: st.DrawFn, inner: Tree) -> Tree:
    have = names(inner)
    if not have:
        return inner
    old = draw(st.sampled_from(have))
    kind = draw(st.sampled_from(["condition", "rename", "substitute"]))
    if kind == "condition":
        return (kind, inner, old, draw(vectors))
    if kind == "rename":
        changed = draw(st.permutations(NAMES))
        return (kind, inner, tuple(zip(have, changed, strict=False)))
    count = draw(st.integers(1, 2))
    return (kind, inner, old, tuple(draw(st.permutations(NAMES))[:count]))


@st.composite
def trees(draw: st.DrawFn, depth: int = 4) -> Tree:
    if depth == 0:
        return draw(leaves())
    inner = draw(trees(depth - 1))
    kind = draw(st.sampled_from([*OPERATIONS, "variables", "variables"]))
    if kind == "variables":
        return draw(with_other_variables(inner))
    if kind == "constrain":
        return (kind, inner, draw(st.sampled_from(names(inner)))) if names(inner) else inner
    if kind in ("negative", "freeze"):
        return (kind, inner)
    if kind in ("weight", "temperature"):
        return (kind, inner, draw(numbers if kind == "weight" else positives))
    if kind == "minus":
        return (kind, inner, draw(trees(depth - 2 if depth > 1 else 0)))
    others = draw(st.lists(trees(0), min_size=1, max_size=2))
    if kind == "sum":
        return (kind, (*others, inner))
    return (kind, (inner, *others), tuple(draw(positives) for _ in range(1 + len(others))))


OPERATIONS = ("sum", "minus", "negative", "weight", "temperature", "mixture", "constrain", "freeze")


@st.composite
def chains(draw: st.DrawFn) -> Tree:
    tree = draw(leaves())
    for _ in range(draw(st.integers(2, 6))):
        tree = draw(with_other_variables(tree))
    return tree


def values_of(tree: Tree, seed: int = 0) -> Values:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-2, 2, 2) for name in names(tree)}


def assert_value(tree: Tree, got: Any, precision: float, values: Values | None = None) -> None:
    expected, size = evaluate(tree, values_of(tree) if values is None else values)
    assert np.shape(got) == ()
    assert abs(float(got) - expected) <= precision * (1 + size), (float(got), expected)


# --- the laws


@settings(max_examples=60)
@given(trees())
def test_value_is_that_of_the_formula(tree):
    energy = build(tree)
    assert energy.variables == names(tree)
    assert set(energy.supports) == set(names(tree))
    assert_value(tree, energy.at(values_of(tree)), 1e-5)


@settings(max_examples=40)
@given(chains())
def test_chain_of_replaced_variables(tree):
    energy = build(tree)
    assert energy.variables == names(tree)
    assert_value(tree, energy(**values_of(tree)), 1e-5)


@settings(max_examples=60)
@given(trees())
def test_value_in_double_precision_and_strict_promotion(tree):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        value = build(tree).at({name: jnp.asarray(v) for name, v in values_of(tree).items()})
        assert value.dtype == np.float64
        assert_value(tree, value, 1e-12)


@settings(max_examples=30)
@given(trees())
def test_strict_promotion_in_single_precision(tree):
    with jax.numpy_dtype_promotion("strict"):
        values = {name: jnp.asarray(v, jnp.float32) for name, v in values_of(tree).items()}
        value = build(tree).at(values)
        assert value.dtype == np.float32
        assert_value(tree, value, 1e-5)


@settings(max_examples=10)
@given(trees(3))
def test_energy_is_an_argument_of_jit(tree):
    value = eqx.filter_jit(lambda energy, values: energy.at(values))(build(tree), values_of(tree))
    assert_value(tree, value, 1e-5)


@settings(max_examples=10)
@given(trees(3))
def test_vmap_over_a_weight(tree):
    values = values_of(tree)
    weights = np.linspace(-1, 2, 4)
    energy = build(tree)
    got = jax.vmap(lambda w: (w * energy).at(values))(weights)
    for weight, value in zip(weights, got, strict=True):
        assert_value(("weight", tree, float(weight)), value, 1e-5)


@settings(max_examples=10)
@given(trees(3).filter(names))
def test_vmap_over_a_conditioned_value(tree):
    name, *rest = names(tree)
    values = values_of(tree)
    batch = np.random.default_rng(1).uniform(-2, 2, (3, 2))
    energy = build(tree)
    kept = {other: values[other] for other in rest}
    got = jax.vmap(lambda value: energy.condition(**{name: value}).at(kept))(batch)
    for row, value in zip(batch, got, strict=True):
        assert_value(tree, value, 1e-5, {**kept, name: row})


@settings(max_examples=20)
@given(trees())
def test_gradient_of_array_leaves(tree):
    values = values_of(tree)
    with jax.enable_x64(True):
        slopes = eqx.filter_grad(lambda energy: energy.at(values))(build(tree))
        gaussians = jax.tree.leaves(slopes, is_leaf=lambda node: isinstance(node, en.Gaussian))
        got = sum(float(g.mean.sum()) for g in gaussians if isinstance(g, en.Gaussian))
    (high, size), (low, _) = evaluate(tree, values, 1e-5), evaluate(tree, values, -1e-5)
    assert abs(got - (high - low) / 2e-5) <= 1e-5 * (1 + size)


@settings(max_examples=20)
@given(trees().filter(names))
def test_score_is_minus_the_gradient(tree):
    values = values_of(tree)
    direction = values_of(tree, seed=1)
    with jax.enable_x64(True):
        score = build(tree).score(**values)
    assert isinstance(score, dict)
    assert set(score) == set(values)
    got = sum(float(np.sum(np.asarray(score[name]) * direction[name])) for name in values)
    high, low = (
        evaluate(tree, {n: values[n] + step * direction[n] for n in values})
        for step in (1e-5, -1e-5)
    )
    assert abs(got + (high[0] - low[0]) / 2e-5) <= 1e-4 * (1 + high[1])


# --- no retrace


@pytest.mark.parametrize(
    "change",
    [
        lambda energy, n: energy.condition(y=np.full(2, float(n))),
        lambda energy, n: n * energy,
        lambda energy, n: energy / (1.0 + n),
        lambda energy, n: en.mixture([energy, energy], weights=[1.0, n]),
    ],
    ids=["conditioned value", "weight", "temperature", "mixture weight"],
)
def test_another_number_does_not_retrace(change):
    traces = []

    @eqx.filter_jit
    def value(energy, values):
        traces.append(None)
        return energy.at(values)

    joint = build(("coupled", ("x", "y")))
    values = [
        value(energy, {name: jnp.ones(2) for name in energy.variables})
        for energy in (change(joint, n) for n in (1, 2, 3))
    ]
    assert len(traces) == 1
    assert len({float(v) for v in values}) == 3
