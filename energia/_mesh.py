"""Devices that share rows out among them: chains, particles, the rows of a batch."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from energia._types import put

AXIS = "energia"


def check_mesh(mesh: Any, count: int, what: str) -> Mesh | None:
    """The devices of a mesh in one line, unless they cannot get equally many of `count` rows each.

    `what` tells how the user said so: 'num_chains=4'. The axes, and what JAX would do by itself
    along them, are of no concern here.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh= takes a mesh such as jax.make_mesh((8,), ('rows',)), got {mesh!r}")
    if count % mesh.size:
        fewer = count // mesh.size * mesh.size
        take = f"{fewer} or {fewer + mesh.size}" if fewer else f"{mesh.size}"
        raise ValueError(
            f"{what} cannot be shared out evenly to the {mesh.size} devices of mesh=: take {take}"
        )
    return Mesh(mesh.devices.reshape(-1), (AXIS,))


def over(mesh: Mesh) -> PartitionSpec:
    """How a leading axis lies over all devices of a mesh."""
    return PartitionSpec(mesh.axis_names)


def hosts(mesh: Mesh | None) -> int:
    """How many processes have devices of a mesh."""
    return 1 if mesh is None else len({device.process_index for device in mesh.devices.flat})


def leads(mesh: Mesh | None) -> bool:
    """Whether this process is the one that writes files for all that have devices of a mesh."""
    if mesh is None:
        return True
    return jax.process_index() == min(device.process_index for device in mesh.devices.flat)


def fetch(array: Any) -> np.ndarray:
    """An array on this host, also where other hosts hold parts of it."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


# --- programs that JAX divides by itself: rows are shared out, all else is whole on each device


def placed(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays whole on each device of a mesh; without one as they are."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        return jax.device_put(leaf if _is_key(leaf) else np.array(leaf), whole)

    return jax.tree.map(place, tree)


def ordinary(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that are whole on each device of a mesh, as arrays that belong to no device."""
    if mesh is None:
        return tree

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if _is_key(leaf):
            words = put(np.asarray(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        return put(np.asarray(leaf))

    return jax.tree.map(one, tree)


def sharing(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """While a program is traced: `shared` means the devices of this mesh."""
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def shared(tree: Any) -> Any:
    """Rows shared out to the devices of `sharing`; such as these do not divide, to none."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != (AXIS,):
        return tree

    def share(rows: jax.Array) -> jax.Array:
        if rows.ndim == 0 or len(rows) % mesh.size:
            return rows
        return jax.lax.with_sharding_constraint(rows, PartitionSpec(AXIS))

    return jax.tree.map(share, tree)


def whole(tree: Any) -> Any:
    """Arrays whole on each device of `sharing`."""
    if jax.sharding.get_abstract_mesh().axis_names != (AXIS,):
        return tree
    arrays, structure = jax.tree.flatten(tree)
    arrays = [
        jax.lax.with_sharding_constraint(leaf, PartitionSpec()) if hasattr(leaf, "dtype") else leaf
        for leaf in arrays
    ]
    return jax.tree.unflatten(structure, arrays)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


# --- inside `shard_map`, where a program has its own rows alone; without a mesh it has all of them


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """The rows of all devices, in their order."""
    if mesh is None:
        return tree
    gather = jax.lax.all_gather
    return jax.tree.map(lambda rows: gather(rows, mesh.axis_names, tiled=True), tree)


def own(tree: Any, mesh: Mesh | None) -> Any:
    """Of all rows those of this device."""
    if mesh is None:
        return tree
    device = jax.lax.axis_index(mesh.axis_names)

    def rows(all_rows: jax.Array) -> jax.Array:
        count = len(all_rows) // mesh.size
        return jax.lax.dynamic_slice_in_dim(all_rows, device * count, count)

    return jax.tree.map(rows, tree)
