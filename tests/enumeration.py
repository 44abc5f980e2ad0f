"""Small discrete models by brute force: every state, its probability, the exact likelihood."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energia as en


def states(energy: en.Energy, names: tuple[str, ...] | None = None) -> dict[str, jax.Array]:
    """Every joint state of discrete variables, along a leading axis."""
    names = energy.variables if names is None else names
    each = []
    for name in names:
        support: Any = energy.supports[name]
        values = np.array(
            list(itertools.product(support.states, repeat=int(np.prod(support.shape))))
        )
        each.append(values.reshape(-1, *support.shape).astype(support.dtype))
    grid = np.meshgrid(*(np.arange(len(values)) for values in each), indexing="ij")
    return {
        name: jnp.asarray(values[index.ravel()])
        for name, values, index in zip(names, each, grid, strict=True)
    }


@eqx.filter_jit
def at_all(energy: en.Energy, rows: Any) -> jax.Array:
    """The energies of rows, by one compiled program."""
    return jax.vmap(energy.at)(rows)


def log_likelihood(energy: en.Energy, data: dict[str, jax.Array]) -> jax.Array:
    """The mean log-likelihood of data, with what it lacks summed out, all by enumeration."""
    log_partition = jax.nn.logsumexp(-jax.vmap(energy.at)(states(energy)))
    latent = tuple(name for name in energy.variables if name not in data)

    def log_density(row: dict[str, jax.Array]) -> jax.Array:
        if not latent:
            return -energy.at(row)
        hidden = states(energy, latent)
        return jax.nn.logsumexp(jax.vmap(lambda h: -energy.at({**row, **h}))(hidden))

    return jnp.mean(jax.vmap(log_density)(data)) - log_partition


def flat(tree: Any) -> np.ndarray:
    """The numbers of a tree in one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)
