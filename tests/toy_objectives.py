"""Objectives for the tests: small right ones, and broken ones that the checks must reject."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import energia as en
from energia.objectives import PCD, Objective


class Probe(Objective):
    """Tells the rows of every batch, up to four; its loss is the mean energy of the batch."""

    def init(self, energy: en.Energy, data: dict[str, jax.Array], key: jax.Array) -> Any:
        return None, None

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        rows = {f"row{i}": jnp.ravel(batch["x"])[i] for i in range(4)}
        return jnp.mean(jax.vmap(energy.at)(batch)), state, rows


class CountedProbe(Probe):
    """Keeps its steps in the state, with a typed key and an array in half precision."""

    def init(self, energy: en.Energy, data: dict[str, jax.Array], key: jax.Array) -> Any:
        return None, {"steps": jnp.int32(0), "key": key, "half": jnp.zeros(2, jnp.bfloat16)}

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        value, _, rows = super().loss(energy, learned, batch, None, key)
        key, subkey = jax.random.split(state["key"])
        noise = jax.random.normal(subkey, (2,), jnp.bfloat16)
        state = {"steps": state["steps"] + 1, "key": key, "half": state["half"] + noise}
        return value + state["half"][0].astype(float), state, {**rows, "steps": state["steps"]}


class ToyNCE(Objective):
    """Noise-contrastive estimation with the log partition function learned beside the energy.

    `learned` is a module with a function in it, a number, and a constant.
    """

    noise: en.Gaussian

    def __init__(self, scale: float = 1.5):
        self.noise = en.Gaussian(jnp.zeros(2), scale=scale)

    def init(self, energy: en.Energy, data: dict[str, jax.Array], key: jax.Array) -> Any:
        return Offset(jnp.zeros(()), jnp.square), None

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        noise = self.noise.mean + self.noise.scale * jax.random.normal(key, batch["x"].shape)

        def logit(x):
            return self.noise(x) - energy(x) - learned.log_partition * learned.one

        data = jnp.mean(jax.nn.softplus(-jax.vmap(logit)(batch["x"])))
        return data + jnp.mean(jax.nn.softplus(jax.vmap(logit)(noise))), None, {}


class Offset(eqx.Module):
    log_partition: jax.Array
    activation: Any
    one: jax.Array = en.constant(default=1.0)


class WrongSign(en.objectives.DSM):
    """Maximises what it should minimise."""

    def loss(self, *args: Any) -> Any:
        value, state, metrics = super().loss(*args)
        return -value, state, metrics


class ForgetsChains(PCD):
    """Never writes its chains back."""

    def loss(self, energy: Any, learned: Any, batch: Any, state: Any, key: Any) -> Any:
        value, _, metrics = super().loss(energy, learned, batch, state, key)
        return value, state, metrics


class WrongResidual(en.objectives.DSM):
    """Denoising score matching with another multiple of the noise for its target."""

    factor: float = eqx.field(kw_only=True, static=True)

    def loss(self, energy: Any, learned: Any, batch: Any, state: Any, key: Any) -> Any:
        noise = jax.random.normal(key, batch["x"].shape)
        slope = jax.vmap(jax.grad(energy))(batch["x"] + self.sigma * noise)
        return 0.5 * jnp.mean(jnp.sum((slope - self.factor * noise) ** 2, 1)), None, {}


class Impure(en.objectives.DSM):
    """Counts its calls outside the state."""

    calls: list[int] = eqx.field(default_factory=list, static=True)

    def loss(self, *args: Any) -> Any:
        self.calls.append(1)
        value, state, metrics = super().loss(*args)
        return value + len(self.calls), state, metrics

    def __hash__(self) -> int:
        return id(self)


class GrowingState(Probe):
    """A state that changes its shape."""

    def init(self, energy: en.Energy, data: dict[str, jax.Array], key: jax.Array) -> Any:
        return None, jnp.zeros(1)

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        value, _, rows = super().loss(energy, learned, batch, None, key)
        return value, jnp.concatenate([state, state]), rows


class VectorLoss(Probe):
    """A loss with a number for each row."""

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        return jax.vmap(energy.at)(batch), state, {}


class VectorMetric(Probe):
    """A metric with a number for each row."""

    def loss(self, energy: en.Energy, learned: Any, batch: Any, state: Any, key: jax.Array) -> Any:
        values = jax.vmap(energy.at)(batch)
        return jnp.mean(values), state, {"values": values}
