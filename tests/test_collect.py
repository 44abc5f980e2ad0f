"""`collect=`: what is kept of a draw in place of all variables."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
sample = inspect.unwrap(en.sample)  # below the type checker of the tests


@en.energy(x=en.Positive((3,)), y=en.Simplex(2))
def bounded(x, y):
    return jnp.sum(x) - jnp.sum(jnp.log(y))


def summaries(y, x):
    return {"mean": jnp.mean(x), "first": x[:2], "share": y[0]}


@pytest.mark.parametrize("method", ["vectorized", "parallel"])
@pytest.mark.parametrize("sampler", ["hmc", "langevin"])  # langevin tells no lp
def test_it_is_the_function_of_the_draws(sampler: str, method: str, key: jax.Array) -> None:
    options: Any = {"num_warmup": 60, "num_samples": 150, "thin": 2, "chain_method": method}
    whole = en.sample(bounded, sampler, key=key, **options)
    kept = en.sample(bounded, sampler, key=key, collect=summaries, **options)
    assert set(kept) == {"mean", "first", "share"}
    expected = jax.vmap(jax.vmap(lambda d: summaries(**d)))({n: whole[n] for n in whole})
    for name in kept:
        np.testing.assert_allclose(kept[name], expected[name], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(kept.stats["lp"], whole.stats["lp"], rtol=2e-4, atol=1e-3)


def average(x):
    return jnp.mean(x)


def test_going_on(key: jax.Array, tmp_path: Path) -> None:
    options: Any = {"key": key, "num_warmup": 40, "collect": average}
    longer = en.sample(bounded, "hmc", num_samples=130, **options)
    draws = en.sample(bounded, "hmc", num_samples=100, **options)
    np.testing.assert_array_equal(draws.extend(30)["value"], longer["value"])
    draws.save(tmp_path / "draws.npz")
    loaded = en.Draws.load(tmp_path / "draws.npz", energy=bounded, collect=average)
    np.testing.assert_array_equal(loaded.extend(30)["value"], longer["value"])
    again = en.Draws.load(tmp_path / "draws.npz")
    again.save(tmp_path / "again.npz")
    loaded = en.Draws.load(tmp_path / "again.npz", energy=bounded, collect=average)
    np.testing.assert_array_equal(loaded.extend(30)["value"], longer["value"])
    assert list(draws.to_arviz().posterior.data_vars) == ["value"]
    with pytest.raises(ValueError, match=r"holds \('value',\) of each draw: give collect= as well"):
        en.Draws.load(tmp_path / "draws.npz", energy=bounded)
    with pytest.raises(ValueError, match="but collect= gives"):
        en.Draws.load(tmp_path / "draws.npz", energy=bounded, collect=summaries)
    plain = en.sample(bounded, "hmc", key=key, num_warmup=40, num_samples=20)
    plain.save(tmp_path / "plain.npz")
    with pytest.raises(ValueError, match="of each draw: leave collect= out"):
        en.Draws.load(tmp_path / "plain.npz", energy=bounded, collect=average)


def test_discrete_variables(key: jax.Array) -> None:
    model = en.Ising((6, 6), coupling=0.1)
    draws = en.sample(model, "gibbs", key=key, num_samples=50, collect=average)
    assert draws["value"].shape == (4, 50)
    assert draws.num_samples == 50


@pytest.mark.parametrize(
    ("error", "collect", "message"),
    [
        (TypeError, 3, "takes a function of the variables, got 3"),
        (ValueError, lambda z: z, r"collect= takes \['z'\]; the variables of bounded\(x, y\) are"),
        (TypeError, lambda **all: all, "takes \\*\\*all: variables are the names"),
        (TypeError, lambda x: None, "collect= gives 'value': expected numbers, got None"),
        (
            TypeError,
            lambda x: jnp.exp(1j * x),
            "dtype complex64: keep its .real and",
        ),
        (TypeError, lambda x: {}, "must return an array, or a dict of arrays by name"),
    ],
)
def test_bad_functions(error: type[Exception], collect: Any, message: str, compilations) -> None:
    key = jax.random.key(0)
    with compilations() as seen, pytest.raises(error, match=message):
        sample(bounded, "hmc", key=key, collect=collect)
    assert seen.count == 0, seen.compiled
