"""How energies are called, composed and printed, and what is refused."""

import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._algebra import Scaled, Sum


@en.energy(x=en.Real((2,)))
def joint(x, y):
    return jnp.sum(x**2) * y


@en.energy(n=en.Categorical(5), t=en.Positive())
def mixed(n, t, unknown):
    return n * t + unknown**2


class Product(en.Energy):
    """A class with one variable of each kind of parameter."""

    factor: jax.Array

    def __call__(self, x, *, y, power=2.0):
        return self.factor * jnp.sum(x**power) * y


X = jnp.array([1.0, 2.0])
SUM = joint + en.Gaussian(jnp.zeros(2))


# --- calls


@pytest.mark.parametrize("energy", [joint, Product(jnp.array(1.0)), joint.freeze(), 1.0 * joint])
def test_call_by_name_and_by_dict(energy):
    assert energy.variables == ("x", "y")
    assert float(energy(x=X, y=3.0)) == 15.0
    assert float(energy(X, y=3.0)) == 15.0
    assert float(energy.at({"y": 3.0, "x": X})) == 15.0
    assert float(energy.log_density(x=X, y=3.0)) == -15.0


def test_call_by_position():
    assert float(joint(X, 3.0)) == float((2 * joint)(X, 3.0)) / 2 == 15.0
    assert float(joint.rename(x="u")(X, 3.0)) == 15.0


@pytest.mark.parametrize(
    "energy",
    [
        SUM,
        2 * SUM,
        SUM.freeze(),
        SUM.constrain(y=en.Real()),
        SUM.rename(x="u"),
        (2 * SUM).freeze().rename(x="u"),
        en.mixture([joint, en.Gaussian(jnp.zeros(2))]),
    ],
    ids=str,
)
def test_sums_refuse_positions(energy):
    with pytest.raises(TypeError, match=r"by name or with \.at"):
        energy(X, 3.0)
    with pytest.raises(TypeError, match=r"by name or with \.at"):
        energy.score(X, 3.0)


def test_sum_of_one_variable_takes_a_position():
    assert float(SUM.condition(y=3)(X)) == float(SUM(x=X, y=3))


@pytest.mark.parametrize("energy", [joint, SUM, 2 * joint, joint.freeze(), joint.rename(x="z")])
def test_wrong_names(energy):
    first = energy.variables[0]
    for call in (energy.at, lambda values: energy(**values), lambda values: energy.score(**values)):
        with pytest.raises(TypeError, match="y"):
            call({first: X})
        with pytest.raises(TypeError, match="w"):
            call({first: X, "y": 1.0, "w": 1.0})


def test_a_value_given_twice():
    for energy in (joint, 2 * joint, joint.rename(x="z")):
        with pytest.raises(TypeError, match=r"multiple values|both by position and by name"):
            energy(X, 3.0, **{energy.variables[0]: X})


def test_too_many_positions():
    with pytest.raises(TypeError, match="3 were given"):
        joint(X, 1.0, 2.0)
    with pytest.raises(TypeError, match="got 3 values"):
        (2 * joint)(X, 1.0, 2.0)


def test_parameters_with_a_default_are_no_variables():
    energy = Product(jnp.array(2.0))
    assert float(energy(X, y=1.0, power=1.0)) == 6.0
    with pytest.raises(TypeError, match="power"):
        energy.at({"x": X, "y": 1.0, "power": 1.0})


# --- the score


def test_score_mirrors_the_call():
    normal = en.Gaussian(jnp.zeros(2))
    np.testing.assert_array_equal(normal.score(X), -X)
    by_name = normal.score(x=X)
    assert isinstance(by_name, dict)
    assert list(by_name) == ["x"]
    np.testing.assert_array_equal(by_name["x"], -X)
    by_position = joint.score(X, 3.0)
    assert isinstance(by_position, dict)
    np.testing.assert_allclose(by_position["x"], -6 * X)
    np.testing.assert_allclose(by_position["y"], -5.0)


def test_score_casts_integers():
    score = en.Gaussian(np.zeros(2)).score(np.array([1, 2]))
    assert isinstance(score, jax.Array)
    assert score.dtype == np.float32
    np.testing.assert_array_equal(score, [-1, -2])
    assert float(en.energy(lambda x: x**2).score(3)) == -6.0  # pyright: ignore


def test_score_of_continuous_variables_only():
    score = mixed.score(n=2, t=3, unknown=1.5)
    assert isinstance(score, dict)
    assert {name: float(s) for name, s in score.items()} == {"t": -2.0, "unknown": -3.0}
    assert set(mixed.score(n=2, t=3, unknown=1)) == {"t"}  # an integer of unknown support
    with pytest.raises(TypeError, match="continuous"):
        mixed.condition(t=1.0, unknown=1.0).score(2)


def test_score_needs_a_real_scalar():
    with pytest.raises(TypeError, match=r"must return a scalar, got shape \(2,\).*jax.vmap"):
        en.energy(lambda x: x**2).score(X)
    with pytest.raises(TypeError, match="must return a real number"):
        en.energy(lambda x: jnp.sum(x > 0)).score(X)
    with pytest.raises(TypeError, match="returned None"):
        en.energy(lambda x: None).score(X)


def test_mixture_needs_scalars():
    with pytest.raises(TypeError, match=r"must return a scalar, got shape \(2,\)"):
        en.mixture([en.energy(lambda x: x), en.energy(lambda x: -x)])(X)


# --- definitions


def test_class_with_starred_parameters():
    class Starred(en.Energy):
        def __call__(self, *values):
            return sum(values)

    class Keywords(en.Energy):
        def __call__(self, x, **values):
            return x

    class Nothing(en.Energy):
        def __call__(self):
            return 0.0

    with pytest.raises(TypeError, match=r"Starred takes \*values"):
        Starred()
    with pytest.raises(TypeError, match=r"Keywords takes \*\*values"):
        Keywords()
    with pytest.raises(TypeError, match="Nothing has no variable"):
        Nothing()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *values: 0.0, r"takes \*values"),
        (lambda x, **values: 0.0, r"takes \*\*values"),
        (functools.partial(lambda *values: 0.0), r"partial takes \*values"),
        (lambda x, /: 0.0, "by position only"),
        (lambda: 0.0, "no variable"),
        (en.Ring(), "takes a function"),
        (en.Ring, "takes a function"),
    ],
)
def test_functions_that_are_no_energies(function, message):
    with pytest.raises(TypeError, match=message):
        en.energy(function)


def test_supports_of_a_function():
    assert joint.supports == {"x": en.Real((2,)), "y": None}
    with pytest.raises(ValueError, match="'w'"):
        en.energy(lambda x: 0.0, w=en.Real())
    with pytest.raises(TypeError, match=r"Support|write en"):
        en.energy(x=en.Real)(lambda x: 0.0)  # pyright: ignore[reportArgumentType]


class Affine(eqx.Module):
    slope: jax.Array

    def __call__(self, x, *, scale=1.0):
        return jnp.sum(self.slope * x) * scale

    def negative(self, x):
        return -self(x)


@pytest.mark.parametrize(
    ("function", "sign"),
    [
        (lambda x, shift=0.0: jnp.sum(x) + shift, 1),
        (jax.jit(lambda x: jnp.sum(x)), 1),
        (eqx.filter_jit(lambda x: jnp.sum(x)), 1),
        (functools.partial(lambda w, x: jnp.sum(w * x), jnp.ones(2)), 1),
        (jax.tree_util.Partial(lambda w, x: jnp.sum(w * x), jnp.ones(2)), 1),
        (Affine(jnp.ones(2)), 1),
        (Affine(jnp.ones(2)).negative, -1),
    ],
)
def test_callables_of_every_kind(function, sign):
    energy = en.energy(function)
    assert energy.variables == ("x",)
    assert float(energy(X)) == sign * 3.0
    assert float((energy + energy)(x=X)) == sign * 6.0


def test_constant_function_gives_an_array():
    flat = en.energy(lambda x: 0.0)
    assert isinstance(flat(X), jax.Array)
    np.testing.assert_array_equal(flat.score(X), jnp.zeros(2))


# --- operators


@pytest.mark.parametrize(
    "number",
    [
        3,
        3.0,
        np.float64(3),
        np.float32(3),
        np.int64(3),
        np.array(3.0),
        jnp.float32(3),
        jnp.asarray(3.0),
    ],
    ids=lambda n: type(n).__name__ + str(getattr(n, "dtype", "")),
)
def test_numbers_on_both_sides(number):
    normal = en.Gaussian(0.0)
    for energy in (number * normal, normal * number):
        assert isinstance(energy, Scaled)
        assert energy.weight.dtype == np.float32
        assert not energy.weight.weak_type
        assert float(energy(2.0)) == pytest.approx(3 * float(normal(2.0)))
    assert float((normal / number)(2.0)) == pytest.approx(float(normal(2.0)) / 3)


def test_traced_numbers_lose_their_weak_type():
    def weak_types(number):
        energy = joint.condition(y=number) + number * en.Ring()
        return [leaf.weak_type for leaf in jax.tree.leaves(energy) if eqx.is_array(leaf)]

    assert jnp.asarray(3.0).weak_type
    seen = []
    jax.jit(lambda number: seen.extend(weak_types(number)))(3.0)
    assert seen == [False] * 4


def test_wide_integers_are_weights():
    assert float((2**40 * en.Ring()).weight) == 2.0**40  # pyright: ignore


@pytest.mark.parametrize(
    ("operation", "other", "error", "message"),
    [
        (operator.mul, np.ones(3), TypeError, r"scalar, got an array of shape \(3,\)"),
        (operator.mul, jnp.ones(3), TypeError, r"scalar, got an array of shape \(3,\)"),
        (operator.mul, [1.0, 2.0], TypeError, "scalar"),
        (operator.mul, "a", TypeError, "expected numbers, got 'a'"),
        (operator.mul, None, TypeError, "expected numbers, got None"),
        (operator.mul, {}, TypeError, "expected numbers"),
        (operator.mul, 1j, TypeError, "expected real numbers"),
        (operator.mul, float("nan"), ValueError, "finite"),
        (operator.mul, 1e300, ValueError, "finite"),
        (operator.mul, en.Ring(), TypeError, "do not multiply"),
        (operator.truediv, en.Ring(), TypeError, "do not divide"),
        (operator.truediv, -1, ValueError, "positive"),
        (operator.truediv, 0, ValueError, "positive"),
        (operator.truediv, float("nan"), ValueError, "finite"),
        (operator.truediv, np.ones(2), TypeError, "scalar"),
        (operator.add, 1.0, TypeError, "unsupported operand"),
        (operator.sub, 1.0, TypeError, "unsupported operand"),
        (operator.add, np.ones(3), TypeError, "does not support ufuncs"),
        (operator.pow, 2, TypeError, "unsupported operand"),
    ],
)
def test_refused_operands(operation, other, error, message):
    with pytest.raises(error, match=message):
        operation(en.Ring(), other)


@pytest.mark.parametrize("other", [np.ones(3), jnp.ones(3), [1.0], "a", None])
def test_refused_operands_on_the_left(other):
    for operation in (operator.mul, operator.add, operator.sub, operator.truediv):
        with pytest.raises(TypeError):
            operation(other, en.Ring())


def test_algebra_stays_flat():
    a, b, c = en.Ring(), en.DoubleWell(shape=(2,)), en.Gaussian(jnp.zeros(2))
    for total in ((a + b) + c, a + (b + c), sum([a, b, c]), (a + b) + c.freeze()):
        assert isinstance(total, Sum)
        assert len(total.energies) == 3
    for scaled in (2 * (3 * a), (3 * a) * 2, -(-6 * a), (12 * a) / 2):
        assert isinstance(scaled, Scaled)
        assert isinstance(scaled.energy, en.Ring)
        assert float(scaled.weight) == 6.0
    assert sum([a]) is a
