"""The estimator against scikit-learn's own, by its checks and side by side."""

import contextlib
import unittest
from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import BernoulliRBM as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

import energia as en

Ours: Any = en.interop.BernoulliRBM
GENERATOR = np.random.default_rng(2)
PATTERNS = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]], float)


def copy_of(estimator: Any) -> Any:
    """An estimator of the same parameters that has not learned."""
    return clone(estimator)


def rows(count: int) -> np.ndarray:
    """Noisy copies of two patterns."""
    clean = PATTERNS[GENERATOR.integers(0, 2, count)]
    return np.where(GENERATOR.uniform(size=clean.shape) < 0.1, 1 - clean, clean)


DATA = rows(2000)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return Ours(3, learning_rate=0.1, batch_size=100, n_iter=30, random_state=0).fit(DATA)


@pytest.mark.slow
def test_scikit_learn_s_checks() -> None:
    names, checks = [], list[Any](estimator_checks_generator(Ours(2, n_iter=1)))
    for estimator, check in checks:
        with contextlib.suppress(unittest.SkipTest):  # for want of an optional library
            check(estimator)
            names.append(check.func.__name__)
    assert "check_methods_subset_invariance" in names  # theirs is random, and fails it
    assert len(names) > 30


def test_parameters() -> None:
    ours, theirs = Ours(), Theirs()
    assert ours.get_params() == theirs.get_params()
    copy = copy_of(Ours(5, learning_rate=0.2)).set_params(n_iter=3)
    assert copy.get_params() == {**theirs.get_params(), "n_components": 5, "learning_rate": 0.2} | {
        "n_iter": 3
    }
    with pytest.raises(ValueError, match="'learning_rate' parameter"):
        Ours(learning_rate=-1.0).fit(DATA)
    with pytest.raises(NotFittedError):
        ours.transform(DATA)


def test_the_same_formulas(fitted: Any) -> None:
    """With the parameters of one in the other: features, shapes, dtypes, names."""
    theirs = copy_of(Theirs(3, n_iter=0, random_state=0)).fit(DATA)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        assert getattr(theirs, name).shape == getattr(fitted, name).shape
        setattr(theirs, name, getattr(fitted, name))
    np.testing.assert_allclose(fitted.transform(DATA), theirs.transform(DATA), rtol=1e-6)
    sparse = scipy.sparse.csr_matrix(DATA)
    np.testing.assert_allclose(fitted.transform(sparse), theirs.transform(DATA), rtol=1e-6)
    assert list(fitted.get_feature_names_out()) == [
        "bernoullirbm0",
        "bernoullirbm1",
        "bernoullirbm2",
    ]
    assert fitted.h_samples_.shape == (100, 3)
    assert set(np.unique(fitted.h_samples_)) <= {0.0, 1.0}


def test_the_pseudo_likelihood_is_the_sum_over_units(fitted: Any) -> None:
    free = jax.vmap(fitted.energy_.marginalize("h"))
    few, total = DATA[:20], np.zeros(20)
    for unit in range(6):
        flipped = few.copy()
        flipped[:, unit] = 1 - flipped[:, unit]
        total += log_expit(np.asarray(free(flipped) - free(few), float))
    np.testing.assert_allclose(fitted.score_samples(few), total, rtol=1e-4, atol=1e-4)
    # theirs is an estimate of it from one unit a row
    theirs = copy_of(Theirs(3, n_iter=0, random_state=0)).fit(DATA)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(theirs, name, getattr(fitted, name))
    seen = theirs.score_samples(np.tile(DATA, (10, 1)))
    error = seen.std() / np.sqrt(len(seen))
    assert abs(seen.mean() - fitted.score_samples(DATA).mean()) < 5 * error


def test_gibbs_draws_units(fitted: Any) -> None:
    start = np.tile(DATA[:1], (20_000, 1))
    seen = fitted.gibbs(start).mean(0)
    hidden = fitted.transform(DATA[:1])[0]
    states = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float)
    share = np.prod(np.where(states == 1, hidden, 1 - hidden), axis=1)
    exact = share @ expit(states @ fitted.components_ + fitted.intercept_visible_)
    assert np.all(np.abs(seen - exact) < 5 * np.sqrt(exact * (1 - exact) / 20_000))


def test_it_learns_as_well_as_theirs(fitted: Any) -> None:
    """The exact likelihood after as many sweeps."""
    theirs = Theirs(3, learning_rate=0.1, batch_size=100, n_iter=30, random_state=0).fit(DATA)
    other = en.RBM.from_parameters(
        theirs.components_.T, theirs.intercept_visible_, theirs.intercept_hidden_
    )
    one, two = (en.evaluate.log_likelihood(e, DATA).value for e in (fitted.energy_, other))
    start = en.evaluate.log_likelihood(Ours(3, n_iter=0).fit(DATA).energy_, DATA).value
    assert start < -4.1
    assert one == pytest.approx(two, abs=0.15)
    assert one > -3.6


@pytest.mark.slow
def test_learning_goes_on(fitted: Any) -> None:
    """By `partial_fit`, of batches of several sizes; in a pipeline; reproducibly."""
    online = Ours(3, learning_rate=0.1, batch_size=100, random_state=0)
    for _ in range(30):
        for begin in range(0, 2000, 400):
            online.partial_fit(DATA[begin : begin + 400])
    value = en.evaluate.log_likelihood(online.energy_, DATA).value
    assert value == pytest.approx(en.evaluate.log_likelihood(fitted.energy_, DATA).value, abs=0.2)
    online.partial_fit(DATA[:7])
    assert online.h_samples_.shape == (100, 3)
    again = copy_of(fitted).fit(DATA)
    np.testing.assert_array_equal(again.components_, fitted.components_)
    assert make_pipeline(copy_of(fitted)).fit_transform(DATA).shape == (2000, 3)


def test_it_tells_of_its_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    Ours(2, n_iter=2, batch_size=500, verbose=1, random_state=0).fit(DATA)
    told = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in told] == [
        f"[BernoulliRBM] Iteration {i}" for i in (1, 2)
    ]
