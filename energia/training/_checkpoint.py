"""Checkpoints: atomic, without pickle, and only for the run that wrote them."""

import contextlib
import dataclasses
import os
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia.sampling._storage import OtherFormat, read_npz, versions, write_npz
from energia.training._fingerprint import host

FORMAT = "energia.checkpoint/2"
NAME = "checkpoint.npz"
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{32}\.tmp")  # the names that write_npz gives

Folder = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: the arrays of training, its history, and its step.

    `notes` say what stands beside the state of training, and are the run's own; `versions` are
    those of the libraries that wrote it.
    """

    folder: str
    arrays: list[np.ndarray]
    history: dict[str, np.ndarray]
    step: int
    notes: dict[str, Any]
    versions: dict[str, str]

    def restore(self, shapes: Any, key: jax.Array) -> Any:
        """The state of training, from its structure with shapes in place of arrays.

        Raises:
            ValueError: when the arrays do not fit.
        """
        dynamic, static = eqx.partition(shapes, lambda leaf: hasattr(leaf, "dtype"))
        wanted, structure = jax.tree.flatten(dynamic)
        if len(wanted) == len(self.arrays):
            arrays = [
                _as(like, saved, key) for like, saved in zip(wanted, self.arrays, strict=True)
            ]
            if all(
                a.shape == b.shape and a.dtype == b.dtype
                for a, b in zip(arrays, wanted, strict=True)
            ):
                return eqx.combine(jax.tree.unflatten(structure, arrays), static)
        here = versions()
        changed = [
            f"{n} {self.versions[n]}, now {now}"
            for n, now in here.items()
            if self.versions.get(n, now) != now
        ]
        told = f" ({'; '.join(changed)})" if changed else ""
        raise ValueError(
            f"the checkpoint in {self.folder!r} does not fit this run, though model, objective and "
            f"optimizer are the same: other versions of their libraries wrote it{told}. Give "
            "another checkpoint= folder"
        )


def _as(like: Any, saved: np.ndarray, key: jax.Array) -> jax.Array:
    """An array of the dtype of another, from what a file holds."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(key))
    # NumPy reads back bfloat16 as raw bytes
    return jnp.asarray(saved.view(like.dtype) if saved.dtype.kind == "V" else saved)


def save(
    folder: Folder,
    train: Any,
    history: dict[str, np.ndarray],
    step: int,
    identity: dict[str, Any],
    notes: dict[str, Any] | None = None,
) -> None:
    """Write the state of training, whole or not at all."""
    leaves = jax.tree.leaves(eqx.filter(train, eqx.is_array))
    arrays = {f"train/{index}": host(leaf) for index, leaf in enumerate(leaves)}
    arrays |= {f"history/{name}": values for name, values in history.items()}
    meta = {"format": FORMAT, "step": step, "identity": identity, "leaves": len(leaves)}
    meta |= {"notes": notes or {}}
    write_npz(os.path.join(folder, NAME), arrays, meta)


def stands(folder: Folder) -> bool:
    """Whether there is a checkpoint in a folder."""
    return os.path.exists(os.path.join(folder, NAME))


def load(folder: Folder, identity: dict[str, Any]) -> Saved | None:
    """The checkpoint in a folder; None, and the folder made, where there is none yet.

    Raises:
        ValueError: when the checkpoint is damaged, or another run wrote it.
    """
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):  # what a killed process left half written
        if _LEFT_BEHIND.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):  # another host was faster
                os.unlink(os.path.join(folder, name))
    path, where = os.path.join(folder, NAME), os.fspath(folder)
    if not stands(folder):
        return None
    try:
        arrays, meta = read_npz(path, FORMAT)
        written, step = meta["identity"], int(meta["step"])
        leaves = [arrays[f"train/{index}"] for index in range(meta["leaves"])]
        notes, wrote = dict(meta["notes"]), dict(meta.get("versions", {}))
    except OtherFormat as error:
        raise ValueError(
            f"the checkpoint in {where!r} is of another version of energia: {error}. Go on with "
            "that version, or give another checkpoint= folder"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the checkpoint in {where!r} is damaged: {error}. Delete {path} to begin again"
        ) from error
    if different := [what for what, value in identity.items() if written.get(what) != value]:
        raise ValueError(
            f"the checkpoint in {where!r} was written with another {' and '.join(different)}. "
            "Run the same line again to resume it, or give another checkpoint= folder"
        )
    history = {n.removeprefix("history/"): a for n, a in arrays.items() if n.startswith("history/")}
    return Saved(str(where), leaves, history, step, notes, wrote)
