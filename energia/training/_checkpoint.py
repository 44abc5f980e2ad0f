"""Checkpoints: atomic, without pickle, and only for the run that wrote them."""

import os
import re
import zlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia.sampling._storage import read_npz, write_npz
from energia.training._loop import Train

FORMAT = "energia.checkpoint/1"
NAME = "checkpoint.npz"


def structure_of(tree: Any) -> str:
    """Structure, shapes and dtypes as text that is the same in every process."""
    arrays, static = eqx.partition(tree, eqx.is_array)
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arrays)]
    text = f"{jax.tree.structure(tree)} {shapes} {jax.tree.leaves(static)}"
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def checksum(tree: Any) -> int:
    """A checksum of the numbers in the arrays."""
    total = 0
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total


def save(
    folder: str | os.PathLike[str],
    train: Train,
    history: dict[str, np.ndarray],
    step: int,
    identity: dict[str, Any],
) -> None:
    """Write the state of training, whole or not at all."""
    leaves = jax.tree.leaves(eqx.filter(train, eqx.is_array))
    arrays = {f"train/{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    arrays |= {f"history/{name}": values for name, values in history.items()}
    meta = {"format": FORMAT, "step": step, "identity": identity, "leaves": len(leaves)}
    write_npz(os.path.join(folder, NAME), arrays, meta)


def load(
    folder: str | os.PathLike[str], train: Train, identity: dict[str, Any]
) -> tuple[Train, dict[str, np.ndarray], int] | None:
    """The state of training, its history and its step; None where there is no checkpoint yet.

    Raises:
        ValueError: when the checkpoint is damaged, or another run wrote it.
    """
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):  # what a killed process left half written
        if name.startswith(".") and name.endswith(".tmp"):
            os.unlink(os.path.join(folder, name))
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return None
    arrays, meta = read_npz(path, FORMAT)
    for what, value in identity.items():
        if meta["identity"].get(what) != value:
            raise ValueError(
                f"the checkpoint in {os.fspath(folder)!r} was written with another {what}. "
                "Run the same line again to resume it, or give another checkpoint= folder"
            )
    dynamic, static = eqx.partition(train, eqx.is_array)
    old, structure = jax.tree.flatten(dynamic)
    leaves = [arrays[f"train/{index}"] for index in range(meta["leaves"])]
    if [(a.shape, a.dtype) for a in old] != [(a.shape, a.dtype) for a in leaves]:
        raise ValueError(f"the checkpoint in {os.fspath(folder)!r} is of another model")
    train = eqx.combine(jax.tree.unflatten(structure, [jnp.asarray(a) for a in leaves]), static)
    history = {n[8:]: a for n, a in arrays.items() if n.startswith("history/")}
    return train, history, int(meta["step"])
