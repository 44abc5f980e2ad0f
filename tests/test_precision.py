"""`precision='bfloat16'`: products of the energy are rounded, and nothing else is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_fits import DATA, arrays, train

import energia as en
from energia.training._precision import Lowered

NETWORK = en.MLPEnergy(2, width=16, depth=2, key=jax.random.key(0))
MODEL = NETWORK + en.Gaussian(jnp.zeros(2), scale=2.0)
HALF = 2.0**-8  # half the distance from 1 to the next number of bfloat16


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


class Product(en.Energy):
    """A quadratic form, its matrix product written in one of several ways."""

    weights: jax.Array
    way: str = eqx.field(static=True)

    def __call__(self, x):
        ways = {
            "matmul": lambda: self.weights @ x,
            "einsum": lambda: jnp.einsum("ij,j->i", self.weights, x),
            "jit": lambda: jax.jit(jnp.matmul)(self.weights, x),
            "checkpoint": lambda: jax.checkpoint(jnp.matmul)(self.weights, x),
            "vmap": lambda: jax.vmap(lambda row: row @ x)(self.weights),
        }
        return 0.5 * jnp.sum(ways[self.way]() ** 2)


@pytest.mark.parametrize("way", ["matmul", "einsum", "jit", "checkpoint", "vmap"])
def test_products_take_and_give_rounded_numbers(key, way):
    # products that bfloat16 holds exactly, so that only what enters them is rounded
    weights, x = jax.random.normal(key, (8, 5)), jnp.array([0.0, 0.0, 4.0, 0.0, 0.0])
    energy = Product(weights, way)
    product = 4 * rounded(weights[:, 2])
    value, slope = jax.value_and_grad(lambda x: Lowered(energy)(x))(x)
    assert value.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.5 * jnp.sum(product**2), rtol=1e-6)
    assert abs(float(value - energy(x))) > 1e-5 * float(value)
    np.testing.assert_allclose(slope, rounded(weights).T @ product, rtol=2 * HALF, atol=1e-6)


def test_sums_and_inner_products_are_not_rounded(key):
    @en.energy
    def flat(x):
        return jnp.dot(x, x) + jnp.sum(jnp.exp(x)) + jnp.max(x)

    x = jax.random.normal(key, (100,))
    np.testing.assert_allclose(Lowered(flat)(x), flat(x), rtol=1e-6)


def test_convolutions_are_rounded_and_differentiable(key):
    class Filters(en.Energy):
        kernel: jax.Array

        def __call__(self, x):
            out = jax.lax.conv_general_dilated(x[None, None], self.kernel, (1, 1), "SAME")
            return jnp.sum(jax.nn.silu(out) ** 2)

    energy = Filters(jax.random.normal(key, (4, 1, 3, 3)))
    x = jax.random.normal(key, (6, 6))
    for argument in (0, 1):
        exact, half = (
            jax.grad(lambda k, x, wrap=wrap: wrap(Filters(k))(x), argument)(energy.kernel, x)
            for wrap in (lambda e: e, Lowered)
        )
        scale = float(jnp.max(jnp.abs(exact)))
        assert 1e-5 * scale < float(jnp.max(jnp.abs(exact - half))) < 6 * HALF * scale


@en.energy
def shifted(m, x):
    return NETWORK(x + m)


@pytest.mark.parametrize("name", ["x", "m"])
def test_gradients_agree_to_the_accuracy_of_bfloat16(key, name):
    model = MODEL if name == "x" else en.total(shifted, x=DATA[:20]) + MODEL.rename(x="m")
    value = jax.random.normal(key, (2,))

    def gradients(wrap):
        parameters, rest = eqx.partition(model, eqx.is_inexact_array)
        return jax.jit(
            jax.grad(lambda p, x: wrap(eqx.combine(p, rest)).at({name: x}), argnums=(0, 1))
        )(parameters, value)

    exact, half = gradients(lambda energy: energy), gradients(Lowered)
    assert jax.tree.structure(exact) == jax.tree.structure(half)
    size = np.sqrt(sum(np.sum(a**2) for a in arrays(exact)))
    apart = np.sqrt(
        sum(np.sum((a - b) ** 2) for a, b in zip(arrays(exact), arrays(half), strict=True))
    )
    assert 1e-5 * size < apart < 4 * HALF * size


@pytest.mark.parametrize("objective", [pytest.param("ssm", marks=pytest.mark.slow), "dsm"])
def test_parameters_and_energies_stay_in_float32(objective):
    options = {"data": DATA, "objective": objective, "num_steps": 60}
    whole, half = (train(MODEL, precision=p, **options) for p in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in arrays(half.energy)} == {np.dtype(np.float32)}
    assert jax.tree.structure(half.energy) == jax.tree.structure(MODEL)
    assert all(values.dtype == np.float32 for values in half.history.values())
    one, two = whole.history["loss"][0], half.history["loss"][0]
    assert one != two
    assert abs(one - two) < 4 * HALF * max(abs(one), 1)
    value = half.energy(jnp.ones(2))
    assert value.dtype == jnp.float32
    assert float(value) != float(Lowered(half.energy)(jnp.ones(2)))
    # both have learned the same law
    scores = [jax.vmap(fit.energy.score)(jnp.asarray(DATA)) for fit in (whole, half)]
    assert float(jnp.mean((scores[0] - scores[1]) ** 2)) < 0.01 * float(jnp.mean(scores[0] ** 2))


@pytest.mark.slow
def test_chains_move_on_the_rounded_energy():
    machine = en.RBM(4, 3, key=jax.random.key(0)).constrain(v=en.Binary(4))
    rows = np.random.default_rng(0).integers(0, 2, (64, 4)).astype(np.float32)
    for model, data in ((MODEL, DATA), (machine, rows)):
        pcd = en.objectives.PCD(num_steps=2, buffer_size=64)
        fit = train(model, data, pcd, num_steps=3, precision="bfloat16")
        assert np.all(np.isfinite(fit.history["loss"]))


def test_what_precision_cannot_do_raises():
    with pytest.raises(ValueError, match=r"must be one of .*'bfloat16'.*, got 'float16'"):
        train(MODEL, precision="float16")
    with pytest.raises(ValueError, match="computes none in float32"):
        train(en.Gaussian(jnp.zeros(2)), precision="bfloat16")


def test_another_precision_is_another_run(tmp_path):
    train(MODEL, num_steps=2, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another precision"):
        train(MODEL, num_steps=2, checkpoint=tmp_path, precision="bfloat16")
