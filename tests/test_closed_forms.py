"""Closed forms by `_factorize`, written by hand for two machines, against brute force."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._factors import Categorical, Factors, Normal
from energia.energies._free_energy import FreeEnergy
from energia.supports import Support

V, H = 4, 3


class Machine(en.Energy):
    """A restricted Boltzmann machine: -v W h - b v - c h."""

    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array

    def __call__(self, v, h):
        return -v @ self.weights @ h - self.visible_bias @ v - self.hidden_bias @ h

    def _supports(self) -> Mapping[str, Support | None]:
        visible, hidden = self.weights.shape
        return {"v": en.Binary(visible), "h": en.Binary(hidden)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name == "h":
            field, base = values["v"] @ self.weights + self.hidden_bias, self.visible_bias
            base = -base @ values["v"]
        else:
            field, base = self.weights @ values["h"] + self.visible_bias, self.hidden_bias
            base = -base @ values["h"]
        return Categorical(base, jnp.stack([jnp.zeros_like(field), field], axis=-1))


class Gaussians(en.Energy):
    """Gaussian visible units of precision `precision`, Bernoulli hidden ones."""

    weights: jax.Array
    bias: jax.Array
    precision: jax.Array

    def __call__(self, x, h):
        square = 0.5 * jnp.sum(self.precision * x**2)
        return square - x @ self.weights @ h - self.bias @ x

    def _supports(self) -> Mapping[str, Support | None]:
        visible, hidden = self.weights.shape
        return {"x": en.Real(visible), "h": en.Binary(hidden)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name == "x":
            return Normal(jnp.zeros(()), self.weights @ values["h"] + self.bias, self.precision)
        field, x = values["x"] @ self.weights, values["x"]
        base = 0.5 * jnp.sum(self.precision * x**2) - self.bias @ x
        return Categorical(base, jnp.stack([jnp.zeros_like(field), field], axis=-1))


def machine(seed: int, visible: int = V, hidden: int = H) -> Machine:
    normal = np.random.default_rng(seed).normal
    return Machine(
        jnp.asarray(normal(size=(visible, hidden))),
        jnp.asarray(normal(size=visible)),
        jnp.asarray(normal(size=hidden)),
    )


def gaussians(seed: int, visible: int = 2) -> Gaussians:
    generator = np.random.default_rng(seed)
    return Gaussians(
        jnp.asarray(generator.normal(size=(visible, H))),
        jnp.asarray(generator.normal(size=visible)),
        jnp.asarray(generator.uniform(0.5, 2.0, size=visible)),
    )


def binary(size: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=size)))


def brute(energy: en.Energy, name: str, size: int, values: dict[str, Any]) -> jax.Array:
    energies = jax.vmap(lambda state: energy.at({**values, name: state}))(jnp.asarray(binary(size)))
    return -jax.nn.logsumexp(-energies)


def quadrature(energy: en.Energy, name: str, values: dict[str, Any]) -> jax.Array:
    """-log of the integral of exp(-E) over two Gaussian units, by the trapezium rule."""
    line = jnp.linspace(-30.0, 30.0, 601)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
    energies = jax.vmap(lambda x: energy.at({**values, name: x}))(grid)
    return -jax.nn.logsumexp(-energies) - 2 * math.log(0.1)


def compare(energy: en.Energy, name: str, size: int | None, values: dict[str, Any]) -> None:
    """Value and gradients with respect to what stays, and that nothing was enumerated."""
    values = {n: jnp.asarray(x) for n, x in values.items()}
    marginal = energy.marginalize(name)

    def expected(values: dict[str, Any]) -> jax.Array:
        if size is None:
            return quadrature(energy, name, values)
        return brute(energy, name, size, values)

    got, slopes = jax.jit(jax.value_and_grad(marginal.at))(values)
    want, wanted = jax.jit(jax.value_and_grad(expected))(values)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    for n in values:
        np.testing.assert_allclose(slopes[n], wanted[n], rtol=1e-9, atol=1e-9)


VISIBLE = np.array([1.0, 0.0, 1.0, 1.0])
HIDDEN = np.array([1.0, 0.0, 1.0])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_machine():
    compare(machine(0), "h", H, {"v": VISIBLE})
    compare(machine(0), "v", V, {"h": HIDDEN})


def test_tempered():
    compare(machine(0) / 2.5, "h", H, {"v": VISIBLE})
    compare(0.7 * (machine(0) / 2.5 + machine(1)), "h", H, {"v": VISIBLE})


@en.energy(v=en.Binary(V))
def expert(v):
    return jnp.sum(jnp.cumsum(v) ** 2) * 0.1


def test_product_of_experts():
    compare(machine(0) + expert, "h", H, {"v": VISIBLE})
    compare(machine(0) + expert, "v", V, {"h": HIDDEN})  # no closed form: enumerated
    other = expert.constrain(v=en.Binary(H)).rename(v="h")
    compare(machine(0) + other, "v", V, {"h": HIDDEN})
    compare(machine(0) + machine(1), "v", V, {"h": HIDDEN})


def test_two_machines_share_a_layer():
    both = machine(0) + machine(1, visible=2).rename(v="w")
    compare(both, "h", H, {"v": VISIBLE, "w": np.array([0.0, 1.0])})


def test_clamped_by_substitution():
    clamped = machine(0).substitute(v=lambda half: jnp.concatenate([half, jnp.ones(2)]))
    compare(clamped, "h", H, {"half": np.array([0.0, 1.0])})
    tied = machine(0).substitute(v=lambda h: jnp.concatenate([h, jnp.ones(1)]))
    with pytest.raises(ValueError, match="leave no variable"):
        tied.marginalize("h")
    compare(tied + machine(1), "h", H, {"v": VISIBLE})  # quadratic in h: enumerated


def test_mixture_where_a_part_lacks_it():
    energy = en.mixture([machine(0), expert, machine(1) / 2], weights=[0.2, 0.5, 0.3])
    compare(energy, "h", H, {"v": VISIBLE})
    compare(energy + expert, "h", H, {"v": VISIBLE})


def test_frozen_constrained_and_a_total():
    compare(machine(0).freeze(), "h", H, {"v": VISIBLE})
    compare((machine(0) + expert).constrain(v=en.Real(V)), "h", H, {"v": VISIBLE})
    rows = np.array([VISIBLE, 1 - VISIBLE])
    total = en.total(machine(0), v=rows) + machine(1, visible=2).rename(v="w")
    compare(total, "h", H, {"w": np.array([0.3, 1.0])})


def test_gaussian_machine():
    compare(gaussians(0), "h", H, {"x": np.array([0.3, -1.0])})
    compare(gaussians(0), "x", None, {"h": HIDDEN})
    compare(gaussians(0) / 1.7 + gaussians(1), "x", None, {"h": HIDDEN})
    prior = en.Gaussian(jnp.array([1.0, -1.0]), scale=2.0)
    compare(gaussians(0) + prior, "x", None, {"h": HIDDEN})


def test_both_layers_of_a_large_machine():
    """Forty hidden units in closed form, and what is left enumerated."""
    large = machine(3, visible=3, hidden=40) + machine(4, visible=3, hidden=2).rename(h="g")
    got = large.marginalize("h", "v").at({"g": jnp.array([0.0, 1.0])})
    energies = [
        float(large.marginalize("h").at({"v": jnp.asarray(v), "g": jnp.array([0.0, 1.0])}))
        for v in binary(3)
    ]
    np.testing.assert_allclose(got, -np.logaddexp.reduce(-np.array(energies)), rtol=1e-12)


def test_gaussian_units_then_states():
    """The units of a mixture of Gaussians integrated out, then its components summed out."""
    energy = gaussians(0) + machine(1, visible=2)
    got = energy.marginalize("x", "h").at({"v": jnp.array([1.0, 0.0])})
    each = [
        float(quadrature(energy, "x", {"h": jnp.asarray(h), "v": jnp.array([1.0, 0.0])}))
        for h in binary(H)
    ]
    np.testing.assert_allclose(got, -np.logaddexp.reduce(-np.array(each)), rtol=1e-10)


def test_what_is_independent_of_what_was_summed_out():
    """Layers on both sides of one, of a single term; the layer between them is not."""
    chain = machine(0) + machine(1, visible=2).rename(v="w") + gaussians(2)
    below = FreeEnergy(chain, "v")
    for name in ("w", "x"):
        given = {"h": jnp.asarray(HIDDEN), "x": jnp.array([0.3, -1.0]), "w": jnp.array([0.0, 1.0])}
        known = {n: value for n, value in given.items() if n != name}
        factors = below._factorize(name, known)
        assert factors is not None
        twice = FreeEnergy(below, name).at(known)
        np.testing.assert_allclose(factors.free_energy(), twice, rtol=1e-12)
        np.testing.assert_allclose(twice, chain.marginalize("v", name).at(known), rtol=1e-12)
    assert below._factorize("h", {n: value for n, value in given.items() if n != "h"}) is None


def test_negative_precision():
    below = gaussians(0) - 3 * gaussians(0)
    with pytest.raises(ValueError, match=r"precision -.*cannot be integrated"):
        below.marginalize("x").at({"h": jnp.asarray(HIDDEN)})


def test_another_support_has_no_closed_form():
    """Of spins the closed form for bits is wrong; they are enumerated."""
    spins = machine(0).constrain(h=en.Spin(H))
    energies = [
        float(spins.at({"v": jnp.asarray(VISIBLE), "h": jnp.asarray(2 * h - 1)})) for h in binary(H)
    ]
    got = spins.marginalize("h").at({"v": jnp.asarray(VISIBLE)})
    np.testing.assert_allclose(got, -np.logaddexp.reduce(-np.array(energies)), rtol=1e-12)
    with pytest.raises(ValueError, match="would enumerate"):
        machine(0, hidden=30).constrain(h=en.Spin(30)).marginalize("h")
