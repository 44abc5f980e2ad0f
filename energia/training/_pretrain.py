"""Greedy layer-wise training of deep Boltzmann machines."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax

from energia._types import Values, check_key
from energia.energies import DBM, RBM
from energia.energies._energy import Energy
from energia.objectives._objective import Objective
from energia.training._fit import DEFAULT_OPTIMIZER, fit


def pretrain(
    model: DBM,
    data: Any,
    objective: str | Objective = "pcd",
    *,
    key: jax.Array,
    num_steps: int = 5000,
    batch_size: int | None = None,
    optimizer: Any = DEFAULT_OPTIMIZER,
    progress: bool | None = None,
) -> DBM:
    r"""Train a deep Boltzmann machine layer by layer, as a start for `en.fit`.

    Each of its `rbms` in turn is trained on draws of the layer below given the data, as part of a
    machine in which an inner layer has its neighbour twice: what stands for the layer that is not
    there yet. Of the first machine the visible layer is doubled, of the last one the hidden layer,
    of the others both. Their sum is what comes back; all layers together are then trained by
    `en.fit`, usually with `mean_field=True`.

    Args:
        model: the machine to start from; it is not changed.
        data: rows of v, shape (rows, visible), or a dict of them, `{"v": rows}`.
        objective: how each is trained, a name or a configuration, as for `en.fit`.
        key: a typed JAX key.
        num_steps: optimiser steps a layer, at least 1.
        batch_size: rows a step, as for `en.fit`.
        optimizer: an Optax optimiser, made anew for each layer.
        progress: as for `en.fit`.

    Returns:
        The machine after pre-training.

    Raises:
        TypeError, ValueError: for a model that is no `DBM`, and whatever `en.fit` raises.

    References:
        Salakhutdinov and Hinton (2009), Deep Boltzmann machines. Salakhutdinov and Hinton (2012), A
        better way to pretrain deep Boltzmann machines.

    Example:
        >>> import energia as en, jax, numpy as np
        >>> digits = np.random.default_rng(0).integers(0, 2, (100, 6))
        >>> dbm = en.DBM((6, 4, 3), data=digits, key=jax.random.key(0))
        >>> begun = en.pretrain(dbm, digits, key=jax.random.key(1), num_steps=10)
        >>> print(begun)
        DBM(v, h1, h2)  [v: binary (6,), h1: binary (4,), h2: binary (3,); 49 parameters]
    """
    if not isinstance(model, DBM):
        raise TypeError(f"pretrain() trains the layers of an en.DBM, got {model!r}")
    if isinstance(data, Mapping):
        if set(data) != {"v"}:
            raise ValueError(f"pretrain() takes data of 'v' alone, got {sorted(data)}")
        data = data["v"]
    key, rbms = check_key(key), model.rbms
    machines: list[Energy] = []
    for number, rbm in enumerate(rbms):
        machine = _doubled(rbm, below=number == 0, above=number == len(rbms) - 1)
        augment, rows = None, dict.fromkeys(_visible(machine), data)
        if machines:
            augment, rows = _Upwards(tuple(machines)), {"v": data}
        trained = fit(
            machine,
            rows,
            objective,
            key=jax.random.fold_in(key, number),
            num_steps=num_steps,
            batch_size=batch_size,
            optimizer=optimizer,
            augment=augment,
            progress=progress,
        )
        machines.append(trained.energy)
    return DBM.from_rbms([_single(machine) for machine in machines])


def _doubled(rbm: RBM, *, below: bool, above: bool) -> Energy:
    """The machine with its neighbouring layer twice, on each side that is an end of the stack."""
    if below and above:
        return rbm
    if below:
        return rbm + rbm.rename(v="v_copy")
    return rbm + rbm.rename(h="h_copy") if above else 2 * rbm


def _single(machine: Any) -> RBM:
    """The machine that was doubled."""
    while not isinstance(machine, RBM):
        machine = machine.energies[0] if hasattr(machine, "energies") else machine.energy
    return machine


def _visible(machine: Energy) -> list[str]:
    return [name for name in machine.variables if name.startswith("v")]


class _Upwards(eqx.Module):
    """A draw of the hidden units of the topmost of some machines, given a row of data."""

    machines: tuple[Energy, ...]

    def __call__(self, datum: Values, key: jax.Array) -> Values:
        value = datum["v"]
        for number, machine in enumerate(self.machines):
            exact = machine._exact(dict.fromkeys(_visible(machine), value))
            assert exact is not None
            value = exact.draw(jax.random.fold_in(key, number))["h"]
        support = _single(self.machines[-1]).hidden
        return {"v": value.astype(support.dtype)}
