"""Conditioning, renaming, substituting, constraining and printing energies."""

import inspect
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en


@en.energy
def three(x, y, z):
    return x - 2 * y**2 + 3 * jnp.sin(z) * x


@en.energy(k=en.Categorical(4), t=en.Positive((2,)), b=en.Binary())
def typed(k, t, b):
    return k * jnp.sum(t) + b


def expected(x, y, z):
    return x - 2 * y**2 + 3 * np.sin(z) * x


# --- condition


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"w": 1}, ValueError, r"\['w'\]; the variables of typed\(k, t, b\) are"),
        ({}, ValueError, "at least one variable"),
        ({"t": 1.0}, ValueError, r"needs shape \(2,\)"),
        ({"t": [1.0, -1.0]}, ValueError, r"outside its support positive .*-1\.0 at index \(1,\)"),
        ({"t": [1.0, np.nan]}, ValueError, r"nan at index \(1,\)"),
        ({"k": 4}, ValueError, "outside its support categorical 4"),
        ({"k": 1.5}, ValueError, "outside its support"),
        ({"k": [1, 2]}, ValueError, r"needs shape \(\)"),
        ({"b": 2}, ValueError, "outside its support binary"),
        ({"k": "a"}, TypeError, r"condition\(k=...\): expected numbers, got 'a'"),
        ({"t": None}, TypeError, r"condition\(t=...\): expected numbers, got None"),
        ({"t": [1j, 1.0]}, TypeError, "real numbers"),
    ],
)
def test_refused_conditions(values, error, message):
    with pytest.raises(error, match=message):
        typed.condition(**values)


def test_integer_too_wide_for_its_dtype():
    with pytest.raises(OverflowError, match="do not fit int32"):
        three.condition(x=2**40)


@pytest.mark.parametrize("value", [3, 3.0, np.uint8(3), np.int64(3), jnp.array(3, jnp.int8)])
def test_value_takes_the_dtype_of_its_support(value):
    fixed = typed.condition(k=value, b=True, t=[1, 2])
    assert fixed.variables == ()
    held = {name: r.value.dtype for name, r in fixed.replacements.items()}  # pyright: ignore
    assert held == {"k": np.int32, "b": np.float32, "t": np.float32}
    assert float(fixed()) == 10.0


def test_value_may_be_traced_outside_its_support():
    values = jax.jit(lambda k: typed.condition(k=k, b=0)(jnp.ones(2)))(7)
    assert float(values) == 14.0


def test_batch_of_conditioned_energies():
    energies = eqx.filter_vmap(lambda k: typed.condition(k=k))(jnp.arange(4))
    got = eqx.filter_vmap(lambda energy: energy(t=jnp.ones(2), b=1.0))(energies)
    np.testing.assert_allclose(got, 2 * np.arange(4) + 1)


# --- rename, substitute


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"x": "y"}, "the name 'y'"),
        ({"x": "w", "y": "w"}, "the name 'w'"),
        ({"w": "x"}, r"\['w'\]"),
        ({"x": "two words"}, "parameters"),
        ({"x": "lambda"}, "parameters"),
        ({}, "at least one"),
    ],
)
def test_refused_names(names, message):
    with pytest.raises(ValueError, match=message):
        three.rename(**names)


def test_swapped_names():
    swapped = three.rename(x="y", y="x")
    assert swapped.variables == ("y", "x", "z")
    assert float(swapped(x=1.0, y=2.0, z=3.0)) == pytest.approx(expected(2, 1, 3), rel=1e-6)
    again = swapped.rename(x="y", y="x").condition(x=5.0)
    assert float(again(y=1.0, z=3.0)) == pytest.approx(expected(5, 1, 3), rel=1e-6)


def test_refused_functions():
    with pytest.raises(ValueError, match=r"\['w'\]"):
        three.substitute(w=lambda x: x)
    with pytest.raises(TypeError, match=r"takes \*values"):
        three.substitute(x=lambda *values: values[0])
    with pytest.raises(TypeError, match=r"condition|Callable"):
        three.substitute(x=3.0)  # pyright: ignore[reportArgumentType]


def test_functions_keep_parameters_with_a_default():
    energy = three.substitute(x=lambda u, shift=1.0: u + shift)
    assert energy.variables == ("u", "y", "z")
    assert float(energy(1.0, 2.0, 3.0)) == pytest.approx(expected(2, 2, 3), rel=1e-6)


def test_function_of_kept_variables():
    tied = three.substitute(x=lambda y: y, z=lambda x, y: x * y)
    assert tied.variables == ("y", "x")
    assert float(tied(2.0, 3.0)) == pytest.approx(expected(2, 2, 6), rel=1e-6)


CHANGES = {
    "condition": lambda e: e.condition(z=0.5),
    "rename": lambda e: e.rename(x="u"),
    "substitute": lambda e: e.substitute(y=lambda v, w: v * w),
    "condition a new name": lambda e: e.condition(w=2.0) if "w" in e.variables else e,
    "rename a new name": lambda e: e.rename(v="y") if "v" in e.variables else e,
    "weight": lambda e: 2 * e,
    "constrain": lambda e: e.constrain(**{e.variables[0]: en.Real()}),
    "freeze": lambda e: e.freeze(),
}


@pytest.mark.parametrize("order", [*itertools.permutations(["condition", "rename", "substitute"])])
@pytest.mark.parametrize("between", [*CHANGES][3:])
def test_every_order_of_changes(order, between):
    energy = three
    for change in order:
        energy = CHANGES[between](CHANGES[change](energy))
    values = {"u": 1.5, "v": 0.7, "y": 0.7, "w": 2.0}
    got = energy.at({name: values[name] for name in energy.variables})
    factor = 8 if between == "weight" else 1
    assert float(got) == pytest.approx(factor * expected(1.5, 1.4, 0.5), rel=1e-5)


def test_mixture_weights_may_be_traced_one_by_one():
    parts = [en.Gaussian(0.0), en.Gaussian(3.0)]
    value = jax.jit(lambda w: en.mixture(parts, weights=[w, 1 - w])(1.0))(0.3)
    direct = en.mixture(parts, weights=[0.3, 0.7])(1.0)
    assert float(value) == pytest.approx(float(direct), rel=1e-6)


@pytest.mark.parametrize(
    "weights", [[1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0], 1.0, [[1.0, 1.0]]]
)
def test_refused_mixture_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        en.mixture([en.Ring(), en.Ring()], weights=weights)


def test_refused_mixtures():
    with pytest.raises(ValueError, match="at least one"):
        en.mixture([])
    untyped = inspect.unwrap(en.mixture)  # below the type checker
    with pytest.raises(TypeError, match=r"got 3\.0 among them"):
        untyped([en.Ring(), 3.0])
    with pytest.raises(TypeError, match=r"in a list, mixture\(\[E1, E2\]\); got .*Ring"):
        untyped(en.Ring(), en.Ring())
    with pytest.raises(ValueError, match=r"2 energies takes as many weights; got .* \(3,\)"):
        en.mixture([en.Ring(), en.Ring()], weights=[1.0, 1.0, 1.0])


# --- supports


def test_clashing_supports():
    real, positive = en.Gaussian(0.0), en.Gaussian(0.0).constrain(x=en.Positive())
    for join in (lambda: real + positive, lambda: en.mixture([real, positive])):
        with pytest.raises(
            ValueError, match=r"supports of 'x' clash in .*Real.*Positive.*constrain"
        ):
            join()
    agreed = real.constrain(x=en.Positive()) + positive
    assert agreed.supports == {"x": en.Positive()}


def test_unknown_support_gives_way():
    unknown = en.energy(lambda x: x**2)
    for energy in (unknown + en.Ring(), en.Ring() - unknown, en.mixture([unknown, en.Ring()])):
        assert energy.supports == {"x": en.Real((2,))}
    assert (unknown + unknown).supports == {"x": None}


def test_supports_follow_their_variables():
    changed = typed.rename(t="s", k="t").condition(b=1)
    assert changed.supports == {"t": en.Categorical(4), "s": en.Positive((2,))}
    assert typed.substitute(k=lambda b, c: b).supports == {
        "b": en.Binary(),
        "c": None,
        "t": en.Positive((2,)),
    }
    assert (2 * typed.freeze()).supports == typed.supports


def test_constrain_replaces_supports_and_keeps_values():
    box = en.Interval(0, 1, (2,))
    energy = en.Ring().constrain(x=en.Positive((2,))).constrain(x=box)
    assert energy.supports == {"x": box}
    outside = jnp.array([3.0, -4.0])
    assert float(energy(outside)) == float(en.Ring()(outside))
    with pytest.raises(ValueError, match=r"\['z'\]"):
        energy.constrain(z=box)
    with pytest.raises(ValueError, match="outside its support"):
        energy.condition(x=[2.0, 0.5])


# --- print

G, W = en.Gaussian(jnp.zeros(2)), en.DoubleWell(shape=(2,))
PRINTED = [
    (2 * G + en.Ring(), "2·Gaussian(x) + Ring(x)  [x: real (2,); 5 parameters]"),
    (G - W / 4, "Gaussian(x) - 0.25·DoubleWell(x)  [x: real (2,); 4 parameters]"),
    (-G - (G - W), "-Gaussian(x) - (Gaussian(x) - DoubleWell(x))  [x: real (2,); 4 parameters]"),
    (G + (-W).freeze(), "Gaussian(x) - DoubleWell(x)  [x: real (2,); 3 parameters]"),
    (3 * (-G).freeze(), "3·(-Gaussian(x))  [x: real (2,); 0 parameters]"),
    (2 * (G + W).freeze(), "2·(Gaussian(x) + DoubleWell(x))  [x: real (2,); 0 parameters]"),
    (
        G + G.rename(x="z"),
        "Gaussian(x) + Gaussian(z)  [x: real (2,), z: real (2,); 3 parameters]",
    ),
    ((G + W).condition(x=[1, 2]), "Gaussian(x=[1. 2.]) + DoubleWell(x=[1. 2.])  [4 parameters]"),
    (
        three.substitute(z=lambda x, u: x).condition(y=2),
        "three(x, y=2, z=f(x, u))  [0 parameters]",
    ),
    (
        (G + 2 * three.condition(y=2).rename(x="a")).rename(a="b").condition(b=1.0),
        "Gaussian(x) + 2·three(b=1.0, y=2, z)  [x: real (2,); 3 parameters]",
    ),
    (
        en.mixture([G, 0.5 * W], weights=[1, 3]),
        "mixture(1: Gaussian(x), 3: 0.5·DoubleWell(x))  [x: real (2,); 4 parameters]",
    ),
    (
        en.Uniform(0, 2.5) + en.energy(lambda x, k: x * k, k=en.Categorical(3)),
        "Uniform(x) + <lambda>(x, k)  [x: (0, 2.5) (), k: categorical 3 (); 0 parameters]",
    ),
]


@pytest.mark.parametrize(("energy", "text"), PRINTED, ids=[text for _, text in PRINTED])
def test_print(energy, text):
    assert str(energy) == text


def test_print_of_a_batch_and_of_a_traced_energy():
    batch = jax.vmap(lambda w: w * G)(jnp.arange(3.0))
    assert str(batch).startswith("w·Gaussian(x)")
    seen = []
    jax.jit(lambda v: seen.append(str(G.condition(x=v))))(jnp.zeros(2))
    assert seen == ["Gaussian(x=·)  [3 parameters]"]


def test_supports_are_asked_for_once_an_object():
    """A sum of n terms is built term by term: asking each anew would make n² / 2 questions."""
    asked = []

    class Term(en.Energy):
        index: int = eqx.field(static=True)

        def __call__(self, x):
            return self.index * jnp.sum(x)

        def _supports(self):
            asked.append(self.index)
            return {"x": en.Real(2)}

    total = sum(Term(index) for index in range(20))
    assert isinstance(total, en.Energy)
    assert sorted(asked) == list(range(20))
    total.supports["x"] = None  # a copy
    assert total.supports == {"x": en.Real(2)}
    narrowed = total.constrain(x=en.Positive(2))  # another object has others
    assert narrowed.supports == {"x": en.Positive(2)}


def test_a_simplex_says_what_it_wants():
    energy = en.energy(lambda p: jnp.sum(p)).constrain(p=en.Simplex(3))
    with pytest.raises(ValueError, match="entries are positive and sum to 1"):
        (energy + en.Gaussian(0.0)).condition(p=[0.2, 0.2, 0.2])
