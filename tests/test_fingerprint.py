"""Fingerprints: equal in every process, different where the behaviour is."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.training._fingerprint import fingerprint


def scaled(factor):
    return lambda count: factor * 1.0 / (1 + count)


def rated(count):
    return 0.5


def rated_again(count):
    return 0.25


rated_again.__code__ = rated_again.__code__.replace(co_name="rated")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (optax.adam(1e-3), optax.adam(2e-3)),
        (optax.adam(jnp.float32(1e-3)), optax.adam(jnp.float32(2e-3))),
        (optax.adam(scaled(1.0)), optax.adam(scaled(2.0))),
        (optax.sgd(rated), optax.sgd(rated_again)),
        (
            optax.adam(optax.cosine_decay_schedule(0.1, 10)),
            optax.adam(optax.linear_schedule(0.1, 0, 10)),
        ),
        (np.zeros(5000), np.where(np.arange(5000) == 2500, 1, np.zeros(5000))),
        (en.energy(lambda x: x**2), en.energy(lambda x: x**4)),
        (
            en.MLPEnergy(2, activation=jax.nn.silu, key=jax.random.key(0)),
            en.MLPEnergy(2, activation=jax.nn.gelu, key=jax.random.key(0)),
        ),
        ({"a": 1.0}, {"a": 2.0}),
    ],
    ids=lambda value: "",
)
def test_fingerprints_tell_apart(one, two):
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) == fingerprint(one)


def test_fingerprints_are_the_same_in_every_process(tmp_path):
    script = (
        "import jax, jax.numpy as jnp, optax, energia as en\n"
        "from energia.training._fingerprint import fingerprint\n"
        "energy = en.energy(lambda x: jnp.sum(x ** 2) if x.ndim in {0, 1, 2} else x)\n"
        "model = energy + en.MLPEnergy(2, key=jax.random.key(0)).constrain(x=en.Positive(2))\n"
        "optimizer = optax.adamw(optax.cosine_decay_schedule(0.1, 10), mask={'a', 'b'})\n"
        "print(fingerprint((model, en.objectives.PCD(), optimizer)))\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] != ""
