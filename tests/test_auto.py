"""What 'auto' chooses, and that it says so."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import energia as en
from energia.samplers import Auto


@en.energy(x=en.Real(), z=en.Categorical(2))
def mixed(x, z):
    return 0.5 * (x - 4.0 * z) ** 2


@en.energy(s=en.Spin((400,)))
def wide(s):
    return jnp.sum(s) ** 2


@pytest.mark.parametrize(
    ("energy", "num_chains", "kind", "why"),
    [
        (en.Gaussian(0.0), 4, en.samplers.NUTS, "continuous variables, 4 chains on a cpu"),
        (en.energy(lambda x: x**2), 1, en.samplers.NUTS, "continuous variables, 1 chain on a cpu"),
        (mixed, 4, en.samplers.BlockGibbs, "discrete 'z' beside continuous variables"),
        (mixed.condition(x=1.0), 4, en.samplers.Gibbs, "'z', conditionals in closed form"),
        (en.Ising((3, 3), coupling=0.2), 4, en.samplers.Gibbs, "discrete 'x'"),
        (wide, 4, en.samplers.GibbsWithGradients, "of 400 entries, without closed-form"),
    ],
)
def test_choice(energy: en.Energy, num_chains: int, kind: type, why: str) -> None:
    kernel, reason = Auto().choose(energy, num_chains)
    assert type(kernel) is kind
    assert why in reason


def test_many_chains_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    kernel, why = Auto().choose(en.Gaussian(jnp.zeros(2)), 256)
    assert isinstance(kernel, en.samplers.ChEESHMC)
    assert "256 chains on a gpu" in why
    assert isinstance(Auto().choose(en.Gaussian(jnp.zeros(2)), 4)[0], en.samplers.NUTS)


def test_it_says_what_it_chose(capsys: Any, key: jax.Array) -> None:
    draws = en.sample(en.Gaussian(0.0), "auto", key=key)
    assert isinstance(draws.sampler, en.samplers.NUTS)
    draws.diagnose()
    assert "NUTS was chosen: continuous variables, 4 chains on a cpu" in capsys.readouterr().out
    plain = en.sample(en.Gaussian(0.0), "nuts", key=key)
    assert (plain["x"] == draws["x"]).all()
    assert not plain.diagnose(show=False).notes
