"""Mean fields of deep machines: the bound, its gradient, and what is learned by it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from enumeration import at_all, log_likelihood, states
from test_boltzmann import MACHINES, deep

import energia as en
from energia.energies._mean_field import draw, has_mean_field, mean_field
from energia.objectives import CD, PCD, contrastive

DEEP = {name: MACHINES[name] for name in ("deep", "deep and mixed")}
GENERATOR = np.random.default_rng(11)


def rows_of(machine: en.Energy, count: int) -> Any:
    support: Any = machine.supports["v"]
    states = GENERATOR.integers(0, len(support.states), (count, *support.shape))
    return jnp.asarray(np.asarray(support.states)[states], support.dtype)


@eqx.filter_jit
def fields(machine: en.Energy, rows: jax.Array) -> Any:
    return jax.vmap(lambda v: mean_field(machine, machine.variables[1:], {"v": v}))(rows)


def probabilities(support: Any, mean: np.ndarray) -> np.ndarray:
    """Of each state of each entry, from the means of its statistics."""
    if isinstance(support, en.Categorical):
        return mean
    low, high = support.states
    return np.stack([high - mean, mean - low], -1) / (high - low)


@pytest.mark.parametrize("name", DEEP)
def test_the_free_energy_is_that_of_the_law(name: str) -> None:
    """Energy and entropy under q by a sum over all states, and the bound on the exact one."""
    machine, v = DEEP[name], rows_of(DEEP[name], 1)
    latent = machine.variables[1:]
    found = fields(machine, v)
    hidden: Any = states(machine, latent)
    log_q = np.zeros(len(hidden[latent[0]]))
    for layer in latent:
        support: Any = machine.supports[layer]
        share = probabilities(support, np.asarray(found.means[layer][0], float))
        places = np.asarray(support.positions(hidden[layer])).astype(int)
        log_q += np.log(np.take_along_axis(share[None], places[..., None], -1)).sum((1, 2))
    weights = np.exp(log_q)
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    energies = np.asarray(at_all(machine, {"v": jnp.tile(v, (len(log_q), 1)), **hidden}), float)
    exact = weights @ (energies + log_q)
    assert float(found.free_energy[0]) == pytest.approx(exact, abs=1e-4)
    free = float(machine.marginalize(*latent)(v[0]))
    assert free < exact < free + 1.0


@pytest.mark.parametrize("name", DEEP)
def test_no_other_independent_law_is_nearer(name: str) -> None:
    """At the fixed point each layer's means are those of its conditional at the others' means."""
    machine = DEEP[name]
    rows = rows_of(machine, 5)
    found = fields(machine, rows)
    for row, v in enumerate(rows):
        means = {n: np.asarray(x[row]) for n, x in found.means.items()}
        for layer in machine.variables[1:]:
            factors: Any = machine._factorize(layer, {"v": v, **means})
            share = np.asarray(jax.nn.softmax(factors.logits, -1))
            got = probabilities(machine.supports[layer], means[layer])
            np.testing.assert_allclose(got, share, atol=1e-4)


def test_exact_where_layers_are_independent() -> None:
    machine = MACHINES["deep"]
    assert isinstance(machine, en.DBM)
    apart = eqx.tree_at(lambda dbm: dbm.weights[1], machine, jnp.zeros((3, 2)))
    rows = rows_of(machine, 4)
    exact = at_all(apart.marginalize("h1", "h2"), {"v": rows})
    np.testing.assert_allclose(fields(apart, rows).free_energy, exact, rtol=1e-5)


def test_draws_have_the_means(key: jax.Array) -> None:
    machine = MACHINES["deep and mixed"]
    found = fields(machine, rows_of(machine, 1))
    means = {n: x[0] for n, x in found.means.items()}
    keys = jax.random.split(key, 20_000)
    drawn = jax.jit(jax.vmap(lambda key: draw(machine, means, key)))(keys)
    for name, mean in means.items():
        support: Any = machine.supports[name]
        assert drawn[name].dtype == support.dtype
        share = probabilities(support, np.asarray(mean, float))
        seen = np.stack([(np.asarray(drawn[name]) == s).mean(0) for s in support.states], -1)
        assert np.all(np.abs(seen - share) < 5 * np.sqrt(share * (1 - share) / 20_000) + 1e-4)


@pytest.mark.parametrize("name", DEEP)
def test_gradients_are_those_of_the_bound(name: str) -> None:
    """Against differences of the bound, whose law moves with the parameters."""
    machine, rows = DEEP[name], rows_of(DEEP[name], 3)

    def bound(machine: Any) -> jax.Array:
        return jnp.sum(fields(machine, rows).free_energy)

    slopes = eqx.filter_grad(bound)(machine)
    step = 1e-2
    for pick in (lambda m: m.weights[1], lambda m: m.biases[0], lambda m: m.biases[2]):
        for place in ((0,) * pick(machine).ndim, (-1,) * pick(machine).ndim):
            ends = [
                float(bound(eqx.tree_at(pick, machine, pick(machine).at[place].add(move))))
                for move in (step, -step)
            ]
            expected = (ends[0] - ends[1]) / (2 * step)
            assert float(pick(slopes)[place]) == pytest.approx(expected, abs=5e-3)


def test_what_passes_through_the_algebra() -> None:
    low, high = MACHINES["bits"], MACHINES["bits"].rename(v="h", h="g")
    shapes = {"v": jax.ShapeDtypeStruct((4,), np.float32)}
    pair = low + MACHINES["deep"].rename(v="h", h1="g", h2="f")
    assert isinstance(low, en.RBM)
    for energy, known in (
        (pair, True),
        (pair / 2.0, True),
        (pair.freeze(), True),
        (0.3 * low + pair, True),
        (pair + en.energy(g=en.Binary(3))(lambda g: jnp.prod(g)), False),
        (pair.substitute(g=lambda g: g**2).constrain(g=en.Binary(3)), False),
    ):
        assert has_mean_field(energy, ("h", "g", "f"), shapes) is known, energy
    assert high.variables == ("h", "g")
    weighted = {"h": jnp.full(3, 0.5), "g": jnp.full(3, 0.2), "f": jnp.full(2, 0.7)}
    one = pair.at({"v": jnp.ones(4), **weighted})
    assert float((pair / 2.0).at({"v": jnp.ones(4), **weighted})) == pytest.approx(float(one) / 2)


# --- likelihoods


@pytest.mark.parametrize("name", DEEP)
def test_a_small_machine_s_likelihood_is_exact(name: str) -> None:
    machine = DEEP[name]
    rows = rows_of(machine, 6)
    result = en.evaluate.log_likelihood(machine, rows)
    assert not result.is_bound
    assert result.value == pytest.approx(float(log_likelihood(machine, {"v": rows})), abs=1e-4)


def test_a_large_machine_has_a_lower_bound() -> None:
    """Hidden layers of 2^30 states, of which few units act: the exact answer is that of these."""
    small = MACHINES["deep"]
    assert isinstance(small, en.DBM)
    sizes = (3, 30, 30)
    wide = [
        jnp.pad(matrix, [(0, size - had) for size, had in zip(pair, matrix.shape, strict=True)])
        for matrix, pair in zip(small.weights, (sizes[:2], sizes[1:]), strict=True)
    ]
    biases = [jnp.pad(b, (0, n - b.size)) for b, n in zip(small.biases, sizes, strict=True)]
    machine = en.DBM(sizes, key=jax.random.key(0))
    machine = eqx.tree_at(lambda m: (m.weights, m.biases), machine, (tuple(wide), tuple(biases)))
    rows = rows_of(small, 50)
    log_z = en.evaluate.log_partition(small).value + (27 + 28) * np.log(2)
    result = en.evaluate.log_likelihood(machine, rows, log_partition=log_z)
    exact = en.evaluate.log_likelihood(small, rows)
    assert result.is_bound
    assert result.upper == np.inf
    assert "a lower bound" in repr(result)
    gap = exact.per_datum - result.per_datum
    assert np.all(gap > -1e-4)
    assert 1e-3 < gap.mean() < 1.0


# --- learning


@pytest.mark.slow
@pytest.mark.parametrize("objective", [CD, PCD])
def test_a_deep_machine_learns_by_its_mean_field(objective: Any, key: jax.Array) -> None:
    """Noisy copies of two patterns: near the entropy of the data, which no model can beat."""
    truth = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])[GENERATOR.integers(0, 2, 2048)]
    data = np.where(GENERATOR.uniform(size=truth.shape) < 0.1, 1 - truth, truth)
    dbm = en.DBM((4, 3, 2), data=data, key=key)
    result = en.fit(
        dbm,
        data,
        objective(mean_field=True, num_steps=20),
        key=key,
        num_steps=600,
        batch_size=256,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 600)),
    )
    _, counts = np.unique(data, axis=0, return_counts=True)
    entropy = -np.sum(counts / 2048 * np.log(counts / 2048))
    end = en.evaluate.log_likelihood(result.ema_energy, data).value
    assert -entropy - 0.1 < end < -entropy + 1e-3


def test_both_phases_share_one_mean_field(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*args: Any) -> Any:
        asked.append(args)
        return mean_field(*args)

    monkeypatch.setattr(contrastive, "mean_field", counted)
    machine = DEEP["deep"]
    rows = {"v": rows_of(machine, 4)}
    jax.eval_shape(
        lambda key: CD(mean_field=True).loss(machine, None, rows, None, key)[0], jax.random.key(0)
    )
    assert len(asked) == 1


def test_what_has_no_mean_field_is_refused(key: jax.Array) -> None:
    @en.energy(v=en.Binary(3), h=en.Binary(2), g=en.Binary(2))
    def unknown(v, h, g):
        return v[0] * h[0] * h[1] * jnp.sum(g)

    model = unknown + MACHINES["deep"].rename(h1="a", h2="b")
    rows = np.zeros((20, 3))
    with pytest.raises(ValueError, match=r"mean_field=True needs an energy that is linear"):
        en.fit(model, rows, PCD(mean_field=True), key=key, num_steps=1)
    objective = PCD(mean_field=True, latent_sampler="gibbs")
    with pytest.raises(ValueError, match="latent_sampler= draws latent variables and mean_field"):
        en.fit(deep(en.Binary(3), en.Binary(3), en.Binary(2)), rows, objective, key=key)
