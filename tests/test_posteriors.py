"""Real posteriors, sampled and compared with reference draws of posteriordb."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors.densities import DENSITIES
from posteriors.models import (
    FROM_REFERENCE,
    POSTERIORS,
    TO_REFERENCE,
    german_credit,
    hidden_markov,
    hidden_markov_factors,
)

import energia as en

every = pytest.mark.parametrize("name", POSTERIORS)


@pytest.fixture
def read(data_file):
    """The data and the reference of a posterior."""
    folder = data_file("posteriordb")

    def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        reference = json.loads((folder / f"{name}.json").read_text())
        draws = np.load(folder / f"{name}.npz")["draws"].astype(float)
        return reference["data"], reference | {"draws": draws}

    return read


def by_variable(parameters: list[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """Columns named 'beta[1]', 'beta[2]', 'sigma' as arrays by variable; columns come last."""
    columns: dict[str, list[np.ndarray]] = {}
    for index, parameter in enumerate(parameters):
        columns.setdefault(parameter.split("[")[0], []).append(values[..., index])
    vectors = {parameter.split("[")[0] for parameter in parameters if "[" in parameter}
    return {n: np.stack(c, axis=-1) if n in vectors else c[0] for n, c in columns.items()}


def flat(parameters: list[str], draws: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `by_variable`."""
    names = dict.fromkeys(parameter.split("[")[0] for parameter in parameters)
    arrays = (np.asarray(draws[name], float) for name in names)
    columns = (array if array.ndim == 3 else array[..., None] for array in arrays)
    return np.concatenate(list(columns), axis=-1)


@every
def test_energy_is_minus_the_log_density(read, name):
    data, reference = read(name)
    rows = reference["draws"].reshape(-1, len(reference["parameters"]))[:: 5000 // 6]
    draws = [by_variable(reference["parameters"], row) for row in rows]
    expected = np.array([DENSITIES[name](data, draw) for draw in draws])
    with jax.enable_x64(True):
        energy = POSTERIORS[name](data)
        points = [FROM_REFERENCE.get(name, dict)(draw) for draw in draws]
        stacked = {n: jnp.asarray([point[n] for point in points]) for n in energy.variables}
        got = -np.asarray(jax.jit(jax.vmap(energy.at))(stacked))
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(got - got[0], expected - expected[0], rtol=0, atol=2e-7)


def check_draws(draws: en.Draws, parameters: list[str], values: np.ndarray, mean: Any, sd: Any):
    mean, sd = np.asarray(mean), np.asarray(sd)
    z = np.abs(values.mean((0, 1)) - mean) / sd
    ratio = values.std((0, 1)) / sd
    told = [f"{p}: {a:.3f} sd, {b:.3f}" for p, a, b in zip(parameters, z, ratio, strict=True)]
    assert np.all(z < 0.1), told
    assert np.all((ratio > 0.9) & (ratio < 1.1)), told
    diagnosis = draws.diagnose()
    assert diagnosis.max_rhat < 1.01, diagnosis
    assert diagnosis.divergences == 0, diagnosis


@pytest.mark.slow
@every
def test_draws_agree_with_the_reference(read, name, key):
    data, reference = read(name)
    draws = en.sample(POSTERIORS[name](data), "nuts", key=key)
    values = flat(reference["parameters"], TO_REFERENCE.get(name, dict)(draws))
    check_draws(draws, reference["parameters"], values, reference["mean"], reference["sd"])


@pytest.mark.slow
def test_german_credit(data_file, key):
    data = np.load(data_file("german_credit.npz"))
    draws = en.sample(german_credit(data), "nuts", key=key)
    values = np.asarray(draws["weights"], float)
    names = [f"weights[{index}]" for index in range(values.shape[-1])]
    check_draws(draws, names, values, data["posterior_mean"], data["posterior_sd"])


@pytest.mark.parametrize(("wide", "tolerance"), [(False, 1e-5), (True, 1e-10)])
def test_hidden_markov_model_as_factors(read, wide, tolerance):
    data, reference = read("hmm_example-hmm_example")
    prefix = {"y": data["y"][:8]}
    point = by_variable(reference["parameters"], reference["draws"][0, 0])
    with jax.enable_x64(wide):
        point = {name: jnp.asarray(value) for name, value in point.items()}
        both = [model(prefix) for model in (hidden_markov, hidden_markov_factors)]
        assert both[0].supports == both[1].supports
        got = [jax.jit(jax.value_and_grad(energy.at))(point) for energy in both]
    for one, other in zip(*map(jax.tree.leaves, got), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance)
