"""Paths: their values, what is refused, and that another level compiles nothing."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._factors import Categorical
from energia.paths import LEVEL

X = np.array([0.5, -1.5], np.float32)
WIDE = en.Gaussian(np.zeros(2), scale=3.0)
TARGET = en.Ring(radius=2.0) + 0.5 * en.Gaussian(np.ones(2))


@en.energy
def blurred(x, sigma):
    return 0.5 * jnp.sum(x**2) / (1 + sigma**2)


@en.energy(x=en.Positive())
def barrier(x):
    return 1 / x


def test_path() -> None:
    path = en.Path(blurred, sigma=[3.0, 1.0, 0.0])
    assert (path.variables, path.num_levels, path.name) == (("x",), 3, "sigma")
    assert path.supports == {"x": None}
    np.testing.assert_allclose(path(1.0)(x=X), 0.25 * (X @ X), rtol=1e-6)
    np.testing.assert_allclose(path.target(x=X), 0.5 * (X @ X), rtol=1e-6)
    assert path.exact() is None
    assert repr(path) == "Path(blurred(x, sigma); 3 levels of sigma)"


def test_geometric() -> None:
    path = en.paths.geometric(WIDE, TARGET, levels=5)
    assert (path.variables, path.num_levels) == (("x",), 5)
    for beta in [0.0, 0.3, 1.0]:
        expected = (1 - beta) * WIDE(X) + beta * TARGET(x=X)
        np.testing.assert_allclose(path(beta)(x=X), expected, rtol=1e-5)
    np.testing.assert_allclose(path.target(x=X), TARGET(x=X), rtol=1e-6)
    exact = path.exact()
    assert exact is not None
    np.testing.assert_allclose(exact.log_partition, 0.0, atol=1e-6)
    assert str(path.energy) == (
        "β·(Ring(x) + 0.5·Gaussian(x)) + (1 - β)·Gaussian(x)  [x: real (2,); 8 parameters]"
    )


def test_levels_of_geometric() -> None:
    path = en.paths.geometric(WIDE, TARGET, levels=[0, 0.1, 1])
    np.testing.assert_allclose(path.levels, [0, 0.1, 1])
    assert path.levels.dtype == np.float32


def test_where_one_end_is_infinite() -> None:
    box = en.energy(x=en.Real((2,)))(lambda x: jnp.where(jnp.all(x > 0), 0.0, jnp.inf))
    path = en.paths.geometric(WIDE, box)
    np.testing.assert_allclose(path(0.0)(x=X), WIDE(X), rtol=1e-6)  # not 0 · ∞
    assert float(path(0.5)(x=X)) == np.inf
    slope = jax.grad(lambda x: path(0.0)(x=x))(X)
    np.testing.assert_allclose(slope, X / 9, rtol=1e-5)


def test_tempering() -> None:
    path = en.paths.tempering(TARGET, [10.0, 2.0, 1.0])
    np.testing.assert_allclose(path.levels, [0.1, 0.5, 1.0])
    np.testing.assert_allclose(path(0.5)(x=X), 0.5 * TARGET(x=X), rtol=1e-6)
    assert path.exact() is None  # E / 10 of a ring is no known law
    flat = en.paths.tempering(en.Gaussian(0.0), [4.0, 1.0])
    exact = flat.exact()
    assert exact is not None
    np.testing.assert_allclose(exact.log_partition, 0.375 * np.log(2 * np.pi) + np.log(2.0))


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_conditionals_along_a_path(beta: float) -> None:
    """The factors at a level are those of the weighted sum: what Gibbs sampling draws from."""
    machine = en.RBM.from_parameters([[1.0, -2.0], [0.5, 1.0]], [0.3, -0.2], [0.1, 0.7])
    start = en.Bernoulli("v", [0.3, 0.6]) + en.Bernoulli("h", [0.5, 0.1])
    values = {"v": jnp.asarray([1.0, 0.0])}
    energy = en.paths.geometric(start, machine)(beta)
    factors = energy._factorize("h", values)
    assert isinstance(factors, Categorical)
    states = jnp.asarray(np.array(np.meshgrid([0, 1], [0, 1])).reshape(2, 4).T, float)
    table = -jax.vmap(lambda h: energy(**values, h=h))(states)
    expected = jax.nn.softmax(table)
    logits = factors.logits - jax.nn.logsumexp(factors.logits, -1, keepdims=True)
    found = jnp.exp(logits[0, states[:, 0].astype(int)] + logits[1, states[:, 1].astype(int)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(factors.free_energy(), -jax.nn.logsumexp(table), rtol=1e-5)


def test_supports_go_along() -> None:
    path = en.paths.geometric(en.Exponential("x", 2.0), barrier)
    assert path.supports == {"x": en.Positive()}
    assert path(0.5).supports == {"x": en.Positive()}
    both = en.paths.geometric(en.Gaussian(np.zeros(2)), en.energy(lambda x: jnp.sum(x**4)))
    assert both.supports == {"x": en.Real((2,))}


def test_another_level_compiles_nothing() -> None:
    traces = []

    @eqx.filter_jit
    def at(path: en.Path, level: Any) -> jax.Array:
        traces.append(1)
        return path(level)(x=X)

    path = en.paths.geometric(WIDE, TARGET, levels=3)
    for level in path.levels:
        at(path, level)
    at(
        en.paths.geometric(en.Gaussian(np.ones(2), scale=1.0), TARGET, levels=[0, 0.2, 1]),
        0.7 * X[0],
    )
    assert len(traces) == 1
    over = jax.vmap(lambda level: path(level)(x=X))(path.levels)
    np.testing.assert_allclose(over, [float(path(b)(x=X)) for b in [0.0, 0.5, 1.0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: en.Path(max, x=[1.0]), TypeError, "takes an energy"),  # pyright: ignore
        (lambda: en.Path(blurred), TypeError, "takes one variable with its values"),
        (lambda: en.Path(blurred, sigma=[1.0], x=[2.0]), TypeError, "got \\['sigma', 'x'\\]"),
        (lambda: en.Path(blurred, tau=[1.0]), ValueError, r"variables of .* are \('x', 'sigma'\)"),
        (
            lambda: en.Path(en.Ring(), sigma=[1.0]),
            ValueError,
            r"are \('x',\): name one of them, or give an energy that has 'sigma'",
        ),
        (lambda: en.Path(en.Ring(), x=[1.0]), ValueError, "leaves no variable"),
        (lambda: en.Path(blurred, sigma=1.0), ValueError, r"vector of levels, got shape \(\)"),
        (lambda: en.Path(blurred, sigma=[]), ValueError, r"vector of levels, got shape \(0,\)"),
        (lambda: en.Path(blurred, sigma=[1.0, np.nan]), ValueError, "must be finite"),
        (
            lambda: en.Path(blurred.constrain(sigma=en.Positive()), sigma=[1.0, -2.0]),
            ValueError,
            r"has 1 value outside its support positive \(\); the first is -2.0",
        ),
        (
            lambda: en.paths.geometric(WIDE, "ring"),  # pyright: ignore
            TypeError,
            "takes two energies, got 'ring'",
        ),
        (
            lambda: en.paths.geometric(WIDE.rename(x="z"), en.Ring()),
            ValueError,
            r"reference of the target's variables \('x',\), got .* of \('z',\)",
        ),
        (lambda: en.paths.geometric(WIDE, barrier), ValueError, "supports of 'x' clash"),
        (lambda: en.paths.geometric(WIDE, TARGET, levels=1), ValueError, "levels= must be at l"),
        (lambda: en.paths.geometric(WIDE, TARGET, [0, 2, 1]), ValueError, "an increasing vector"),
        (lambda: en.paths.geometric(WIDE, TARGET, [0.1, 1]), ValueError, "must go from 0"),
        (lambda: en.paths.geometric(WIDE, TARGET, [0, 0.9]), ValueError, "to 1, the target; got"),
        (lambda: en.paths.tempering(TARGET, [1.0, 2.0]), ValueError, "decreasing|hottest"),
        (lambda: en.paths.tempering(TARGET, [2.0, 0.0]), ValueError, "positive temperatures"),
        (lambda: en.paths.tempering(TARGET, 2.0), ValueError, r"a vector, got shape \(\)"),
        (
            lambda: en.paths.tempering(en.Ring().rename(x=LEVEL), [2.0, 1.0]),
            ValueError,
            "which is the path's: .rename it",
        ),
    ],
)
def test_errors(make: Any, kind: type[Exception], message: str, monkeypatch: Any) -> None:
    for name in ("geometric", "tempering"):  # below the type checker
        monkeypatch.setattr(en.paths, name, inspect.unwrap(getattr(en.paths, name)))
    monkeypatch.setattr(en.Path, "__init__", inspect.unwrap(en.Path.__init__))
    with pytest.raises(kind, match=message):
        make()
