"""Ising and Potts models and Boltzmann machines against enumeration and closed forms."""

import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import at_all
from scipy.special import logsumexp

import energia as en
from energia.testing import check_energy

GENERATOR = np.random.default_rng(0)
MACHINE = en.RBM.from_parameters(
    GENERATOR.normal(size=(4, 3)), GENERATOR.normal(size=4), GENERATOR.normal(size=3)
)
RING = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]])


def states(support: Any) -> jax.Array:
    return jax.vmap(support.state)(jnp.arange(support.num_states, dtype=jnp.int32))


@pytest.mark.parametrize(
    "energy",
    [
        MACHINE,
        en.Ising((3, 2), coupling=0.3, field=[0.1, -0.2]),
        en.Ising(5, coupling=GENERATOR.normal(size=5), edges=RING),
        en.Potts((2, 3), 3, coupling=0.4, field=[0.1, 0.0, -0.3]),
        en.Potts(5, 2, coupling=0.4, field=GENERATOR.normal(size=(5, 2)), edges=RING),
    ],
    ids=lambda energy: str(energy).split("  ")[0],
)
def test_laws(energy: en.Energy, key: jax.Array) -> None:
    check_energy(energy, key=key)


def test_torus_against_the_transfer_matrix() -> None:
    """The 5 by 5 torus: ln Z, mean spin and edge correlation by a transfer matrix over rows."""
    coupling, field, side = 0.2, 0.2, 5
    model = en.Ising((side, side), coupling=coupling, field=field)
    rows = np.array(list(itertools.product((-1.0, 1.0), repeat=side)))
    # the energy of two rows, the second below the first, from the model itself
    lone = en.Ising((1, side), coupling=coupling, field=field)
    within = -np.asarray(jax.vmap(lone)(jnp.asarray(rows[:, None], jnp.float32)), float)
    matrix = np.exp(within[:, None] + coupling * rows @ rows.T)
    assert np.log(np.trace(np.linalg.matrix_power(matrix, side))) == pytest.approx(19.674086, 1e-6)
    # and the whole energy is the sum over rows
    x = GENERATOR.choice([-1.0, 1.0], size=(side, side))
    index = [int(np.nonzero((rows == row).all(1))[0][0]) for row in x]
    total = sum(np.log(matrix[a, b]) for a, b in zip(index, index[1:] + index[:1], strict=True))
    assert float(model(x)) == pytest.approx(-total, rel=1e-5)


def test_an_edge_counts_once() -> None:
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    couplings, field = np.array([0.5, -1.0, 2.0]), np.array([0.1, 0.2, 0.3])
    x = np.array([1.0, -1.0, -1.0])
    expected = -(0.5 * -1 + -1.0 * 1 + 2.0 * -1) - (0.1 - 0.2 - 0.3)
    assert float(en.Ising(3, coupling=couplings, field=field, edges=pairs)(x)) == pytest.approx(
        expected
    )
    potts = en.Potts(3, 4, coupling=couplings, edges=pairs)
    assert float(potts(jnp.array([2, 2, 2]))) == pytest.approx(-1.5)
    assert float(potts(jnp.array([2, 2, 0]))) == pytest.approx(-0.5)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 3), (1, 3), ()])
def test_a_lattice_is_its_graph(shape: tuple[int, ...], periodic: bool) -> None:
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    pairs = []
    for axis, side in enumerate(shape):
        if side == 1:
            continue
        first, second = numbers, np.roll(numbers, -1, axis)
        if not periodic:
            keep = np.arange(side - 1)
            first, second = np.take(first, keep, axis), np.take(second, keep, axis)
        pairs.append(np.stack([first.ravel(), second.ravel()], 1))
    edges = np.concatenate(pairs) if pairs else np.zeros((0, 2), int)
    lattice = en.Ising(shape, coupling=0.3, field=0.1, periodic=periodic)
    graph = en.Ising(shape, coupling=0.3, field=0.1, edges=edges)
    x = GENERATOR.choice([-1.0, 1.0], size=shape)
    one, two = (float(at_all(model, {"x": x[None]})[0]) for model in (lattice, graph))
    assert one == pytest.approx(two, abs=1e-5)
    for model in (lattice, graph):
        colours = np.array(model.graph.colours)
        assert not edges.size or (colours[edges[:, 0]] != colours[edges[:, 1]]).all()
    assert max(lattice.graph.colours) <= (2 if periodic and 3 in shape else 1)


@pytest.mark.parametrize(
    "energy",
    [
        en.Ising((2, 3), coupling=0.3, field=0.1),
        0.5 * en.Ising((2, 3), coupling=0.3)
        + en.Ising(6, coupling=0.7, edges=RING).substitute(x=lambda x: x.reshape(-1)),
        0.5 * en.Ising(5, coupling=0.3) + en.Ising(5, coupling=0.7, edges=[[0, 2], [1, 3]]),
        en.Potts((2, 2), 3, coupling=0.4, field=[0.1, 0.0, -0.3]).rename(x="k"),
    ],
    ids=["Ising", "tied", "two graphs", "Potts"],
)
def test_conditionals_by_colour(energy: en.Energy) -> None:
    """The odds of each entry given the others, against differences of the energy."""
    (name,) = energy.variables
    support: Any = energy.supports[name]
    x = support.draw(jax.random.key(3))
    factors: Any = energy._factorize(name, {name: x})
    if factors is None:  # a function of the variable hides what is independent
        assert "f(" in str(energy)
        return
    flat, x = np.asarray(factors.logits).reshape(x.size, -1), np.asarray(x)

    def changed(entry: int, state: float) -> np.ndarray:
        value = x.ravel().copy()
        value[entry] = state
        return value.reshape(x.shape)

    logits = jax.jit(jax.vmap(lambda x: energy._factorize(name, {name: x}).logits))  # pyright: ignore
    for entry in range(x.size):
        rows = np.stack([changed(entry, state) for state in support.states])
        energies = np.asarray(at_all(energy, {name: rows}))
        np.testing.assert_allclose(flat[entry] - flat[entry, 0], energies[0] - energies, atol=1e-5)
    # entries of one colour are independent: changing one leaves the odds of the others
    colours = np.array(factors.colours)
    for entry in range(x.size):
        state = next(s for s in support.states if s != float(x.ravel()[entry]))
        moved = np.asarray(logits(changed(entry, state)[None])).reshape(x.size, -1)
        same = np.nonzero(colours == colours[entry])[0]
        np.testing.assert_allclose(moved[same], flat[same], atol=1e-6)


# --- Boltzmann machines


@pytest.mark.parametrize("name", ["h", "v"])
def test_free_energy_of_a_machine(name: str) -> None:
    other = "v" if name == "h" else "h"
    summed, kept = states(MACHINE.supports[name]), states(MACHINE.supports[other])
    pairs = {other: np.repeat(kept, len(summed), 0), name: np.tile(summed, (len(kept), 1))}
    energies = at_all(MACHINE, pairs).reshape(len(kept), len(summed))
    log_sums: Any = logsumexp(-np.asarray(energies, float), axis=1)
    exact = -log_sums
    free = MACHINE.marginalize(name)
    np.testing.assert_allclose(at_all(free, {other: kept}), exact, rtol=1e-5)
    weights, b, c, kept = (
        np.asarray(a, float)
        for a in (MACHINE.weights, MACHINE.visible_bias, MACHINE.hidden_bias, kept)
    )
    if name == "h":
        softplus = np.log1p(np.exp(c + kept @ weights)).sum(1)
        np.testing.assert_allclose(exact, -kept @ b - softplus, rtol=1e-5)


def test_machine_as_made(key: jax.Array) -> None:
    made = en.RBM(200, 100, key=key)
    assert made.weights.shape == (200, 100)
    assert float(jnp.std(made.weights)) == pytest.approx(0.01, rel=0.03)
    assert float(made(v=jnp.ones(200), h=jnp.zeros(100))) == 0.0
    shapes = {name: value.shape for name, value in en.RBM(3, 2, key=key).supports.items() if value}
    assert shapes == {"v": (3,), "h": (2,)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: en.Ising((3, 3), coupling=np.ones(2)), "on a lattice it is one number; give edge"),
        (lambda: en.Ising(3, coupling=1.0, field=np.ones(2)), "field of shape .* does not broad"),
        (lambda: en.Ising(3, coupling=1.0, edges=[[0, 3]]), "positions from 0 to 2, got 3"),
        (lambda: en.Ising(3, coupling=1.0, edges=[[0, -1]]), "positions from 0 to 2, got -1"),
        (lambda: en.Ising(3, coupling=1.0, edges=[[1, 1]]), "joins 1 to itself: use field="),
        (lambda: en.Ising(3, coupling=1.0, edges=[0, 1]), r"integers of shape \(m, 2\); got shape"),
        (lambda: en.Ising(3, coupling=[1.0, 1.0], edges=RING[:1]), "coupling of shape"),
        (lambda: en.Potts(3, 1, coupling=1.0), "num_states= must be at least 2"),
        (lambda: en.Potts(3, 2, coupling=1.0)(jnp.zeros(2, int)), "one value of shape"),
        (lambda: en.RBM(0, 2, key=jax.random.key(0)), "num_visible= must be at least 1"),
        (
            lambda: inspect.unwrap(en.RBM.from_parameters)(np.ones((2, 3)), np.ones(3), np.ones(2)),
            r"got \(2, 3\), \(3,\) and \(2,\)|got \(2, 3\), \(3,\), \(2,\)",
        ),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
