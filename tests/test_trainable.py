"""What is trained: the split into parameters and skeleton, and its ties."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia._types import strong_tree
from energia.energies._trainable import count_parameters, split, trainable_leaves


class Masked(en.Energy):
    weight: Any
    mask: Any = en.constant()
    count: Any = 3

    def __call__(self, x):
        return jnp.sum(self.mask * self.weight * x**2) * self.count

    def doubled(self, x):
        return 2 * self(x)


def parameters(tree: Any) -> list[jax.Array]:
    return split(tree)[0]


def shapes(tree: Any) -> list[tuple[int, ...]]:
    return [array.shape for array in parameters(tree)]


@pytest.fixture
def network(key) -> en.MLPEnergy:
    return en.MLPEnergy(2, width=4, depth=1, key=key)


# --- what is a parameter


@pytest.mark.parametrize(
    "weight",
    [jnp.ones(3), np.ones(3), np.ones(3, np.float32), np.float64(2), jnp.asarray(2.0), 2.0],
    ids=["jax", "numpy 64", "numpy 32", "number 64", "weak", "float"],
)
def test_every_float_is_a_parameter(weight):
    energy = Masked(weight, np.ones(3))
    (parameter,) = parameters(energy)
    assert isinstance(parameter, jax.Array)
    assert not parameter.weak_type
    assert parameter.shape == np.shape(weight)
    assert parameter.dtype == np.float32
    np.testing.assert_array_equal(parameter, weight)
    assert count_parameters(energy) == np.size(weight)


def test_half_precision_stays():
    assert parameters(Masked(jnp.ones(3, jnp.bfloat16), 1.0))[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("weight", [jnp.arange(3), np.arange(3), jnp.array([True]), 2, True, None])
def test_what_is_no_float_is_not(weight):
    assert parameters(Masked(weight, 1.0)) == []
    assert count_parameters(Masked(weight, 1.0)) == 0


def test_constant_fields():
    energy = Masked(jnp.ones(3), {"rows": [np.ones(2), 1.0], "inner": en.Ring()})
    assert shapes(energy) == [(3,)]
    assert isinstance(energy.mask["rows"][0], jax.Array)
    assert isinstance(energy.mask["rows"][1], jax.Array)


def test_constant_takes_other_arguments_of_a_field():
    class Fixed(en.Energy):
        table: Any = en.constant(default=2.0, converter=lambda t: t, metadata={"unit": "m"})

        def __call__(self, x):
            return self.table * x

    assert parameters(Fixed()) == []
    assert isinstance(Fixed().table, float)
    assert Fixed.__dataclass_fields__["table"].metadata["unit"] == "m"


class Pair(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: [e, e.rename(x="z")][:1],
        lambda e: {"deep": (e,)},
        lambda e: Pair(e, None),
        lambda e: jax.tree_util.Partial(lambda energy: energy, e),
        lambda e: en.energy(jax.tree_util.Partial(lambda energy, x: energy(x), e)),
        lambda e: en.energy(e.doubled),
    ],
    ids=["list", "dict", "named tuple", "foreign node", "function", "method"],
)
def test_constant_fields_inside_any_container(wrap):
    assert shapes(wrap(Masked(jnp.ones(3), jnp.ones((7, 7))))) == [(3,)]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: 2.0 * e,
        lambda e: e / 3.0,
        lambda e: e.condition(x=jnp.ones(2)),
        lambda e: en.mixture([e, e.rename(x="z")], weights=[0.3, 0.7]),
        lambda e: e.constrain(x=en.Positive((2,))),
        lambda e: (0.5 * e + e).rename(x="u"),
        lambda e: e.substitute(x=lambda v: 2 * v),
    ],
    ids=["weight", "temperature", "condition", "mixture", "constrain", "sum", "substitute"],
)
def test_numbers_of_the_algebra_are_not_trained(change, network):
    assert len(jax.tree.leaves(eqx.filter(change(network), eqx.is_array))) >= 4
    assert shapes(change(network)) == shapes(network)
    assert count_parameters(change(network)) == 2 * 4 + 4 + 4 + 1


def test_arrays_of_a_substituted_module_are_trained(key):
    layer = eqx.nn.Linear(3, 2, key=key)
    energy = en.Ring().substitute(x=layer)
    assert energy.variables == ("x",)
    assert shapes(energy) == [(), (), (2, 3), (2,)]


def test_frozen_is_not_trained(network):
    assert parameters(network.freeze()) == []
    assert parameters((2 * network).freeze().rename(x="z").condition(z=jnp.ones(2))) == []
    both = network + network.freeze()
    assert shapes(both) == shapes(network)
    learned, skeleton = split(both)
    moved = skeleton.merge([p + 1 for p in learned])
    x = jnp.ones(2)
    assert float(moved.energies[1](x)) == float(network(x))
    assert float(moved.energies[0](x)) != float(network(x))


# --- ties


def test_a_network_that_stands_twice_is_one(network):
    double = network + network.rename(x="z")
    learned, skeleton = split(double)
    assert len(learned) == 4
    assert count_parameters(double) == count_parameters(network)
    moved = skeleton.merge([p + 1 for p in learned])
    first, second = moved.energies
    assert float(first(jnp.ones(2))) == float(second(z=jnp.ones(2))) != float(network(jnp.ones(2)))


@pytest.mark.parametrize("make", [jnp.ones, np.ones])
def test_one_array_in_two_fields_is_one_parameter(make):
    shared = make(3)
    energy = Masked([shared, shared, make(3)], shared)
    assert shapes(energy) == [(3,), (3,)]
    assert count_parameters(energy) == 6
    learned, skeleton = split(energy)
    merged = skeleton.merge([jnp.zeros(3), learned[1]])
    np.testing.assert_array_equal(merged.weight[0], jnp.zeros(3))
    np.testing.assert_array_equal(merged.weight[1], jnp.zeros(3))
    np.testing.assert_array_equal(merged.mask, jnp.ones(3))


def test_casts_keep_ties():
    shared = np.ones(3)  # float64: the cast makes another array of it
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    tree = strong_tree({"a": shared, "b": shared, "c": weak, "d": weak})
    assert tree["a"] is tree["b"]
    assert tree["c"] is tree["d"]
    assert shapes(Masked([weak, weak], shared)) == [()]


# --- split and merge


def test_merge_restores_the_energy(network):
    energy = en.mixture([2 * network, en.GaussianMixture(np.eye(2), scales=1.0)]) + Masked(2.0, 1.0)
    learned, skeleton = split(energy)
    merged = skeleton.merge(learned)
    assert jax.tree.structure(merged) == jax.tree.structure(energy)
    assert str(merged) == str(energy)
    assert float(merged(jnp.ones(2))) == float(energy(jnp.ones(2)))
    assert trainable_leaves(merged) == trainable_leaves(energy)
    again, same = split(merged)
    assert [p.shape for p in again] == [p.shape for p in learned]
    assert same.slots == skeleton.slots


def test_skeleton_is_an_argument_of_jit_and_grad(network):
    learned, skeleton = split(2 * network)
    traces = []

    @eqx.filter_jit
    def slopes(learned, skeleton, x):
        traces.append(None)
        return jax.grad(lambda p: skeleton.merge(p)(x))(learned)

    x = jnp.ones(2)
    first = slopes(learned, skeleton, x)
    slopes([p + 1 for p in learned], split(3 * network)[1], x)
    assert len(traces) == 1
    direct = eqx.filter_grad(lambda energy: 2 * energy(x))(network)
    for got, exact in zip(first, parameters(direct), strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-6)


def test_leaves_that_are_no_numbers():
    class Odd(en.Energy):
        key: Any
        names: Any
        activation: Any
        weight: Any

        def __call__(self, x):
            return self.activation(self.weight * x)

    energy = Odd(jax.random.key(0), np.array(["a", "b"]), jnp.tanh, 1.5)
    learned, skeleton = split(strong_tree(energy))
    assert [p.shape for p in learned] == [()]
    assert float(skeleton.merge(learned)(2.0)) == pytest.approx(np.tanh(3.0))


# --- copies


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy at an address that JAX could use without copying."""
    room = np.zeros(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    array = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    array[...] = values
    return array


@pytest.mark.parametrize(
    "make",
    [
        lambda a: en.Gaussian(a).mean,
        lambda a: en.DoubleWell(a, shape=a.shape).barrier,
        lambda a: Masked(1.0, a).mask,
        lambda a: en.energy(lambda x: x).condition(x=a).replacements["x"].value,
        lambda a: parameters(Masked(a, 1.0))[0],
        lambda a: split(Masked(None, 1.0, count=a.astype(int)))[1].merge([]).count,
    ],
    ids=["gaussian", "double well", "constant", "condition", "split", "skeleton"],
)
def test_numpy_arrays_are_copied(make):
    for size in (1, 64, 4096):
        array = aligned(np.ones(size, np.float32))
        held = make(array)
        array[...] = 5
        np.testing.assert_array_equal(held, 1)


def test_parameters_are_fresh_copies():
    weight = jnp.ones(3)
    (parameter,) = parameters(Masked(weight, 1.0))
    assert parameter is not weight
    assert parameter.unsafe_buffer_pointer() != weight.unsafe_buffer_pointer()
    parameter.delete()
    np.testing.assert_array_equal(weight, jnp.ones(3))
