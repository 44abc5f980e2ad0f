"""Draws on disk: one .npz file of arrays and JSON, no pickle."""

import dataclasses
import json
import os
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from blackjax.mcmc.metrics import LowRankInverseMassMatrix

from energia._types import Values
from energia.energies._energy import Energy
from energia.energies._unconstrained import Unconstrained
from energia.paths import Path
from energia.samplers import combine
from energia.samplers._sampler import ParticleSampler, Sampler, registry
from energia.sampling._driver import Chain, Run

if TYPE_CHECKING:
    from energia.sampling._draws import Draws

FORMAT = "energia.draws/1"
SAME = 1e-3  # tolerance on an energy that other hardware may have computed
LIBRARIES = ("jax", "jaxlib", "equinox", "blackjax", "optax", "numpy")  # of a file's versions


class OtherFormat(ValueError):
    """A file of another kind, or of another version."""


def versions() -> dict[str, str]:
    """What writes a file: energia and the libraries that its numbers come from."""
    from energia import __version__

    return {"energia": __version__, **{name: version(name) for name in LIBRARIES}}


def write_npz(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], meta: Any) -> None:
    """Write arrays and JSON to one file, whole or not at all; `versions` go with it."""
    path, meta = os.fspath(path), {"versions": versions(), **meta}
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder {folder!r} does not exist: make it first")
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, __meta__=np.asarray(json.dumps(meta)), **arrays)  # pyright: ignore
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.add_note(f"{path!r} was not written; what stood there before is as it was")
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read_npz(path: str | os.PathLike[str], format: str) -> tuple[dict[str, np.ndarray], Any]:
    """Read what `write_npz` wrote.

    Raises:
        FileNotFoundError: when there is no file.
        ValueError: when the file is damaged, or (`OtherFormat`) of another kind.
    """
    try:
        # np.load leaves a damaged file open that it opened itself
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("__meta__").item())
        found = meta["format"]
    except FileNotFoundError:
        raise
    except Exception as error:  # what a damaged archive raises is beyond listing
        raise ValueError(f"{path} cannot be read as {format}: {error}") from error
    if found != format:
        raise OtherFormat(f"{path} holds {found!r}, expected {format!r}")
    return arrays, meta


def encode(config: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """A sampler's configuration as JSON; its arrays go into `arrays`.

    None where its class is not registered, or a field holds more than numbers, names and samplers.
    """
    if isinstance(config, Sampler):
        name = registry.name_of(type(config)) or _own_name(type(config))
        fields = {
            field.name: encode(getattr(config, field.name), arrays, f"{prefix}/{field.name}")
            for field in dataclasses.fields(config)
        }
        return (
            None if name is None or None in fields.values() else {"sampler": name, "fields": fields}
        )
    if eqx.is_array(config):
        arrays[prefix] = np.asarray(config)
        return {"array": prefix}
    if isinstance(config, tuple):
        items = [encode(item, arrays, f"{prefix}/{index}") for index, item in enumerate(config)]
        if None in items:
            return None
        low_rank = isinstance(config, LowRankInverseMassMatrix)
        return {"low_rank" if low_rank else "items": items}
    if config is None or isinstance(config, bool | int | float | str):
        return {"value": config}
    return None


def _own_name(cls: type) -> str | None:
    """The name of a class of energia's that is made with arguments, and so is not registered."""
    return cls.__name__ if getattr(combine, cls.__name__, None) is cls else None


def _class_of(name: str) -> type | None:
    return registry.get(name) if name in registry.names() else getattr(combine, name, None)


def decode(data: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `encode`; None where there is nothing, or its class is not registered here."""
    if data is None or ("sampler" in data and _class_of(data["sampler"]) is None):
        return None
    if "array" in data:
        return arrays[data["array"]]
    if "value" in data:
        return data["value"]
    if "items" in data:
        return tuple(decode(item, arrays) for item in data["items"])
    if "low_rank" in data:
        return LowRankInverseMassMatrix(*(decode(item, arrays) for item in data["low_rank"]))
    fields = {name: decode(value, arrays) for name, value in data["fields"].items()}
    cls = _class_of(data["sampler"])
    assert cls is not None
    return cls(**fields)


def save(draws: "Draws", path: str | os.PathLike[str]) -> None:
    """See `Draws.save`."""
    arrays = {f"positions/{name}": value for name, value in draws.positions.items()}
    arrays |= {f"stats/{name}": value for name, value in draws._stats.items()}
    arrays |= {f"last/{name}": value for name, value in _last(draws).items()}
    arrays |= {f"groups/{g}/{n}": a for g, made in draws._groups.items() for n, a in made.items()}
    arrays["keys"] = draws.chain_keys
    arrays |= {f"chains/{index}": leaf for index, leaf in enumerate(_leaves(draws))}
    meta = {
        "format": FORMAT,
        "energy": draws.energy._formula() if draws.energy else draws.meta.get("energy"),
        "sampler": encode(draws.sampler, arrays, "sampler"),
        "steps": draws.steps,
        "num_warmup": draws.num_warmup,
        "thin": draws.thin,
        "key_impl": draws.run.key_impl if draws.run else draws.meta.get("key_impl"),
        "method": draws.run.method if draws.run else draws.meta.get("method"),
        "leaves": len(_leaves(draws)),
    }
    write_npz(path, arrays, meta)


def _leaves(draws: "Draws") -> list[np.ndarray]:
    """The arrays of the chains: of draws loaded without an energy, as they were in the file."""
    if draws.chains is None:
        return draws.meta.get("chains", [])
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(draws.chains, eqx.is_array))]


def _last(draws: "Draws") -> dict[str, np.ndarray]:
    """The variables at the last draw of each chain, where something else was collected."""
    if draws.run is None or draws.chains is None:
        return draws.meta.get("last", {})
    if draws.run.collect is None:
        return {}
    values = _constrained(draws.run.target, draws.chains.state.position)
    return {name: np.asarray(value) for name, value in values.items()}


def load(
    path: str | os.PathLike[str],
    energy: Energy | Path | None,
    sampler: str | Sampler | None,
    collect: Callable[..., Any] | None,
) -> "Draws":
    """See `Draws.load`."""
    from energia.sampling._draws import Draws

    arrays, meta = read_npz(path, FORMAT)
    positions = {n[10:]: a for n, a in arrays.items() if n.startswith("positions/")}
    stats = {n[6:]: a for n, a in arrays.items() if n.startswith("stats/")}
    groups: dict[str, dict[str, np.ndarray]] = {}
    for path_in_file, array in arrays.items():
        if path_in_file.startswith("groups/"):
            _, group, name = path_in_file.split("/", 2)
            groups.setdefault(group, {})[name] = array
    kernel: Any = decode(meta["sampler"], arrays) if sampler is None else registry.resolve(sampler)
    meta["chains"] = [arrays[f"chains/{index}"] for index in range(meta["leaves"])]
    meta["last"] = {n[5:]: a for n, a in arrays.items() if n.startswith("last/")}
    run, chains = None, None
    if energy is not None and not isinstance(kernel, ParticleSampler):
        if kernel is None:
            raise ValueError(
                f"{path} was drawn by a sampler that is not registered: give sampler= as well"
            )
        if (collect is None) == bool(meta["last"]):
            needed = "give collect= as well" if meta["last"] else "leave collect= out"
            raise ValueError(f"{path} holds {tuple(positions)} of each draw: {needed}")
        last = meta["last"] or {name: value[:, -1] for name, value in positions.items()}
        lp = stats["lp"][:, -1]
        run, chains = _resume(path, energy, kernel, arrays["keys"], meta, last, lp, collect)
        kept = eqx.filter_eval_shape(_kept, run, chains.state.position)
        found = {name: value.shape[:1] + value.shape[2:] for name, value in positions.items()}
        if (given := {name: value.shape for name, value in kept.items()}) != found:
            raise ValueError(f"{path} holds {found}, but collect= gives {given}")
    return Draws(
        energy=energy.target if isinstance(energy, Path) else energy,
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
        _groups=groups,
    )


def _resume(
    path: Any,
    energy: Energy | Path,
    kernel: Any,
    keys: np.ndarray,
    meta: dict[str, Any],
    last: dict[str, np.ndarray],
    lp: np.ndarray,
    collect: Callable[..., Any] | None,
) -> tuple[Run, Chain]:
    """The run and its chains as they were saved, if this is the energy that was sampled."""
    from energia.sampling._sample import prepare

    if set(energy.variables) != set(last):
        raise ValueError(
            f"{path} holds the variables {tuple(last)}, the energy has {energy.variables}"
        )
    for name, support in energy.supports.items():
        if support is not None and support.shape != (shape := last[name].shape[1:]):
            raise ValueError(f"{path} holds {name!r} of shape {shape}, the energy needs {support}")
    counts = meta["num_warmup"], meta["thin"]
    how = meta["key_impl"], *counts, meta["method"]
    run, fresh = prepare(energy, kernel, keys, *how, last, [], collect)
    found = -np.asarray(_energies(run.target.energy, last))
    wrong = ~np.isclose(found, lp, rtol=SAME, atol=SAME)
    if wrong.any():
        raise ValueError(
            f"{path} was made with another energy: at the last draw of chain {np.argmax(wrong)} "
            f"minus the energy is {found[wrong][0]:.8g}, in the file {lp[wrong][0]:.8g}"
        )
    dynamic, static = eqx.partition(fresh, eqx.is_array)
    old, structure = jax.tree.flatten(dynamic)
    if [(a.shape, a.dtype) for a in old] != [(a.shape, a.dtype) for a in meta["chains"]]:
        raise ValueError(
            f"{path} was made with another energy, another sampler than {kernel}, or in another "
            "precision (jax_enable_x64)"
        )
    return run, eqx.combine(jax.tree.unflatten(structure, meta["chains"]), static)


@eqx.filter_jit
def _energies(energy: Energy, values: Mapping[str, Any]) -> jax.Array:
    return jax.vmap(energy.at)(values)


@eqx.filter_jit
def _constrained(target: Unconstrained, positions: Mapping[str, Any]) -> Values:
    return jax.vmap(lambda position: target.constrain(position)[0])(dict(positions))


def _kept(run: Run, positions: Mapping[str, Any]) -> Values:
    return jax.vmap(lambda position: run.keep(position)[0])(dict(positions))
