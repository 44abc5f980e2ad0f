"""Short fits for the tests: whatever is not given is the same each time, so programs are shared."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energia as en

DATA = np.random.default_rng(0).normal(1.0, 0.5, (256, 2)).astype(np.float32)
START = en.Gaussian(jnp.zeros(2), covariance=jnp.eye(2))
CHAINS = en.objectives.PCD(sampler=en.samplers.MALA(step_size=0.1), num_steps=2, buffer_size=64)
ROWS = np.arange(10.0)[:, None]
LINE = en.Gaussian(jnp.zeros(1))


class Cliff(en.Energy):
    """Its gradient moves theta up by one rate a step; beyond the edge it is not a number."""

    theta: jax.Array
    edge: jax.Array = en.constant()

    def __call__(self, x):
        return jnp.where(self.theta > self.edge, jnp.nan, -self.theta) + 0 * jnp.sum(x)


def train(model: Any = START, data: Any = DATA, objective: Any = None, **kwargs: Any) -> Any:
    """A short fit, by default of a Gaussian by denoising score matching."""
    settings: dict[str, Any] = {
        "key": jax.random.key(0),
        "num_steps": 40,
        "batch_size": 32,
        "optimizer": optax.adamw(1e-2),
        "progress": False,
    }
    objective = en.objectives.DSM(sigma=0.5) if objective is None else objective
    return en.fit(model, data, objective, **{**settings, **kwargs})


def drawn(result: en.Fit) -> np.ndarray:
    """The first four entries of the batches that `Probe` saw: (step, row)."""
    return np.stack([result.history[f"row{i}"] for i in range(4)], axis=1)


def arrays(tree: Any) -> list[np.ndarray]:
    """Copies of the arrays of a tree."""
    return [np.array(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def assert_equal(one: Any, two: Any) -> None:
    """Equal structure, and every array equal bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for first, second in zip(arrays(one), arrays(two), strict=True):
        np.testing.assert_array_equal(first, second)


def assert_equal_fits(one: en.Fit, two: en.Fit) -> None:
    """Two fits equal bit for bit: parameters, averages and history."""
    assert one.num_steps == two.num_steps
    for name in ("energy", "ema_energy", "learned", "ema_learned", "history"):
        assert_equal(getattr(one, name), getattr(two, name))


def moved(one: Any, two: Any) -> bool:
    """Whether every array of one tree differs from that of the other."""
    pairs = list(zip(arrays(one), arrays(two), strict=True))
    assert pairs
    return all(np.any(first != second) for first, second in pairs)
