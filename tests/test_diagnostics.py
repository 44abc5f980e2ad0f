"""The verdict on draws, from arrays made by hand."""

import pickle
import re

import numpy as np
import pytest

import energia as en
from energia.diagnostics import Diagnosis, diagnose, quick_check, to_arviz

RANDOM = np.random.default_rng(0)
CHAINS, DRAWS = 4, 500
GOOD = RANDOM.normal(size=(CHAINS, DRAWS, 2))


def verdict(x: np.ndarray, **stats: np.ndarray) -> Diagnosis:
    """The verdict on draws of one variable; the quick check tells the same problems."""
    found = diagnose({"x": x}, stats)
    assert quick_check({"x": x}, stats) == list(found.problems)
    assert str(found).count("\n") == len(found.problems) + len(found.notes)
    return found


def test_good_chains() -> None:
    found = verdict(GOOD, acceptance_rate=np.full((CHAINS, DRAWS), 0.8))
    assert found.ok
    assert 0.99 < found.max_rhat < 1.01
    assert 1000 < found.min_ess < 3000
    assert found.divergences == 0
    assert found.bfmi is None
    assert found.frozen_chains == ()


def test_chains_apart() -> None:
    found = verdict(GOOD + np.array([0, 0, 0, 0.5])[:, None, None])
    assert not found.ok
    assert found.max_rhat > 1.01
    assert re.match(rf"R-hat of x\[[01]\] is {found.max_rhat:.3f}, above", found.problems[0])


def test_chains_of_another_width() -> None:
    # the means agree: only ranks of the distances to the median tell
    found = verdict(GOOD * np.array([1, 1, 1, 4.0])[:, None, None])
    assert found.max_rhat > 1.05


def test_frozen_chains() -> None:
    x = GOOD.copy()
    x[1:3] = x[1:3, :1]
    found = verdict(x)
    assert found.frozen_chains == (1, 2)
    assert found.problems[0].startswith("2 of 4 chains never moved (chain 1 first): ")
    assert found.max_rhat > 1.01
    everywhere = np.repeat(GOOD[:, :1], DRAWS, axis=1)
    found = verdict(everywhere)
    assert found.frozen_chains == (0, 1, 2, 3)
    assert found.max_rhat > 1e6
    assert found.notes == ()
    # the energy changes: it is what was collected that stays, and no step size mends that
    (problem,) = verdict(np.zeros((CHAINS, DRAWS)), lp=GOOD[..., 0]).problems
    assert problem.startswith("4 of 4 chains moved, and what was kept of them never changed")
    rounded = 100 + 1e-5 * GOOD[..., 0]
    assert "never moved" in verdict(np.zeros((CHAINS, DRAWS)), lp=rounded).problems[0]


def test_an_entry_that_stays() -> None:
    x = GOOD.copy()
    x[..., 1] = np.repeat([[0.0], [0.0], [1.0], [1.0]], DRAWS, axis=1)
    found = verdict(x)  # each chain holds one value of x[1], which ranks cannot compare
    assert found.max_rhat > 1e6
    assert "R-hat of x[1] is " in str(found)
    x[..., 1] = np.repeat([[0.0], [0.0], [0.0], [1.0]], DRAWS, axis=1)
    assert verdict(x).max_rhat > 1e6
    x[..., 1] = 3.0
    found = verdict(x)
    assert found.ok
    assert found.notes == ("every draw of x[1] is the same",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_draws_that_are_not_finite(bad: float) -> None:
    x = GOOD.copy()
    x[2, 7, 0] = bad
    assert verdict(x).problems[0].startswith("draws of x[0] are not finite: ")
    x[:, 3:] = bad
    assert "draws of x[0] and 1 more are not finite" in str(verdict(x))
    assert "draws of x[0] are not finite" in str(verdict(np.full((1, 1, 1), bad)))


def test_statistics() -> None:
    diverging = np.zeros((CHAINS, DRAWS), bool)
    diverging[0, :3] = True
    found = verdict(GOOD, diverging=diverging)
    assert found.divergences == 3
    assert found.problems == (
        "3 of 2000 transitions diverged: take smaller steps (a higher target_acceptance_rate, or "
        "step_size=), or reparametrise where the energy curves sharply",
    )
    steady = np.cumsum(RANDOM.normal(size=(CHAINS, DRAWS)), axis=1)
    found = verdict(GOOD, energy=steady)
    assert found.bfmi is not None
    assert found.bfmi < 0.3
    assert f"E-BFMI is {found.bfmi:.2f}, below 0.3" in str(found)
    assert verdict(GOOD, energy=np.full((CHAINS, DRAWS), np.float32(1e30))).bfmi is None
    assert "acceptance rate is 0.010" in str(
        verdict(GOOD, acceptance_rate=np.full((CHAINS, DRAWS), 0.01))
    )
    assert not verdict(GOOD, acceptance_rate=np.full((CHAINS, DRAWS), np.nan)).ok
    lp = np.zeros((CHAINS, DRAWS))
    lp[1, :7] = np.nan
    assert (
        verdict(GOOD, lp=lp)
        .problems[0]
        .startswith("7 of 2000 draws lie where the energy is not finite: ")
    )
    found = verdict(GOOD, reached_max_treedepth=diverging)
    assert found.ok
    assert "3 of 2000 trajectories were cut at the largest tree depth" in str(found)


def test_too_few_to_tell() -> None:
    assert "use num_chains=4" in str(verdict(GOOD[:1]))
    assert np.isnan(verdict(GOOD[:1]).max_rhat)
    assert "3 draws a chain are too few" in str(verdict(GOOD[:, :3]))
    assert np.isnan(verdict(GOOD[:, :3]).min_ess)
    assert verdict(GOOD[:, :1]).frozen_chains == ()  # one draw cannot have moved


def test_discrete_draws() -> None:
    spins = RANDOM.choice([-1.0, 1.0], size=(CHAINS, DRAWS, 3))
    assert verdict(spins).ok
    assert verdict(RANDOM.integers(0, 3, size=(CHAINS, DRAWS)).astype(np.int32)).ok


def test_the_worst_of_many_entries_is_found_quickly() -> None:
    x = RANDOM.normal(size=(CHAINS, DRAWS, 300))
    x[0, :, 123] += 2
    x[:, :, 7] = np.cumsum(x[:, :, 7], axis=1)
    problems = quick_check({"x": x}, {})
    full = diagnose({"x": x}, {}).problems
    assert [problem.split(",")[0] for problem in problems] == [p.split(",")[0] for p in full]
    assert "x[7]" in str(problems)


def test_warning_survives_pickling() -> None:
    warning = en.ConvergenceWarning(["one", "two"])
    assert warning.problems == ["one", "two"]
    assert str(warning) == "the draws should not be trusted yet:\n  one\n  two"
    assert str(pickle.loads(pickle.dumps(warning))).count("the draws should not") == 1


def test_arviz_takes_any_shape() -> None:
    tree = to_arviz({"x": GOOD, "y": GOOD[..., 0]}, {"lp": GOOD[..., 0]})
    assert tree.posterior["x"].shape == (CHAINS, DRAWS, 2)
    assert tree.posterior["y"].shape == (CHAINS, DRAWS)
    assert to_arviz({"x": GOOD[:, :2]}, {}).posterior.sizes["draw"] == 2


def test_a_part_that_never_moves() -> None:
    # one block of two stands still, which neither R-hat nor the mean of the rates shows
    x = GOOD.copy()
    x[..., 1] = 3.0
    rates = {"a": 0.0, "b": 0.9, "": 0.45}
    stats = {f"acceptance_rate{n and '_' + n}": np.full(x.shape[:2], r) for n, r in rates.items()}
    found = verdict(x, **stats)
    assert found.problems == (
        "the mean acceptance rate of 'a' is 0.000: lower its kernel's step size, or leave it out",
    )
    stats["acceptance_rate_a"] += 0.02
    assert verdict(x, **stats).ok
