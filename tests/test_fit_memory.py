"""Memory of the compiled training step: it grows neither with the steps nor with the chains'."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jax.core import Tracer
from short_fits import DATA, train

import energia as en
from energia.objectives import CD, PCD, Objective
from energia.samplers import Langevin
from energia.training import _loop

NETWORK = en.MLPEnergy(2, width=64, depth=2, key=jax.random.key(1))


class Unrolled(Objective):
    """Contrastive divergence with a gradient through the chains, which stores all their steps."""

    num_steps: int = eqx.field(static=True, kw_only=True)

    def init(self, energy: en.Energy, data: Any, key: jax.Array) -> Any:
        return None, None

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        def step(x, _):
            return x - 0.1 * jax.vmap(jax.grad(energy))(x), None

        moved, _ = jax.lax.scan(step, batch["x"], length=self.num_steps)
        energies = jax.vmap(energy)
        return jnp.mean(energies(batch["x"])) - jnp.mean(energies(moved)), None, {}


def temporary_bytes(monkeypatch: Any, objective: Objective, num_steps: int) -> int:
    """What the compiled steps of a fit take beside their arguments and results."""
    advance, sizes = _loop.advance, []

    def spy(fixed, carry):
        if not isinstance(fixed[2], Tracer):
            analysis = advance.lower(fixed, carry).compile().compiled.memory_analysis()
            sizes.append(analysis.temp_size_in_bytes)
        return advance(fixed, carry)

    with monkeypatch.context() as patch:
        patch.setattr(_loop, "advance", spy)
        train(NETWORK, DATA, objective, num_steps=num_steps)
    assert len(set(sizes)) == 1
    return sizes[0]


def contrastive(name: str, num_steps: int) -> Objective:
    langevin = Langevin(step_size=0.01)
    chains: dict[str, Objective] = {
        "pcd": PCD(sampler=langevin, num_steps=num_steps, buffer_size=64)
    }
    chains["cd"] = CD(sampler=langevin, num_steps=num_steps)
    chains["unrolled"] = Unrolled(num_steps=num_steps)
    return chains[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cd", "pcd"])
def test_the_peak_does_not_grow(name, monkeypatch):
    few = temporary_bytes(monkeypatch, contrastive(name, 2), num_steps=1)
    assert few > 0
    assert temporary_bytes(monkeypatch, contrastive(name, 200), num_steps=1) == few
    assert temporary_bytes(monkeypatch, contrastive(name, 2), num_steps=33) == few
    # activations of both layers, for data and samples, forth and back: not those of 20 steps
    activations = 4 * 2 * 32 * 64 * 2
    assert few < 20 * activations


@pytest.mark.slow
def test_the_peak_of_unrolled_chains_does(monkeypatch):
    few, many = (temporary_bytes(monkeypatch, Unrolled(num_steps=k), 1) for k in (2, 40))
    assert many > 4 * few
