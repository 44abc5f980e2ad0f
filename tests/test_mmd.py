"""The maximum mean discrepancy against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en


def between_normals(shift: float, width: float, dim: int) -> float:
    """Of N(0, I) and N(shift in one entry, I), by the kernel of that width."""
    spread = width**2 + 2
    same = (width**2 / spread) ** (dim / 2)
    return 2 * same * (1 - np.exp(-(shift**2) / (2 * spread)))


@pytest.mark.parametrize(("shift", "width"), [(0.5, 1.0), (2.0, 0.7)])
def test_normal_laws_are_as_far_apart_as_they_should_be(key, shift, width):
    """Many estimates from few draws: their mean is the truth, within 5 standard errors."""
    estimates = []
    for index in range(60):
        x, y = jax.random.normal(jax.random.fold_in(key, index), (2, 40, 3))
        estimates.append(en.evaluate.mmd(x, y.at[:, 0].add(shift), bandwidth=width))
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - between_normals(shift, width, 3)) < 5 * error


def test_all_pairs_but_those_with_themselves(key):
    x, y = np.asarray(jax.random.normal(key, (2, 7, 2)), float)
    y = y[:5]

    def kernel(rows, others):
        return np.exp(-((rows[:, None] - others) ** 2).sum(-1) / 2 / 0.8**2)

    def within(rows):
        return (kernel(rows, rows).sum() - len(rows)) / (len(rows) * (len(rows) - 1))

    wanted = within(x) + within(y) - 2 * kernel(x, y).mean()
    assert en.evaluate.mmd(x, y, bandwidth=0.8) == pytest.approx(wanted, abs=1e-6)
    distances = [np.linalg.norm(y[i] - y[j]) for i in range(5) for j in range(i)]
    assert en.evaluate.mmd(x, y) == pytest.approx(
        en.evaluate.mmd(x, y, bandwidth=np.median(distances)), abs=1e-6
    )


def test_what_cannot_be_compared_raises(key):
    x = jax.random.normal(key, (10, 2))
    with pytest.raises(ValueError, match="rows of one shape"):
        en.evaluate.mmd(x, x[:, :1])
    with pytest.raises(ValueError, match="at least 2 rows of samples"):
        en.evaluate.mmd(x[:1], x)
    with pytest.raises(ValueError, match="data has values that are not finite"):
        en.evaluate.mmd(x, x.at[0].set(jnp.nan))
    with pytest.raises(ValueError, match="needs bandwidth="):
        en.evaluate.mmd(x, jnp.zeros((10, 2)))
    with pytest.raises(ValueError, match="must be a positive number"):
        en.evaluate.mmd(x, x, bandwidth=0.0)
