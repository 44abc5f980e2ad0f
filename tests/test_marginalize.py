"""Variables summed out, against brute-force enumeration of every state."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

import energia as en
from energia.supports import Discrete

Values = dict[str, Any]
Case = tuple[en.Energy, tuple[str, ...], Values]
CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def brute(energy: en.Energy, names: Sequence[str], values: Values) -> jax.Array:
    """-log of the sum of exp(-E) over every joint state, one after another."""
    values = {name: jnp.asarray(value) for name, value in values.items()}
    lists = []
    for name in names:
        support = energy.supports[name]
        assert isinstance(support, Discrete)
        entries = itertools.product(support.states, repeat=math.prod(support.shape))
        lists.append([np.reshape(state, support.shape).astype(support.dtype) for state in entries])
    joint = list(zip(*itertools.product(*lists), strict=True))
    states = {name: jnp.asarray(np.stack(s)) for name, s in zip(names, joint, strict=True)}
    energies = jax.vmap(lambda state: energy.at({**values, **state}))(states)
    low = jax.lax.stop_gradient(jnp.min(energies))
    return low - jnp.log(jnp.sum(jnp.exp(low - energies)))


def joined(terms: Sequence[en.Energy]) -> en.Energy:
    return functools.reduce(operator.add, terms)


def logsumexp(numbers: np.ndarray, axis: Any = None) -> np.ndarray:
    return np.asarray(special.logsumexp(numbers, axis=axis))


# --- energies


@en.energy(z=en.Categorical(3), x=en.Real(2))
def component(x, z, mu, log_weights):
    return 0.5 * jnp.sum((x - mu[z]) ** 2) - log_weights[z]


@en.energy(a=en.Categorical(2), b=en.Categorical(3), c=en.Spin())
def coupled(a, b, c, u):
    return jnp.sin(3.0 * a + b * u) * c + 0.3 * a * b - u * c


@en.energy(s=en.Spin((2, 2)))
def lattice(s, u):
    return jnp.sum(s * jnp.roll(s, 1)) * u + jnp.sum(s * jnp.arange(4.0).reshape(2, 2)) * 0.2


class Table(en.Energy):
    """A table of numbers over two finite variables, trained."""

    table: jax.Array

    def __call__(self, a, b):
        return self.table[a, b]

    def _supports(self):
        rows, columns = self.table.shape
        return {"a": en.Categorical(rows), "b": en.Categorical(columns)}


MU = np.array([[0.0, 1.0], [2.0, -1.0], [-0.5, 0.3]])
MIXED = {"x": np.array([0.3, -0.2]), "mu": MU, "log_weights": np.log([0.2, 0.3, 0.5])}


def random_table(*shape: int) -> Table:
    return Table(jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape)))


@case
def gaussian_mixture():
    return component, ("z",), MIXED


@case
def hidden_markov():
    @en.energy(a=en.Categorical(3), b=en.Categorical(3))
    def transition(a, b, logits):
        return -jax.nn.log_softmax(logits, axis=-1)[a, b]

    @en.energy(z=en.Categorical(3))
    def emission(z, means, y):
        return 0.5 * (y - means[z]) ** 2

    states = [f"z{t}" for t in range(5)]
    terms = [emission.rename(z=z).condition(y=0.7 * t - 1) for t, z in enumerate(states)]
    terms += [transition.rename(a=a, b=b) for a, b in itertools.pairwise(states)]
    chain = joined(terms)
    logits = np.random.default_rng(0).normal(size=(3, 3))
    return chain, tuple(states), {"logits": logits, "means": np.array([-1.0, 0.0, 1.5])}


@case
def ising():
    """Open 3 x 4, a term a bond: twelve variables, joint tables of a few of them."""

    @en.energy(p=en.Spin(), q=en.Spin())
    def bond(p, q, coupling):
        return -coupling * p * q

    @en.energy(p=en.Spin())
    def field(p, push):
        return -push * p

    sites = {(i, j): f"s{i}{j}" for i in range(3) for j in range(4)}
    terms = [field.rename(p=name) for name in sites.values()]
    for (i, j), name in sites.items():
        near = (sites.get((i + 1, j)), sites.get((i, j + 1)))
        terms += [bond.rename(p=name, q=other) for other in near if other]
    energy = joined(terms)
    return energy, tuple(sites.values()), {"coupling": np.array(0.4), "push": np.array(0.1)}


@case
def several_entries():
    return lattice, ("s",), {"u": np.array(0.6)}


@case
def several_variables():
    return coupled, ("a", "b", "c"), {"u": np.array(0.7)}


@case
def some_variables():
    return coupled, ("c", "a"), {"u": np.array(0.7), "b": np.array(1, np.int32)}


@case
def conditioned_before():
    return component.condition(x=MIXED["x"]), ("z",), {n: MIXED[n] for n in ("mu", "log_weights")}


@case
def names_swapped():
    return coupled.rename(a="b", b="a", u="z"), ("a", "b"), {"c": np.array(1.0), "z": np.array(0.7)}


@case
def substituted():
    def x(u):
        return jnp.stack([u, jnp.sin(u)])

    values = {n: MIXED[n] for n in ("mu", "log_weights")}
    return component.substitute(x=x), ("z",), {"u": np.array(0.4), **values}


@case
def a_state_tied_to_another():
    energy = (coupled + component).substitute(z=lambda a, b: (a + b) % 3)
    return energy, ("a", "b"), {"u": np.array(0.7), "c": np.array(-1.0), **MIXED}


@case
def tempered():
    return (component + lattice) / 1.7, ("z", "s"), {**MIXED, "u": np.array(0.6)}


@case
def negated_and_frozen():
    return (coupled - lattice).freeze(), ("s", "b"), {"u": 0.6, "a": np.array(1), "c": 1.0}


@case
def supports_that_another_term_knows():
    @en.energy
    def plain(a, z, u):
        return 0.4 * a * z**2 + u * a

    return plain + coupled + component, ("a", "z"), {
        "u": np.array(0.7), "b": np.array(2), "c": np.array(1.0), **MIXED,
    }  # fmt: skip


@case
def another_support():
    return lattice.constrain(s=en.Categorical(3, (2, 2))), ("s",), {"u": np.array(0.3)}


@case
def mixture_of_two():
    parts = [coupled, 0.5 * coupled.rename(u="w")]
    energy = en.mixture(parts, weights=[0.3, 0.7])
    return energy, ("a", "c"), {"u": np.array(0.7), "w": np.array(-1.0), "b": np.array(1)}


@case
def mixture_with_a_part_that_lacks_it():
    parts = [coupled, lattice, lattice.condition(u=0.1)]
    energy = en.mixture(parts, weights=[0.3, 0.6, 0.1])
    return energy, ("a", "s"), {"u": np.array(0.7), "b": np.array(1), "c": np.array(1.0)}


@case
def mixture_with_a_part_of_it_alone():
    first = random_table(2, 3).condition(a=1)
    energy = en.mixture([first, random_table(2, 3) + lattice], weights=[0.4, 0.6])
    return energy, ("b",), {"a": np.array(1), "s": np.ones((2, 2)), "u": np.array(0.3)}


@case
def independent_terms():
    return random_table(2, 3).condition(a=0) + lattice, ("b",), {
        "s": np.ones((2, 2)), "u": np.array(0.3),
    }  # fmt: skip


@case
def one_state_for_all_rows():
    energy = en.total(component, x=np.random.default_rng(1).normal(size=(4, 2)))
    return energy, ("z",), {n: MIXED[n] for n in ("mu", "log_weights")}


@case
def nested_under_its_own_name():
    """The inner b is bound; the outer b is another variable."""
    inner = random_table(3, 2).marginalize("b").rename(a="b")
    return inner + coupled, ("b",), {"a": np.array(1), "c": np.array(1.0), "u": np.array(0.7)}


@case
def states_of_probability_zero():
    @en.energy(a=en.Categorical(3), b=en.Categorical(4))
    def allowed(a, b, u):
        return jnp.where((a + b) % 3 == 0, u * (a - b) ** 2, jnp.inf)

    @en.energy(b=en.Categorical(4))
    def even(b, u):  # no a goes with an odd b
        return jnp.where(b % 2 == 0, u * b, jnp.inf)

    return allowed + even, ("a", "b"), {"u": np.array(0.7)}


# --- against enumeration


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("wide", "tolerance"), [(True, 1e-10), pytest.param(False, 1e-5, marks=pytest.mark.slow)]
)
def test_against_enumeration(name, wide, tolerance):
    with jax.enable_x64(wide):
        energy, names, values = CASES[name]()
        marginal = energy.marginalize(*names)
        assert set(marginal.variables) == set(energy.variables) - set(names)
        values = {n: jnp.asarray(v, marginal_dtype(v)) for n, v in values.items()}
        real = {n: v for n, v in values.items() if jnp.issubdtype(v.dtype, jnp.floating)}

        def summed(real: Values) -> jax.Array:
            return marginal.at({**values, **real})

        def enumerated(real: Values) -> jax.Array:
            return brute(energy, names, {**values, **real})

        batch = {n: jnp.stack([v, 0.8 * v]) for n, v in real.items()}
        both = [jax.jit(jax.vmap(jax.value_and_grad(f)))(batch) for f in (summed, enumerated)]
        assert both[0][0].dtype == (np.float64 if wide else np.float32)
        close(both[0], both[1], tolerance)


def marginal_dtype(value: Any) -> Any:
    return jnp.result_type(float) if np.asarray(value).dtype.kind == "f" else np.int32


def close(one: Any, other: Any, tolerance: float) -> None:
    size = max([1.0, *(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(other))])
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", ["gaussian_mixture", "hidden_markov", "tempered"])
def test_conditioning_commutes(name):
    """Fixing another variable before or after is the same; so is renaming."""
    energy, names, values = CASES[name]()
    fixed = next(n for n in energy.variables if n not in names)
    rest = {n: v for n, v in values.items() if n != fixed}
    before = energy.condition(**{fixed: values[fixed]}).marginalize(*names)
    after = energy.marginalize(*names).condition(**{fixed: values[fixed]})
    renamed = energy.marginalize(*names).rename(**{fixed: names[0]})
    expected = float(brute(energy, names, values))
    for got in (before.at(rest), after.at(rest), renamed.at({**rest, names[0]: values[fixed]})):
        assert float(got) == pytest.approx(expected, rel=1e-5)


def test_a_temperature_does_not_commute():
    values = {**MIXED}
    inside = (component / 2).marginalize("z").at(values)
    outside = (component.marginalize("z") / 2).at(values)
    assert float(inside) == pytest.approx(float(brute(component / 2, ("z",), values)), rel=1e-6)
    assert float(outside) == pytest.approx(float(brute(component, ("z",), values)) / 2, rel=1e-6)
    assert abs(float(inside) - float(outside)) > 0.1


def test_rows_of_data_have_states_of_their_own():
    rows = np.random.default_rng(1).normal(size=(4, 2))
    values = {n: MIXED[n] for n in ("mu", "log_weights")}
    each = en.total(component.marginalize("z"), x=rows).at(values)
    expected = sum(float(brute(component, ("z",), {**values, "x": row})) for row in rows)
    assert float(each) == pytest.approx(expected, rel=1e-6)
    shared = en.total(component, x=rows).marginalize("z").at(values)
    assert abs(float(shared) - expected) > 0.1


def test_one_after_another_is_all_at_once():
    energy, _, values = CASES["several_variables"]()
    expected = float(brute(energy, ("a", "b", "c"), values))
    for order in (("a", "b", "c"), ("c", "b", "a")):
        step = energy
        for name in order:
            step = step.marginalize(name)
        assert float(step.at(values)) == pytest.approx(expected, rel=1e-6)


def test_parameters_have_gradients():
    energy = random_table(2, 3) + 0.5 * random_table(3, 4).rename(a="b", b="c")
    marginal = energy.marginalize("b", "c")
    a = {"a": jnp.int32(1)}
    got = eqx.filter_jit(eqx.filter_grad(lambda e: e.at(a)))(marginal)
    want = eqx.filter_jit(eqx.filter_grad(lambda e: brute(e, ("b", "c"), a)))(energy)
    close(jax.tree.leaves(got), jax.tree.leaves(want), 1e-6)
    assert len(jax.tree.leaves(got)) == len(jax.tree.leaves(want))


def test_other_numbers_compile_nothing(compilations):
    tables = [random_table(2, 3), random_table(3, 4).rename(a="b", b="c")]
    energies = [w * (tables[0] + tables[1]).condition(a=1) for w in (0.5, 2.0)]
    marginals = [energy.marginalize("b") for energy in energies]
    evaluate = eqx.filter_jit(lambda energy, c: energy.at({"c": c}))
    states = [jnp.int32(0), jnp.int32(3)]
    evaluate(marginals[0], states[0])
    with compilations() as seen:
        evaluate(marginals[1], states[1])
    assert seen.count == 0, seen.compiled


# --- random sums of random tables


@st.composite
def sums_of_tables(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[str, ...]], list[str]]:
    sizes = {f"x{i}": draw(st.integers(2, 4)) for i in range(draw(st.integers(2, 5)))}
    scope = st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=3, unique=True)
    scopes = [tuple(s) for s in draw(st.lists(scope, min_size=1, max_size=6))]
    held = sorted({name for s in scopes for name in s})
    order = draw(st.permutations(held))
    count = draw(st.integers(1, len(held)))
    return sizes, scopes, list(order[:count])


@pytest.mark.slow
@given(sums_of_tables(), st.integers(0, 2**16))
def test_random_sums_of_tables(drawing, seed):
    sizes, scopes, summed = drawing
    generator = np.random.default_rng(seed)
    held = sorted({name for scope in scopes for name in scope})
    total, terms = np.zeros([sizes[name] for name in held]), []
    for scope in scopes:
        table = generator.normal(size=[sizes[name] for name in scope])
        axes = [held.index(name) for name in scope]
        expanded = np.expand_dims(
            np.transpose(table, np.argsort(axes)), [a for a in range(len(held)) if a not in axes]
        )
        total = total + expanded
        listed = ", ".join(scope)
        look = eval(f"lambda table, {listed}: table[{listed}]")
        known = {name: en.Categorical(sizes[name]) for name in scope if generator.random() < 0.7}
        with jax.enable_x64(True):
            terms.append(en.energy(look, **known).condition(table=table))  # pyright: ignore
    with jax.enable_x64(True):
        energy = joined(terms)
        energy = energy.constrain(**{name: en.Categorical(sizes[name]) for name in held})
        if len(summed) == len(held):
            with pytest.raises(ValueError, match="leave no variable"):
                energy.marginalize(*summed)
            return
        marginal = energy.marginalize(*summed)
        expected = -logsumexp(-total, axis=tuple(held.index(name) for name in summed))
        kept = [name for name in held if name not in summed]
        where = {name: int(generator.integers(sizes[name])) for name in kept}
        got = marginal.at({name: jnp.int32(state) for name, state in where.items()})
    np.testing.assert_allclose(got, expected[tuple(where.values())], rtol=1e-10, atol=1e-10)


# --- many states


@en.energy(h=en.Binary(18))
def many(h, w):
    return jnp.sum(h * w) + 0.1 * jnp.sum(h) ** 2 * w[0]


def test_many_states_in_little_memory():
    """2^18 states of 18 entries; all at once they would take 19 MB, and their gradients more."""
    marginal = many.marginalize("h")
    w = jnp.asarray(np.random.default_rng(0).normal(size=18))
    evaluate = jax.jit(jax.value_and_grad(lambda w: marginal(w=w)))
    compiled = evaluate.lower(w).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 2e6, analysis.temp_size_in_bytes
    got, slope = compiled(w)
    states = np.array(list(itertools.product((0, 1), repeat=18)), float)
    numbers = np.asarray(w, float)
    energies = states @ numbers + 0.1 * states.sum(1) ** 2 * numbers[0]
    expected = -logsumexp(-energies)
    shares = np.exp(expected - energies)
    wanted = shares @ states
    wanted[0] += shares @ (0.1 * states.sum(1) ** 2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-5)


def test_variables_of_the_same_terms_go_together():
    """One sum over their joint states, not one a variable: each would be compiled."""
    names = tuple("abcdef")

    @en.energy(**{name: en.Binary() for name in names})
    def coupled(a, b, c, d, e, f, w):
        return w * (a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f) ** 2

    free = coupled.marginalize(*names)
    jaxpr = jax.make_jaxpr(lambda w: free(w=w))(0.1)
    assert str(jaxpr).count("reduce_max") == 1
    w = {"w": 0.05}
    np.testing.assert_allclose(free.at(w), brute(coupled, names, w), rtol=1e-6)


def test_chunks_of_probability_zero_have_gradients():
    @en.energy(h=en.Binary(13))
    def only_two(h, w):  # one chunk of states has none that is possible
        return jnp.where(jnp.sum(h) <= 1, jnp.sum(h * w), jnp.inf) + jnp.sum(w**2)

    @en.energy(h=en.Binary(13))
    def first(h, w):
        return jnp.where(h[0] == 1, 0.3 * h[1] * w[0], jnp.inf)

    w, marginal = jnp.linspace(-1.0, 1.0, 13), (only_two + first).marginalize("h")
    got, slope = jax.jit(jax.value_and_grad(lambda w: marginal(w=w)))(w)
    assert float(got) == pytest.approx(float(w[0] + jnp.sum(w**2)), rel=1e-5)
    np.testing.assert_allclose(slope, 2 * w + np.eye(13)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "count"), [(21, "2,097,152"), (30, "1,073,741,824"), (300, "about 10\\^90")]
)
def test_too_many_states(size, count):
    with pytest.raises(ValueError, match=f"{count} states of 'h'.*sum of terms.*_factorize.*gibbs"):
        many.constrain(h=en.Binary(size)).constrain(w=en.Real(size)).marginalize("h")


def test_refused_marginals():
    with pytest.raises(ValueError, match=r"\['q'\]; the variables"):
        coupled.marginalize("q")
    with pytest.raises(ValueError, match="at least one variable"):
        coupled.marginalize()
    with pytest.raises(ValueError, match=r"support .* is unknown.*constrain"):
        coupled.marginalize("u")
    with pytest.raises(ValueError, match=r"'x' is real \(2,\), and no closed form"):
        component.constrain(mu=en.Real((3, 2)), log_weights=en.Real(3)).marginalize("x")
    with pytest.raises(ValueError, match="leave no variable"):
        random_table(2, 3).marginalize("a", "b")
    counts = en.energy(lambda k, u: k * u, k=en.Natural(), u=en.Real())  # pyright: ignore
    with pytest.raises(ValueError, match="'k' is natural"):
        counts.marginalize("k")
    bounded = en.energy(
        lambda a, u: a * u,  # pyright: ignore
        a=en.Categorical(3),
        u=en.Interval(0, lambda a: a + 1),
    )
    with pytest.raises(ValueError, match="support of 'u' depends on it"):
        bounded.marginalize("a")
    with pytest.raises(ValueError, match="cannot be subsampled"):
        en.total(component, x=np.zeros((3, 2))).marginalize("z")._subsample(jax.random.key(0), 2)
