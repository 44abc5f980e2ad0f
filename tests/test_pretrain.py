"""Layer-wise training: what each machine is trained as, and that it is a good start."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import energia as en
from energia.training import _pretrain

GENERATOR = np.random.default_rng(4)
PATTERNS = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])


def rows(count: int) -> np.ndarray:
    """Noisy copies of three patterns."""
    clean = PATTERNS[GENERATOR.integers(0, 3, count)]
    return np.where(GENERATOR.uniform(size=clean.shape) < 0.05, 1 - clean, clean)


def test_each_machine_stands_for_its_place(key: jax.Array) -> None:
    """Inputs from the layer that is doubled count twice; from the other one once."""
    rbm = en.RBM(4, 3, key=key)
    v, h = np.array([1.0, 0, 1, 1]), np.array([0.0, 1, 1])
    up = np.asarray(v @ rbm.weights)
    bottom = _pretrain._doubled(rbm, below=True, above=False)
    middle = _pretrain._doubled(rbm, below=False, above=False)
    top = _pretrain._doubled(rbm, below=False, above=True)
    for machine, values, name, times in (
        (bottom, {"v": v, "v_copy": v}, "h", 2),
        (bottom, {"v_copy": v, "h": h}, "v", 1),
        (middle, {"v": v}, "h", 2),
        (top, {"v": v, "h_copy": h}, "h", 1),
        (top, {"h": h, "h_copy": h}, "v", 2),
    ):
        factors: Any = machine._factorize(name, values)
        field = factors.logits[:, 1] - factors.logits[:, 0]
        expected = up if name == "h" else np.asarray(rbm.weights @ h)
        np.testing.assert_allclose(field, times * expected, atol=1e-6)
    assert _pretrain._doubled(rbm, below=True, above=True) is rbm
    assert all(_pretrain._single(machine) is rbm for machine in (bottom, middle, top))


@pytest.mark.slow
def test_layer_by_layer_it_comes_nearer_to_the_data(key: jax.Array) -> None:
    """The exact likelihood of the whole, of which each machine saw a part: above the start."""
    data = rows(1500)
    dbm = en.DBM((6, en.Spin(4), 3, en.Spin(2)), data=data, key=key)
    objective = en.objectives.PCD(num_steps=5, buffer_size=512, reinit_prob=0.0)
    begun = en.pretrain(dbm, data, objective, key=key, num_steps=500, optimizer=optax.adam(0.02))
    assert begun.layers == dbm.layers
    for offset, before in zip(begun.offsets, dbm.offsets, strict=True):
        np.testing.assert_allclose(offset, before)
    before, after = (en.evaluate.log_likelihood(machine, data).value for machine in (dbm, begun))
    assert before == pytest.approx(-3.89, abs=0.1)  # independent units
    assert after > before + 0.2


def test_data_by_the_name_of_the_layer(key: jax.Array) -> None:
    dbm, data = en.DBM((6, 2, 2), key=key), rows(20)
    objective = en.objectives.CD(num_steps=1)
    one, two = (
        en.pretrain(dbm, each, objective, key=key, num_steps=2) for each in (data, {"v": data})
    )
    assert eqx.tree_equal(one, two)
    with pytest.raises(ValueError, match=r"data of 'v' alone, got \['h1', 'v'\]"):
        en.pretrain(dbm, {"v": data, "h1": data}, key=key)


def test_what_is_no_deep_machine(key: jax.Array) -> None:
    model: Any = en.RBM(3, 2, key=key)
    with pytest.raises(TypeError, match=r"pretrain|DBM"):
        en.pretrain(model, np.zeros((5, 3)), key=key)
