"""Samplers of discrete and mixed variables: exact, and what is not is rejected."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._factors import Categorical, Normal
from energia.samplers import BlockGibbs, DiscreteLangevin, Gibbs, GibbsWithGradients, discrete
from energia.samplers._combined import CombinedState, Part, given, told
from energia.testing import Target, check_sampler
from energia.testing._targets import discrete as discrete_targets
from energia.testing._targets import enumerate_target, mixed

KINDS, CLOSED = discrete_targets()


# --- negative controls: what check_sampler must reject


class Flawed(GibbsWithGradients):
    """Gibbs with gradients that corrects wrongly."""

    flaw: str = eqx.field(static=True, default="")

    def step(self, energy, state, key):
        with patch.object(discrete, "_metropolis", flawed_metropolis(self.flaw)):
            return super().step(energy, state, key)


class FlawedLangevin(DiscreteLangevin):
    """Discrete Langevin that corrects wrongly."""

    flaw: str = eqx.field(static=True, default="", kw_only=True)

    def step(self, energy, state, key):
        with patch.object(discrete, "_metropolis", flawed_metropolis(self.flaw)):
            return super().step(energy, state, key)


def flawed_metropolis(flaw: str) -> Any:
    sound = discrete._metropolis

    def metropolis(key, old, new, log_ratio):
        if flaw == "accepts all":
            return new, jnp.ones(())
        return sound(key, old, new, 0 * log_ratio if flaw == "no reverse move" else log_ratio)

    return metropolis


@pytest.mark.parametrize("flaw", ["accepts all", "no reverse move"])
@pytest.mark.parametrize(
    "make", [lambda flaw: Flawed(flaw), lambda flaw: FlawedLangevin(step_size=1.0, flaw=flaw)]
)
def test_wrong_correction(make: Any, flaw: str) -> None:
    with pytest.raises(AssertionError, match=r"exactly .* \(z = [-+]\d"):
        check_sampler(make(flaw), targets=[KINDS])


class FlawedGibbs(Gibbs):
    """Gibbs sampling with a flaw."""

    flaw: str = eqx.field(static=True, default="")

    def step(self, energy, state, key):
        if self.flaw == "stale conditional":  # all variables at once, given the others as they were
            states = [
                super(FlawedGibbs, self).step(energy, state, jax.random.fold_in(key, index))[0]
                for index in range(len(energy.variables))
            ]
            first = {}
            for name, new in zip(energy.variables, states, strict=True):
                given_others = {n: x for n, x in state.position.items() if n != name}
                factors: Any = energy._factorize(name, {**given_others, name: new.position[name]})
                support: Any = energy.supports[name]
                drawn = factors.draw(jax.random.fold_in(key, len(first)), support)
                first[name] = drawn.astype(new.position[name].dtype)
            return type(state)(first), {}
        sound = Categorical.draw_positions

        def draw(factors, key):
            return sound(Categorical(factors.base, -factors.logits, factors.colours), key)

        with patch.object(Categorical, "draw_positions", draw):
            return super().step(energy, state, key)


@pytest.mark.parametrize("flaw", ["stale conditional", "wrong sign"])
def test_wrong_conditional(flaw: str) -> None:
    machine = en.RBM.from_parameters([[2.0, -1.0]], [0.3], [-0.5, 0.4])
    target = enumerate_target("a machine", machine, {"E v h": lambda v, h: v[0] * h[0]})
    check_sampler(Gibbs(), targets=[target])
    with pytest.raises(AssertionError, match=r"exactly .* \(z = [-+]\d"):
        check_sampler(FlawedGibbs(flaw), targets=[target])


def test_wrong_colours() -> None:
    """Neighbours of one colour, drawn at once."""
    lattice = en.Ising((2, 3), coupling=0.3, field=0.1)
    pairs = {"E x x": lambda x: x[0, 0] * x[0, 1]}
    exact = enumerate_target("a torus", lattice, pairs)
    wrong = dataclasses.replace(exact, energy=other_colours(lattice, (0,) * 6))
    with pytest.raises(AssertionError, match=r"E x x .* exactly .* \(z = [-+]\d"):
        check_sampler("gibbs", targets=[wrong])


def other_colours(lattice: en.Ising, colours: tuple[int, ...]) -> en.Ising:
    graph = lattice.graph
    changed = object.__new__(type(graph))
    for field in dataclasses.fields(graph):
        object.__setattr__(changed, field.name, getattr(graph, field.name))
    object.__setattr__(changed, "colours", colours)
    return eqx.tree_at(lambda model: model.graph, lattice, changed)


class StaleBlocks(BlockGibbs):
    """Blocks whose kernels keep what they knew of the energy before the others moved."""

    def step(self, energy, state, key):
        position, parts = state.position, []
        for index, (kernel, names) in enumerate(self._pairs(energy)):
            conditional, _ = given(energy, names, position)
            stale, info = kernel.step(
                conditional, state.parts[index].state, jax.random.fold_in(key, index)
            )
            position = {**position, **stale.position}
            parts.append(Part(stale, info))
        infos = {"_".join(n): p.info for (_, n), p in zip(self._pairs(energy), parts, strict=True)}
        return CombinedState(position, tuple(parts)), {**told(infos), "lp": -energy.at(position)}

    def _with(self, kernels):
        blocks: Any = self.blocks
        return StaleBlocks(tuple((n, k) for (n, _), k in zip(blocks, kernels, strict=True)))


@pytest.mark.slow
def test_stale_cache() -> None:
    blocks: Any = {("x", "tau"): en.samplers.MALA(step_size=0.3), "z": "gibbs_with_gradients"}
    check_sampler(BlockGibbs(blocks), targets=[mixed()])
    with pytest.raises(AssertionError, match=r"exactly .* \(z = [-+]\d"):
        check_sampler(StaleBlocks(blocks), targets=[mixed()])


# --- discrete Langevin without correction: against its own law


def test_uncorrected_langevin_follows_its_own_law() -> None:
    field, coupling, step_size = np.array([0.3, -0.2, 0.1]), np.array([0.7, -0.5]), 1.5
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))

    @en.energy(s=en.Spin((3,)))
    def spins(s):
        pairs = jnp.sum(jnp.asarray(coupling) * s[1:] * s[:-1])
        return -jnp.sum(jnp.asarray(field) * s) - pairs

    matrix = np.zeros((8, 8))
    for row, s in enumerate(states):
        slope = -field.copy()
        slope[1:] -= coupling * s[:-1]
        slope[:-1] -= coupling * s[1:]
        flip = np.exp(0.5 * 2 * slope * s - 4 / (2 * step_size))  # against staying, at 1
        moved = states != s
        matrix[row] = np.prod(np.where(moved, flip, 1.0) / (1 + flip), axis=1)
    np.testing.assert_allclose(matrix.sum(1), 1)
    values, vectors = np.linalg.eig(matrix.T)
    law = np.real(vectors[:, np.argmax(np.real(values))])
    law /= law.sum()
    mean = law @ states
    pair = {"E s[0] s[1]": (lambda s: s[0] * s[1], float(law @ (states[:, 0] * states[:, 1])))}
    own = Target("its law", spins, mean={"s": mean}, variance={"s": 1 - mean**2}, expectations=pair)
    kernel = DiscreteLangevin(step_size=step_size, adjusted=False)
    assert kernel.has(en.samplers.Biased)
    assert "no Metropolis step" in str(kernel.bias())
    check_sampler(kernel, targets=[own])
    exact = enumerate_target("spins", spins, {"E s[0] s[1]": lambda s: s[0] * s[1]})
    with pytest.raises(AssertionError, match=r"exactly .* \(z = [-+]\d"):
        check_sampler(kernel, targets=[exact])
    corrected = DiscreteLangevin(step_size=step_size)
    assert not corrected.has(en.samplers.Biased)
    check_sampler(corrected, targets=[exact])


# --- what Gibbs draws


class Labelled(en.Energy):
    """A normal variable with a label, conditionals in closed form."""

    means: jax.Array

    def __call__(self, x, z):
        return 0.5 * jnp.sum((x - self.means[z]) ** 2) + 0.5 * z

    def _supports(self):
        return {"x": en.Real((2,)), "z": en.Categorical(3)}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Any:
        if name == "z":
            return super()._factorize(name, values)
        mean, z = self.means[values["z"]], values["z"]
        return Normal(0.5 * jnp.sum(mean**2) + 0.5 * z, mean, jnp.ones(2))


def test_gaussian_conditionals_beside_labels() -> None:
    means = np.array([[-1.0, 0.5], [0.5, 0.0], [2.0, -1.0]])
    weights = np.exp(-0.5 * np.arange(3))
    weights /= weights.sum()
    mean, label = weights @ means, weights @ np.arange(3)
    target = Target(
        "labels and normals",
        Labelled(jnp.asarray(means, jnp.float32)),
        mean={"x": mean, "z": label},
        variance={
            "x": 1 + weights @ (means - mean) ** 2,
            "z": weights @ (np.arange(3) - label) ** 2,
        },
        expectations={
            "E x[0] z": (lambda x, z: x[0] * z, float(weights @ (means[:, 0] * np.arange(3)))),
        },
    )
    check_sampler("gibbs", targets=[target])


@pytest.mark.parametrize(
    "energy",
    [
        en.Potts((2, 3), 3, coupling=0.5, field=[0.2, 0.0, -0.1]),
        en.Ising(
            4,
            coupling=[0.5, -0.6, 0.4, 0.3, -0.2, 0.7],
            field=0.1,
            edges=[[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]],
        ),
        en.Ising(6, coupling=0.3, field=0.1, edges=list(itertools.combinations(range(6), 2))),
    ],
    ids=["Potts", "as many colours as spins", "colours in a loop"],
)
def test_gibbs_by_colour(energy: en.Energy) -> None:
    target = enumerate_target("a graph", energy, {"E 01": lambda x: x.ravel()[0] * x.ravel()[1]})
    check_sampler("gibbs", targets=[target])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gibbs", "gibbs_with_gradients", "discrete_langevin"])
def test_torus(sampler: str, key: jax.Array) -> None:
    """Mean spin and edge correlation of the 5 by 5 torus by its transfer matrix."""

    def collect(x):
        edges = (jnp.mean(x * jnp.roll(x, 1, axis)) for axis in (0, 1))
        return {"spin": jnp.mean(x), "edge": sum(edges) / 2}

    model = en.Ising((5, 5), coupling=0.2, field=0.2)
    draws = en.sample(
        model, sampler, key=key, num_chains=64, num_samples=1000, thin=25, collect=collect
    )
    for name, exact in (("spin", 0.482970), ("edge", 0.368767)):
        values = np.asarray(draws[name], float)
        error = np.std(values.mean(1)) / np.sqrt(len(values))
        assert error < 2e-3
        assert abs(values.mean() - exact) < 5 * error, (name, values.mean(), error)


# --- errors


COUNTS = en.energy(k=en.Natural(), x=en.Real())(lambda k, x: 1.0 * k + x**2)
PAIR = en.energy(x=en.Real(), z=en.Binary())(lambda x, z: 0.5 * (x - z) ** 2)


@pytest.mark.parametrize(
    ("energy", "sampler", "message"),
    [
        (
            PAIR,
            "nuts",
            r"NUTS moves along gradients, and 'z' is .*'gibbs'.*'block_gibbs'",
        ),
        (PAIR, "nuts", r"\.marginalize\('z'\), or fix it with \.condition\(z=\.\.\.\)"),
        (PAIR, "gibbs", r"'x' is real \(\), and <lambda>\(x, z\) knows none for it: .*'nuts'"),
        (PAIR, "gibbs_with_gradients", "finitely many values, and 'x' is real .*'block_gibbs'"),
        (PAIR, "discrete_langevin", "finitely many values, and 'x' is real .*'block_gibbs'"),
        (COUNTS, "gibbs", r"no largest value .*\.constrain\(k=en\.Categorical\(\.\.\.\)\)"),
        (COUNTS, "block_gibbs", "'k' is natural .* no largest value"),
        (COUNTS, "hmc", "'k' is discrete .* no largest value"),
        (PAIR, BlockGibbs({"x": "nuts"}), r"no block for \['z'\] of <lambda>\(x, z\)"),
        (PAIR, BlockGibbs({"x": "nuts", "y": "gibbs"}), r"a block of \['y'\]; the variables are"),
        (PAIR, BlockGibbs({"z": "nuts", "x": "nuts"}), "NUTS moves along gradients, and 'z'"),
    ],
)
def test_variables_that_do_not_fit(energy, sampler, message, compilations, key) -> None:
    with compilations() as seen, pytest.raises(TypeError, match=message):
        en.sample(energy, sampler, key=key)
    assert seen.count == 0, seen.compiled


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="adjusted=False\\) needs step_size="):
        DiscreteLangevin(adjusted=False)
    with pytest.raises(ValueError, match=r"step_size=\.\.\.\) must be positive"):
        DiscreteLangevin(step_size=0.0)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        DiscreteLangevin(target_acceptance_rate=1.5)
