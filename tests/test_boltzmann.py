"""Boltzmann machines of every kind of unit against sums over all states, in NumPy."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from enumeration import at_all
from scipy.special import logsumexp

import energia as en
from energia.energies._layered import Layered
from energia.energies._units import layer as layer_of
from energia.supports import Support
from energia.testing import check_energy

GENERATOR = np.random.default_rng(7)
DIGIT = en.Categorical(3, 2)


def normal(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape)


def deep(*layers: Any) -> en.DBM:
    rbms = []
    for low, high in itertools.pairwise(layers):
        below, above = width(low), width(high)
        rbms.append(
            en.RBM.from_parameters(
                normal(*below, *above), normal(*below), normal(*above), visible=low, hidden=high
            )
        )
    return en.DBM.from_rbms(rbms)


def width(support: Any) -> tuple[int, ...]:
    return support.shape + ((support.num_categories,) if support == DIGIT else ())


def shallow(visible: Any, hidden: Any) -> en.RBM:
    return deep(visible, hidden).rbms[0]


def gaussian(hidden: Any) -> en.GaussianRBM:
    above = width(hidden)
    return en.GaussianRBM.from_parameters(
        normal(2, *above), normal(2), normal(*above), normal(2), hidden=hidden
    )


MACHINES: dict[str, Layered] = {
    "bits": shallow(en.Binary(4), en.Binary(3)),
    "spins": shallow(en.Spin(4), en.Spin(3)),
    "spins on bits": shallow(en.Spin(3), en.Binary(2)),
    "softmax": shallow(DIGIT, en.Binary(3)),
    "softmax above": shallow(en.Binary(3), DIGIT),
    "centred": shallow(en.Binary(4), en.Spin(3)).with_offsets(v=normal(4), h=0.4),
    "deep": deep(en.Binary(3), en.Binary(3), en.Binary(2)),
    "deep and mixed": deep(DIGIT, en.Spin(2), en.Binary(2), DIGIT).with_offsets(v=0.3, h2=-0.5),
}
GAUSSIAN: dict[str, en.GaussianRBM] = {
    "real on bits": gaussian(en.Binary(3)),
    "real on spins": gaussian(en.Spin(3)),
    "real on softmax": gaussian(DIGIT),
}
machines = pytest.mark.parametrize("name", MACHINES)
gaussians = pytest.mark.parametrize("name", GAUSSIAN)


def log_sum(values: np.ndarray, axis: Any = None) -> Any:
    return logsumexp(values, axis=axis)


def every(support: Support) -> np.ndarray:
    """Every value of a layer."""
    assert isinstance(support, en.Binary | en.Spin | en.Categorical)
    rows = list(itertools.product(support.states, repeat=math.prod(support.shape)))
    return np.array(rows, support.dtype)


def statistics(support: Support, rows: np.ndarray) -> np.ndarray:
    """What weights multiply, flattened."""
    if isinstance(support, en.Categorical):
        rows = np.eye(support.num_categories)[rows.astype(int)]
    return np.asarray(rows, float).reshape(len(rows), -1)


def energies(machine: Layered) -> np.ndarray:
    """The energy of all states, an axis a layer, by the formula."""
    layers = machine._layers
    units = [
        statistics(layer.support, every(layer.support)) - np.ravel(layer.offset) for layer in layers
    ]
    total = np.zeros([len(states) for states in units])
    for axis, (states, layer) in enumerate(zip(units, layers, strict=True)):
        one = -states @ np.ravel(np.asarray(layer.bias, float))
        total += one.reshape([-1 if other == axis else 1 for other in range(total.ndim)])
    for axis, matrix in enumerate(machine._weights):
        low, high = units[axis], units[axis + 1]
        weights = np.asarray(matrix, float).reshape(low.shape[1], high.shape[1])
        pair = -low @ weights @ high.T
        shape = [1] * total.ndim
        shape[axis : axis + 2] = pair.shape
        total += pair.reshape(shape)
    return total


def grid(machine: en.Energy) -> dict[str, np.ndarray]:
    """All states, by variable, along one leading axis, in the order of `energies`."""
    supports: dict[str, Any] = machine.supports
    each = {name: every(support) for name, support in supports.items()}
    places = np.meshgrid(*(np.arange(len(rows)) for rows in each.values()), indexing="ij")
    return {n: rows[place.ravel()] for (n, rows), place in zip(each.items(), places, strict=True)}


@pytest.mark.parametrize("energy", [*MACHINES.values(), *GAUSSIAN.values()], ids=str)
def test_laws(energy: en.Energy, key: jax.Array) -> None:
    check_energy(energy, key=key)


@machines
def test_energies(name: str) -> None:
    machine = MACHINES[name]
    got = at_all(machine, grid(machine))
    np.testing.assert_allclose(got, energies(machine).ravel(), rtol=1e-5, atol=1e-5)


@machines
def test_free_energies(name: str) -> None:
    """Of every layer, weighted; and with all layers but the visible one summed out."""
    machine, exact = MACHINES[name], energies(MACHINES[name])
    places, rows = np.arange(exact.size).reshape(exact.shape), grid(machine)
    for axis, layer in enumerate(machine.variables):
        kept = np.moveaxis(places, axis, 0)[0].ravel()
        others = {other: rows[other][kept] for other in machine.variables if other != layer}
        for weight in (1.0, 0.4):
            got = at_all((weight * machine).marginalize(layer), others)
            expected = -np.ravel(log_sum(-weight * exact, axis=axis))
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    if exact.ndim > 2:
        alone = (0.4 * machine).marginalize(*machine.variables[1:])
        expected = -np.ravel(log_sum(-0.4 * exact, axis=tuple(range(1, exact.ndim))))
        visible: Any = machine.supports["v"]
        np.testing.assert_allclose(at_all(alone, {"v": every(visible)}), expected, rtol=1e-5)


@machines
def test_log_z(name: str) -> None:
    machine, exact = MACHINES[name], energies(MACHINES[name])
    estimate = en.evaluate.log_partition(machine / 2.5)
    assert estimate.method == "exact"
    assert estimate.value == pytest.approx(np.ravel(log_sum(-exact / 2.5))[0], rel=1e-5)


@machines
def test_conditionals(name: str) -> None:
    """The probability of each state of each unit given the other layers."""
    machine, exact = MACHINES[name], energies(MACHINES[name])
    rows = {
        n: np.asarray(jax.random.choice(jax.random.key(1), x)) for n, x in grid(machine).items()
    }
    for axis, layer in enumerate(machine.variables):
        support: Any = machine.supports[layer]
        here = [
            int(np.nonzero((every(s) == rows[n]).all(1))[0][0])  # pyright: ignore
            for n, s in machine.supports.items()
        ]
        column = exact[tuple(slice(None) if a == axis else i for a, i in enumerate(here))]
        share = np.exp(-column - float(np.ravel(log_sum(-column))[0]))
        states = every(support)
        factors: Any = machine._factorize(layer, rows)
        got = np.asarray(jax.nn.softmax(factors.logits, -1))
        for index, state in enumerate(support.states):
            expected = share @ (states == state)
            np.testing.assert_allclose(got[:, index], expected, atol=1e-5)


@eqx.filter_jit
def chains(energy: en.Energy, starts: Any, key: jax.Array) -> Any:
    """Where Gibbs chains end after 30 steps."""
    gibbs = en.samplers.Gibbs()

    def one(start: Any, key: jax.Array) -> Any:
        def step(t: jax.Array, state: Any) -> Any:
            return gibbs.step(energy, state, jax.random.fold_in(key, t))[0]

        return jax.lax.fori_loop(0, 30, step, gibbs.init(energy, start, key)).position

    return jax.vmap(one)(starts, jax.random.split(key, COUNT))


COUNT = 20_000


@pytest.mark.parametrize("name", ["spins on bits", "deep and mixed"])
def test_gibbs_draws_the_joint_law(name: str, key: jax.Array) -> None:
    """First and second moments over all layers; the law at another temperature is rejected."""
    machine = MACHINES[name] / 2
    supports: dict[str, Any] = machine.supports
    starts = {n: jnp.zeros((COUNT, *s.shape), s.dtype) for n, s in supports.items()}
    draws = chains(machine, starts, key)

    def moments(values: Mapping[str, Any], shares: np.ndarray) -> np.ndarray:
        units = np.concatenate(
            [statistics(supports[n], np.asarray(values[n])) for n in supports], 1
        )
        pairs = np.einsum("ni,nj->nij", units, units).reshape(len(units), -1)
        return shares @ np.concatenate([units, pairs], 1)

    def share(weight: float) -> np.ndarray:
        column = -weight * energies(MACHINES[name]).ravel()
        return np.exp(column - np.ravel(log_sum(column))[0])

    every_state = grid(machine)
    seen = moments(draws, np.full(COUNT, 1 / COUNT))
    exact = moments(every_state, share(0.5))
    error = np.sqrt(np.maximum(1 - exact**2, 1e-3) / COUNT)
    assert np.all(np.abs(seen - exact) < 5 * error)
    assert np.any(np.abs(seen - moments(every_state, share(0.45))) > 5 * error)


@pytest.mark.parametrize("name", ["bits", "spins", "softmax"])
def test_a_tempered_machine_is_a_machine(name: str) -> None:
    machine = MACHINES[name]
    assert isinstance(machine, en.RBM)
    cold = en.RBM.from_parameters(
        machine.weights / 3,
        machine.visible_bias / 3,
        machine.hidden_bias / 3,
        visible=machine.visible,
        hidden=machine.hidden,
    )
    rows = every(machine.visible)
    for layer in ({"h": machine.hidden}, {"v": machine.visible}):
        (summed,) = layer
        (kept,) = {"v", "h"} - {summed}
        rows = every(machine.supports[kept])  # pyright: ignore[reportArgumentType]
        one, two = (at_all(e.marginalize(summed), {kept: rows}) for e in (machine / 3, cold))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


# --- likelihoods


@machines
def test_likelihoods(name: str) -> None:
    """Of the visible layer, per row, against the sum over all states."""
    machine, exact = MACHINES[name], energies(MACHINES[name])
    log_z = np.ravel(log_sum(-exact))[0]
    visible: Any = machine.supports["v"]
    result = en.evaluate.log_likelihood(machine, every(visible))
    expected = np.ravel(log_sum(-exact, axis=tuple(range(1, exact.ndim)))) - log_z
    np.testing.assert_allclose(result.per_datum, expected, atol=2e-5)
    assert not result.is_bound
    assert np.exp(result.per_datum).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [en.Categorical(3, 8), "real", "deep"], ids=str)
def test_both_sides_of_the_likelihood(kind: Any, key: jax.Array) -> None:
    """Annealed, there and back, where the answer is known."""
    if kind == "real":
        rows = normal(50, 14)
        machine = en.GaussianRBM(14, 10, data=rows, key=key)
    elif kind == "deep":
        rows = GENERATOR.integers(0, 2, (50, 12))
        machine = en.DBM((12, 8, 6), data=rows, key=key)
    else:
        rows = np.asarray(kind.states)[GENERATOR.integers(0, len(kind.states), (50, *kind.shape))]
        machine = en.RBM(kind, 10, data=rows, key=key)
    rough = jax.tree.map(lambda x: x + 0.4 * jax.random.normal(key, x.shape), machine)
    machine = eqx.tree_at(lambda m: m.weights, machine, rough.weights)
    exact = en.evaluate.log_likelihood(machine, rows)
    assert exact.log_partition.method == "exact"
    result = en.evaluate.log_likelihood(machine, rows, "bracket", key=key, num_steps=200)
    assert result.lower < exact.value < result.upper
    assert result.upper - result.lower < 1.0
    assert abs(result.value - exact.value) < 4 * result.log_partition.stderr


# --- coordinates


@machines
def test_offsets_change_no_density(name: str) -> None:
    machine = MACHINES[name]
    moved = machine.with_offsets(
        **{layer: 0.3 * i - 0.2 for i, layer in enumerate(machine.variables)}
    )
    difference = energies(machine) - energies(moved)
    np.testing.assert_allclose(difference, difference.ravel()[0], atol=1e-4)
    np.testing.assert_allclose(at_all(moved, grid(machine)), energies(moved).ravel(), atol=1e-4)
    offsets = {n: layer.offset for n, layer in zip(machine.variables, machine._layers, strict=True)}
    again = moved.with_offsets(**offsets)
    for old, new in zip(jax.tree.leaves(machine), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-5)
    plain = jax.tree.leaves(moved.with_offsets(v=0)._layers[0].offset)
    np.testing.assert_array_equal(plain[0], 0)


def test_centred_gradients() -> None:
    """The gradient by the formulas of Montavon and Müller, from the one about 0."""
    rbm, mu, lam = MACHINES["bits"], np.array([0.2, 0.9, 0.5, 0.4]), np.array([0.3, 0.5, 0.8])
    assert isinstance(rbm, en.RBM)
    v, h, other = np.array([1.0, 0, 1, 1]), np.array([0.0, 1, 1]), np.array([0.0, 0, 1, 0])

    def gradient(rbm: en.RBM) -> en.RBM:
        return jax.grad(lambda rbm: rbm(v, h) - rbm(other, 1 - h))(
            rbm.with_offsets(v=rbm.visible_offset)
        )

    plain, centred = gradient(rbm), gradient(rbm.with_offsets(v=mu, h=lam))
    down, up = np.asarray(plain.visible_bias), np.asarray(plain.hidden_bias)
    expected = np.asarray(plain.weights) - np.outer(mu, up) - np.outer(down, lam)
    np.testing.assert_allclose(centred.weights, expected, atol=1e-6)
    np.testing.assert_allclose(centred.visible_bias, down, atol=1e-6)


@pytest.mark.slow
def test_offsets_are_not_trained(key: jax.Array) -> None:
    rows = GENERATOR.integers(0, 2, (50, 6))
    rbm = en.RBM(6, 3, data=rows, key=key)
    result = en.fit(rbm, rows, "pcd", key=key, num_steps=3)
    np.testing.assert_array_equal(result.energy.visible_offset, rbm.visible_offset)
    assert not np.allclose(result.energy.visible_bias, rbm.visible_bias, atol=1e-4)


def zeros(arrays: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, arrays)


@pytest.mark.parametrize("kind", [en.Binary(5), en.Spin(5), en.Categorical(3, 5)], ids=str)
def test_a_machine_begins_at_the_means_of_data(kind: Any, key: jax.Array) -> None:
    rows = np.asarray(kind.states)[GENERATOR.integers(0, len(kind.states), (40, 5))]
    rows[:, 1] = kind.states[0]  # a unit that never moves has a finite bias
    for machine in (en.RBM(kind, 3, data=rows, key=key), en.DBM((kind, 3, 2), data=rows, key=key)):
        layer = machine._layers[0]
        without = eqx.tree_at(lambda m: m.weights, machine, replace_fn=zeros)
        others = {n: jnp.zeros(s.shape) for n, s in machine.supports.items() if n != "v" and s}
        factors: Any = without._factorize("v", others)
        got = np.asarray(jax.nn.softmax(factors.logits, -1))
        counts = np.stack([(rows == state).sum(0) for state in kind.states], -1) + 1.0
        np.testing.assert_allclose(got, counts / counts.sum(-1, keepdims=True), rtol=1e-4)
        share = counts / counts.sum(-1, keepdims=True)
        mean = share if isinstance(kind, en.Categorical) else share @ np.asarray(kind.states)
        np.testing.assert_allclose(layer.offset, mean, rtol=1e-5, atol=1e-6)


# --- real visible units


def components(machine: en.GaussianRBM, weight: float = 1.0) -> tuple[np.ndarray, ...]:
    """The mixture of normals that exp(-weight E) is: log masses, means, variance."""
    units = statistics(machine.hidden, every(machine.hidden)) - np.ravel(machine.hidden_offset)
    weights = np.asarray(machine.weights, float).reshape(2, -1)
    b, c = np.asarray(machine.visible_bias, float), np.ravel(machine.hidden_bias)
    offset, variance = np.asarray(machine.visible_offset), np.exp(np.asarray(machine.log_variance))
    means = b + units @ weights.T
    square = (means**2 - b**2) / 2 - offset * (means - b)
    log_masses = weight * (units @ c + (square / variance).sum(1))
    log_masses += 0.5 * np.log(2 * np.pi * variance / weight).sum()
    return log_masses, means, variance / weight


@gaussians
def test_a_gaussian_machine_is_a_mixture(name: str) -> None:
    moved = GAUSSIAN[name].with_offsets(v=[0.5, -1.0], h=0.3)
    v = normal(20, 2)
    for machine in (GAUSSIAN[name], moved):
        for weight in (1.0, 0.7):
            log_masses, means, variance = components(machine, weight)
            square = ((v[:, None] - means) ** 2 / variance).sum(-1)
            parts = log_masses - 0.5 * square - 0.5 * np.log(2 * np.pi * variance).sum()
            expected = -np.asarray(log_sum(parts, axis=1))
            tempered = weight * machine
            got = at_all(tempered.marginalize("h"), {"v": v})
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
            log_z = np.ravel(log_sum(log_masses))[0]
            assert en.evaluate.log_partition(tempered).value == pytest.approx(log_z, rel=1e-5)
            got = at_all(tempered.marginalize("v"), {"h": every(machine.hidden)})
            np.testing.assert_allclose(got, -log_masses, rtol=1e-4, atol=1e-4)
    one, two = (components(e) for e in (GAUSSIAN[name], moved))
    np.testing.assert_allclose(one[0] - two[0], one[0][0] - two[0][0], atol=1e-4)
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)


@pytest.mark.parametrize("name", ["real on softmax"])
def test_gibbs_of_a_gaussian_machine(name: str, key: jax.Array) -> None:
    machine = GAUSSIAN[name] / 4
    starts = {n: jnp.zeros((COUNT, *s.shape), s.dtype) for n, s in machine.supports.items() if s}
    v = np.asarray(chains(machine, starts, key)["v"], float)
    log_masses, means, variance = components(GAUSSIAN[name], 0.25)
    share = np.exp(log_masses - np.ravel(log_sum(log_masses))[0])
    mean = share @ means
    spread = share @ (means - mean) ** 2 + variance
    assert np.all(np.abs(v.mean(0) - mean) < 5 * np.sqrt(spread / len(v)))
    square = (v - mean) ** 2
    assert np.all(np.abs(square.mean(0) - spread) < 5 * square.std(0) / np.sqrt(len(v)))


def test_tempering_of_a_gaussian_machine(key: jax.Array) -> None:
    """Gibbs at every level: a fitted reference with correlations would leave it no conditional."""
    machine = GAUSSIAN["real on bits"]
    log_masses, means, variance = components(machine)
    log_z = np.ravel(log_sum(log_masses))[0]
    share = np.exp(log_masses - log_z)
    sampler = en.samplers.ParallelTempering("gibbs", num_replicas=4)
    draws = en.sample(machine, sampler, key=key, num_chains=50, num_warmup=200, num_samples=200)
    mean = share @ means
    spread = share @ (means - mean) ** 2 + variance
    offset = np.asarray(draws["v"], float) - mean
    for found, truth in ((offset, 0.0), (offset**2, spread)):
        each = found.mean(1)
        error = each.std(0, ddof=1) / np.sqrt(len(each))
        assert np.all(np.abs(each.mean(0) - truth) < 5 * error)
    estimate = en.evaluate.log_partition(machine, "ais", kernel="gibbs", key=key, num_steps=200)
    assert abs(estimate.value - log_z) < 5 * estimate.stderr


@pytest.mark.slow
def test_a_gaussian_machine_learns_its_variances(key: jax.Array) -> None:
    """Two clusters of known places and spread, by PCD."""
    places, spread = np.array([[0.8, 0.0], [-0.8, 0.5]]), np.array([0.5, 0.4])
    rows = places[GENERATOR.integers(0, 2, 4000)] + normal(4000, 2) * spread
    rbm = en.GaussianRBM(2, 1, data=rows, key=key)
    np.testing.assert_allclose(np.exp(rbm.log_variance), rows.var(0), rtol=1e-4)
    objective = en.objectives.PCD(num_steps=5, buffer_size=1000, reinit_prob=0.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))
    machine = en.fit(
        rbm, rows, objective, key=key, num_steps=2000, batch_size=500, optimizer=optimizer
    ).ema_energy
    got = np.exp(0.5 * np.asarray(machine.log_variance))
    np.testing.assert_allclose(got, spread, rtol=0.1)
    means = components(machine)[1]
    np.testing.assert_allclose(means[np.argsort(-means[:, 0])], places, atol=0.1)
    square = ((rows[:, None] - places) ** 2 / spread**2).sum(-1)
    truth = np.logaddexp.reduce(-square / 2, axis=1).mean() - math.log(4 * math.pi * spread.prod())
    assert en.evaluate.log_likelihood(machine, rows).value > truth - 0.02


# --- layers


def test_a_deep_machine_is_the_sum_of_its_machines() -> None:
    for name in ("deep", "deep and mixed"):
        machine = MACHINES[name]
        assert isinstance(machine, en.DBM)
        again = en.DBM.from_rbms(machine.rbms)
        for old, new in zip(jax.tree.leaves(machine), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(old, new, atol=1e-6)
        total: Any = sum(machine._terms())
        got = at_all(total, grid(machine))
        np.testing.assert_allclose(got, energies(machine).ravel(), rtol=1e-5, atol=1e-5)


def test_layers_that_do_not_meet_are_summed_out_in_closed_form(key: jax.Array) -> None:
    """Visible and second hidden units given the first, of more states than can be enumerated."""
    dbm = en.DBM((40, 3, 50), key=key)
    free = dbm.marginalize("v", "h2")
    low, high = dbm.rbms
    hidden = np.array([1.0, 0.0, 1.0])
    down = np.log1p(np.exp(np.asarray(low.visible_bias) + np.asarray(low.weights) @ hidden)).sum()
    up = np.log1p(np.exp(np.asarray(high.hidden_bias) + hidden @ np.asarray(high.weights))).sum()
    assert float(free(hidden)) == pytest.approx(-down - up, rel=1e-5)
    drawn = dbm._exact({"h1": jnp.asarray(hidden)})
    assert drawn is not None
    assert float(drawn.log_partition) == pytest.approx(down + up, rel=1e-5)
    assert {n: x.shape for n, x in drawn.draw(key).items()} == {"v": (40,), "h2": (50,)}
    estimate = en.evaluate.log_partition(dbm)  # 2^3 states of h1
    assert estimate.method == "exact"
    assert estimate.value == pytest.approx(93 * math.log(2), abs=0.1)


def test_clamped_units() -> None:
    """Conditioned on, and inpainted: the law of the missing units given those that are known."""
    rbm = MACHINES["bits"]
    image = jnp.array([1.0, 0.0, 0.0, 1.0])
    missing = jnp.array([1, 3])
    inpainted = rbm.substitute(v=lambda missing_units: image.at[missing].set(missing_units))
    inpainted = inpainted.constrain(missing_units=en.Binary(2)).marginalize("h")
    free = rbm.marginalize("h")
    for state in every(en.Binary(2)):
        filled = np.array([1.0, state[0], 0.0, state[1]])
        assert float(inpainted(state)) == pytest.approx(float(free(filled)), rel=1e-5)
    posterior = rbm.condition(v=image)._exact({})
    assert posterior is not None
    assert float(posterior.log_partition) == pytest.approx(-float(free(image)), rel=1e-5)


# --- Hopfield networks


def test_hopfield_is_an_ising_model_and_a_machine_summed_out() -> None:
    patterns = np.sign(normal(3, 6))
    memory = en.Hopfield(patterns)
    pairs = np.array(list(itertools.combinations(range(6), 2)))
    couplings = (patterns.T @ patterns / 6)[pairs[:, 0], pairs[:, 1]]
    ising = en.Ising(6, coupling=couplings, edges=pairs)
    states = every(en.Spin(6))
    got = np.asarray(at_all(memory, {"x": states}))
    expected = np.asarray(at_all(ising, {"x": states})) - 3 / 2
    np.testing.assert_allclose(got, expected, atol=1e-5)
    real = en.GaussianRBM.from_parameters(
        patterns / math.sqrt(6), np.zeros(3), np.zeros(6), hidden=en.Spin(6)
    )
    summed = np.asarray(at_all(real.marginalize("v"), {"h": states}))
    np.testing.assert_allclose(summed + 1.5 * math.log(2 * math.pi), got, atol=1e-5)


def test_hopfield_recalls(key: jax.Array) -> None:
    """Half of a pattern clamped, at a low temperature: the other half comes back."""
    patterns = np.sign(normal(3, 60))
    memory = en.Hopfield(patterns)
    half = jnp.asarray(patterns[1, :30])
    recall = memory.substitute(x=lambda rest: jnp.concatenate([half, rest]))
    recall = (recall / 0.4).constrain(rest=en.Spin(30))
    draws = en.sample(recall, "gibbs", key=key, num_chains=4, num_warmup=20, num_samples=400)
    mean = np.asarray(draws["rest"]).mean((0, 1))
    np.testing.assert_allclose(mean, patterns[1, 30:], atol=0.2)


# --- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda k: en.RBM(en.Spin((2, 2)), 3, key=k), r"vector of at least 1 unit.*\(2, 2\)"),
        (
            lambda k: en.RBM(3, 2, data=np.zeros((5, 2)), key=k),
            r"data= must have shape \(rows, 3\)",
        ),
        (lambda k: en.RBM(3, 2, data=np.full((5, 3), 0.5), key=k), "data= has 15 values outside"),
        (lambda k: en.GaussianRBM(2, 3, data=np.ones((5, 2)), key=k), "variance of data= has 2"),
        (lambda k: en.DBM((3,), key=k), "at least two layers"),
        (lambda k: en.DBM((3, 0), key=k), r"layers\[1\]= must be at least 1, got 0"),
        (lambda k: en.DBM.from_rbms([]), "at least one RBM"),
        (
            lambda k: en.DBM.from_rbms([en.RBM(3, 2, key=k), en.RBM(3, 2, key=k)]),
            "hidden units of machine 0 are binary",
        ),
        (lambda k: MACHINES["bits"].with_offsets(x=1.0), r"with_offsets\(\) got \['x'\]"),
        (lambda k: MACHINES["bits"].with_offsets(v=np.ones(3)), "offset of 'v' of shape"),
        (lambda k: MACHINES["softmax"].at({"v": np.zeros(3, int), "h": np.zeros(3)}), "one value"),
        (lambda k: en.Hopfield(np.ones(3)), r"shape \(patterns, n\)"),
        (
            lambda k: en.RBM.from_parameters(
                np.ones((2, 3)), np.ones(2), np.ones(3), visible=DIGIT
            ),
            "axis over states more",
        ),
        (
            lambda k: en.GaussianRBM.from_parameters(np.ones((2, 3)), np.ones(2), np.ones(2)),
            r"needs weights of shape \(visible, hidden\)",
        ),
    ],
)
def test_bad_input(make: Any, message: str, key: jax.Array) -> None:
    with pytest.raises(ValueError, match=message):
        make(key)


def test_units_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"en\.GaussianRBM has real visible units"):
        layer_of(en.Real(3), "num_hidden")
