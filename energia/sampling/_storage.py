"""Draws on disk: one .npz file of arrays and JSON, no pickle."""

import dataclasses
import json
import os
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from energia.energies._energy import Energy
from energia.samplers._sampler import Kernel, Sampler, registry

if TYPE_CHECKING:
    from energia.sampling._draws import Draws

FORMAT = "energia.draws/1"


def write_npz(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], meta: Any) -> None:
    """Write arrays and JSON to one file, whole or not at all."""
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder {folder!r} does not exist: make it first")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, __meta__=np.asarray(json.dumps(meta)), **arrays)  # pyright: ignore
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read_npz(path: str | os.PathLike[str], format: str) -> tuple[dict[str, np.ndarray], Any]:
    """Read what `write_npz` wrote.

    Raises:
        FileNotFoundError: when there is no file.
        ValueError: when the file is damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("__meta__").item())
        found = meta["format"]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as {format}: {error}") from error
    if found != format:
        raise ValueError(f"{path} holds {found!r}, expected {format!r}")
    return arrays, meta


def encode(config: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """A sampler's configuration as JSON; its arrays go into `arrays`."""
    if isinstance(config, Sampler):
        name = registry.name_of(type(config))
        if name is None:
            return None
        fields = {
            field.name: encode(getattr(config, field.name), arrays, f"{prefix}/{field.name}")
            for field in dataclasses.fields(config)
        }
        return {"sampler": name, "fields": fields}
    if eqx.is_array(config):
        arrays[prefix] = np.asarray(config)
        return {"array": prefix}
    if config is None or isinstance(config, bool | int | float | str):
        return {"value": config}
    return None


def decode(data: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `encode`; None where something could not be encoded."""
    if data is None:
        return None
    if "array" in data:
        return arrays[data["array"]]
    if "value" in data:
        return data["value"]
    fields = {name: decode(value, arrays) for name, value in data["fields"].items()}
    return registry.get(data["sampler"])(**fields)


def save(draws: "Draws", path: str | os.PathLike[str]) -> None:
    """See `Draws.save`."""
    from energia import __version__

    arrays = {f"positions/{name}": value for name, value in draws.positions.items()}
    arrays |= {f"stats/{name}": value for name, value in draws._stats.items()}
    arrays["keys"] = draws.chain_keys
    leaves = jax.tree.leaves(eqx.filter(draws.chains, eqx.is_array))
    arrays |= {f"chains/{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    meta = {
        "format": FORMAT,
        "energia": __version__,
        "jax": jax.__version__,
        "energy": None if draws.energy is None else draws.energy._formula(),
        "sampler": encode(draws.sampler, arrays, "sampler"),
        "steps": draws.steps,
        "num_warmup": draws.num_warmup,
        "thin": draws.thin,
        "key_impl": draws.run.key_impl if draws.run else draws.meta.get("key_impl"),
        "method": draws.run.method if draws.run else draws.meta.get("method"),
        "leaves": len(leaves),
    }
    write_npz(path, arrays, meta)


def load(
    path: str | os.PathLike[str], energy: Energy | None, sampler: Kernel | None
) -> "Draws":
    """See `Draws.load`."""
    from energia.sampling._draws import Draws
    from energia.sampling._sample import prepare

    arrays, meta = read_npz(path, FORMAT)
    positions = {n[10:]: a for n, a in arrays.items() if n.startswith("positions/")}
    stats = {n[6:]: a for n, a in arrays.items() if n.startswith("stats/")}
    kernel = sampler if sampler is not None else decode(meta["sampler"], arrays)
    leaves = [arrays[f"chains/{index}"] for index in range(meta["leaves"])]
    run = chains = None
    if energy is not None:
        if kernel is None:
            raise ValueError(
                f"{path} was drawn by a sampler that is not registered: give sampler= as well"
            )
        last = {name: value[:, -1] for name, value in positions.items()}
        if set(energy.variables) != set(last):
            raise ValueError(
                f"{path} holds the variables {tuple(last)}, the energy has {energy.variables}"
            )
        run, fresh = prepare(
            energy, kernel, arrays["keys"], meta["key_impl"], meta["num_warmup"], meta["thin"],
            meta["method"], last, [],
        )
        dynamic, static = eqx.partition(fresh, eqx.is_array)
        old, structure = jax.tree.flatten(dynamic)
        if [a.shape for a in old] != [a.shape for a in leaves]:
            raise ValueError(f"{path} was made with another energy or another sampler")
        chains = eqx.combine(jax.tree.unflatten(structure, leaves), static)
    return Draws(
        energy=energy,
        sampler=kernel,
        positions=positions,
        _stats=stats,
        steps=meta["steps"],
        num_warmup=meta["num_warmup"],
        thin=meta["thin"],
        chain_keys=arrays["keys"],
        run=run,
        chains=chains,
        meta=meta,
    )
