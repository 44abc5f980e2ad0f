"""Objectives recover the parameters of models whose answer is known, within standard errors.

The standard errors are those of the data: of an estimator that is the least of a mean over rows,
$A^{-1} B A^{-1} / N$ with the mean Hessian $A$ and the covariance $B$ of a row's gradient at the
truth (White, 1982); of persistent chains, as of maximum likelihood, the inverse Fisher information.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from enumeration import states
from jax.flatten_util import ravel_pytree
from toy_energies import Precision

import energia as en
from energia.objectives import CNCE, MLE, NCE, PCD, SM, SSM
from energia.samplers import MALA

pytestmark = pytest.mark.slow

ROWS, STEPS = 2048, 500
CHAINS = PCD(sampler=MALA(step_size=0.4), num_steps=10, buffer_size=512, reinit_prob=0.0)


class Share(en.Energy):
    """Two known normals, and the log odds of their shares."""

    log_odds: jax.Array

    def __call__(self, x):
        parts = jnp.stack([-0.5 * (x + 1) ** 2, self.log_odds - 0.5 * (x - 1) ** 2])
        return jax.nn.softplus(self.log_odds) - jax.nn.logsumexp(parts)

    def _supports(self):
        return {"x": en.Real()}


class Unmixing(en.Energy):
    """Independent components: logistic sources, found again by a matrix."""

    matrix: jax.Array

    def __call__(self, x):
        sources = self.matrix @ x
        return jnp.sum(sources + 2 * jax.nn.softplus(-sources))

    def _supports(self):
        return {"x": en.Real(2)}


class Case(NamedTuple):
    truth: en.Energy
    start: en.Energy
    x: np.ndarray


def _cases() -> dict[str, Case]:
    generator = np.random.default_rng(11)
    entries = np.array([1.5, 0.5, 1.0])
    root = np.linalg.cholesky(np.linalg.inv([[1.5, 0.5], [0.5, 1.0]]))
    side = np.where(generator.uniform(size=ROWS) < 0.7, 1.0, -1.0)
    matrix = np.array([[1.0, 0.5], [-0.3, 1.2]])
    sources = generator.logistic(size=(ROWS, 2))
    lattice = en.Ising((3, 3), coupling=0.25, field=0.15)
    every = np.asarray(states(lattice)["x"])
    weights = np.asarray(jax.nn.softmax(-jax.vmap(lattice)(jnp.asarray(every))), np.float64)
    picked = generator.choice(len(every), ROWS, p=weights / weights.sum())
    return {
        "precision of a normal": Case(
            Precision(jnp.asarray(entries, float)),
            Precision(jnp.array([1.0, 0.0, 1.5])),
            generator.normal(size=(ROWS, 2)) @ root.T,
        ),
        "shares of a mixture": Case(
            Share(jnp.asarray(np.log(0.7 / 0.3), float)),
            Share(jnp.array(0.0)),
            side + generator.normal(size=ROWS),
        ),
        "independent components": Case(
            Unmixing(jnp.asarray(matrix, float)),
            Unmixing(jnp.array([[0.8, 0.2], [0.0, 1.0]])),
            sources @ np.linalg.inv(matrix).T,
        ),
        "a lattice of spins": Case(
            lattice, en.Ising((3, 3), coupling=0.1, field=0.0), every[picked]
        ),
    }


CASES = _cases()
CHOSEN = [
    ("precision of a normal", SM()),
    ("precision of a normal", SSM()),
    ("precision of a normal", NCE(ratio=5)),
    ("precision of a normal", CNCE(ratio=5)),
    ("precision of a normal", CHAINS),
    ("shares of a mixture", SM()),
    ("shares of a mixture", NCE(ratio=5)),
    ("shares of a mixture", CHAINS),
    ("independent components", SSM()),
    ("independent components", NCE(ratio=5)),
    ("independent components", CHAINS),
    ("a lattice of spins", MLE()),
    ("a lattice of spins", PCD(num_steps=5, buffer_size=512, reinit_prob=0.0)),
]


@eqx.filter_jit
def standard_errors(objective: Any, energy: en.Energy, x: jax.Array, key: jax.Array) -> jax.Array:
    """Of the parameters of an energy, at the truth."""
    arrays, rest = eqx.partition(energy, eqx.is_inexact_array)
    learned, state = objective.init(energy, {"x": x}, key)
    vector, unravel = ravel_pytree((arrays, learned))
    count = ravel_pytree(arrays)[0].size

    def loss(vector: jax.Array, row: jax.Array, key: jax.Array) -> jax.Array:
        arrays, learned = unravel(vector)
        energy = eqx.combine(arrays, rest)
        if isinstance(objective, PCD):  # of which the data's part is the mean energy
            return energy(row)
        keys = jax.random.split(key, 16)
        batch = {"x": row[None]}
        return jnp.mean(
            jax.vmap(lambda key: objective.loss(energy, learned, batch, state, key)[0])(keys)
        )

    keys = jax.random.split(key, len(x))
    slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(vector, x, keys)
    spread = jnp.cov(slopes.T).reshape(vector.size, vector.size)
    if isinstance(objective, PCD):
        covariance = jnp.linalg.inv(spread)
    else:
        curvature = jnp.mean(jax.vmap(jax.hessian(loss), (None, 0, 0))(vector, x, keys), 0)
        covariance = jnp.linalg.solve(curvature, jnp.linalg.solve(curvature, spread).T)
    return jnp.sqrt(jnp.diagonal(covariance)[:count] / len(x))


@pytest.mark.parametrize(
    ("name", "objective"), CHOSEN, ids=[f"{name}, {type(by).__name__}" for name, by in CHOSEN]
)
def test_parameters_are_recovered_within_three_standard_errors(name, objective, key):
    truth, start, x = CASES[name]
    error = standard_errors(objective, truth, jnp.asarray(x, float), key)
    exact, _ = ravel_pytree(truth)
    for batch_size in (64, 512):
        result = en.fit(
            start,
            x,
            objective,
            key=key,
            num_steps=STEPS,
            batch_size=batch_size,
            optimizer=optax.adam(optax.cosine_decay_schedule(0.05, STEPS)),
            ema_decay=0.98,
            progress=False,
        )
        found, _ = ravel_pytree(result.ema_energy)
        z = np.asarray((found - exact) / error)
        assert np.sqrt(np.mean(z**2)) < 3, (batch_size, found, exact, error)
