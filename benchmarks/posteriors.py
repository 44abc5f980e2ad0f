"""Targets of the benchmarks: densities of common use, and real posteriors, as plain energies.

The posteriors read their data from the folder that the variable ENERGIA_DATA names: German credit
from `german_credit.npz`, the others from `posteriordb/NAME.json`, as in the database of that name.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


class NoData(Exception):
    """The data of a target are not there."""


def _data_folder() -> Path:
    if "ENERGIA_DATA" not in os.environ:
        raise NoData("its data are in the folder that the variable ENERGIA_DATA names: none is set")
    return Path(os.environ["ENERGIA_DATA"])


def _posteriordb(name: str) -> dict[str, np.ndarray]:
    path = _data_folder() / "posteriordb" / f"{name}.json"
    if not path.exists():
        raise NoData(f"ENERGIA_DATA has no posteriordb/{path.name}")
    data = json.loads(path.read_text())["data"]
    return {key: np.asarray(value, float) for key, value in data.items()}


def _normal(residuals, scale):
    """Minus the log density of independent normal residuals, up to a constant."""
    return 0.5 * jnp.sum((residuals / scale) ** 2) + residuals.size * jnp.log(scale)


# --- densities of common use


def correlated_gaussian() -> en.Energy:
    """100 dimensions, an autoregression of coefficient 0.9: condition number about 360."""
    lag = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    return en.Gaussian(jnp.zeros(100), precision=np.linalg.inv(0.9**lag))


def scaled_gaussian() -> en.Energy:
    """100 independent normals of standard deviations from 0.01 to 100."""
    return en.Gaussian(jnp.zeros(100), scale=np.logspace(-2, 2, 100))


def banana() -> en.Energy:
    """A normal of standard deviations (10, 1), bent: x2 has the mean 0.03 (x1² - 100)."""

    @en.energy(x=en.Real((2,)))
    def bent(x):
        return 0.5 * (x[0] / 10) ** 2 + 0.5 * (x[1] - 0.03 * (x[0] ** 2 - 100)) ** 2

    return bent


def funnel() -> en.Energy:
    """Neal's, in 10 dimensions."""
    return en.Funnel(10)


# --- posteriors


def eight_schools() -> en.Energy:
    @en.energy(mu=en.Real(), tau=en.Positive(), z=en.Real((8,)))
    def energy(mu, tau, z):
        prior = 0.5 * (mu / 5) ** 2 + jnp.log1p((tau / 5) ** 2) + 0.5 * jnp.sum(z**2)
        return prior + 0.5 * jnp.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)

    return energy


def german_credit() -> en.Energy:
    path = _data_folder() / "german_credit.npz"
    if not path.exists():
        raise NoData(f"ENERGIA_DATA has no {path.name}")
    data = np.load(path)
    features = data["features"].astype(float)
    features = (features - features.mean(0)) / features.std(0)
    features = np.concatenate([features, np.ones((len(features), 1))], 1)

    @en.energy(weights=en.Real((25,)))
    def logistic(weights, features, labels):
        logits = features @ weights
        return 0.5 * jnp.sum(weights**2) + jnp.sum(jax.nn.softplus(logits) - labels * logits)

    return logistic.condition(features=features, labels=(data["label"] == 2).astype(float))


def _regression(name: str, design: np.ndarray, outcome: np.ndarray, prior=None) -> en.Energy:
    @en.energy(beta=en.Real((design.shape[1],)), sigma=en.Positive())
    def energy(beta, sigma, design, outcome):
        value = _normal(outcome - design @ beta, sigma)
        return value if prior is None else value + prior(beta, sigma)

    return energy.condition(design=design, outcome=outcome)


def kidiq() -> en.Energy:
    data = _posteriordb("kidiq-kidscore_momhsiq")
    design = np.stack([np.ones_like(data["mom_hs"]), data["mom_hs"], data["mom_iq"]], 1)

    def prior(beta, sigma):
        return jnp.log1p((sigma / 2.5) ** 2)

    return _regression("kidiq", design, data["kid_score"], prior)


def ark() -> en.Energy:
    data = _posteriordb("arK-arK")
    y, order = data["y"], int(data["K"])
    lags = [y[order - k : len(y) - k] for k in range(1, order + 1)]
    design = np.stack([np.ones(len(y) - order), *lags], 1)

    def prior(beta, sigma):
        return 0.5 * jnp.sum((beta / 10) ** 2) + jnp.log1p((sigma / 2.5) ** 2)

    return _regression("arK", design, y[order:], prior)


def sblrc() -> en.Energy:
    data = _posteriordb("sblrc-blr")

    def prior(beta, sigma):
        return 0.5 * jnp.sum((beta / 10) ** 2) + 0.5 * (sigma / 10) ** 2

    return _regression("blr", data["X"], data["y"], prior)


def earnings() -> en.Energy:
    data = _posteriordb("earnings-logearn_interaction")
    height, male = data["height"], data["male"]
    design = np.stack([np.ones_like(height), height, male, height * male], 1)
    return _regression("earnings", design, np.log(data["earn"]))


def mesquite() -> en.Energy:
    data = _posteriordb("mesquite-logmesquite_logvash")
    d1, d2, height = data["diam1"], data["diam2"], data["canopy_height"]
    columns = [np.log(d1 * d2 * height), np.log(d1 * d2), np.log(d1 / d2)]
    columns = [np.ones_like(d1), *columns, np.log(data["total_height"]), data["group"]]
    return _regression("mesquite", np.stack(columns, 1), np.log(data["weight"]))


def garch() -> en.Energy:
    data = _posteriordb("garch-garch11")

    # beta1 = share * (1 - alpha1)
    @en.energy(
        mu=en.Real(), alpha0=en.Positive(), alpha1=en.Interval(0, 1), share=en.Interval(0, 1)
    )
    def energy(mu, alpha0, alpha1, share, y, sigma1):
        beta1 = share * (1 - alpha1)

        def step(variance, before):
            variance = alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance
            return variance, variance

        variances = jax.lax.scan(step, sigma1**2, y[:-1])[1]
        variances = jnp.concatenate([sigma1[None] ** 2, variances])
        value = 0.5 * jnp.sum((y - mu) ** 2 / variances + jnp.log(variances))
        return value - jnp.log1p(
            -alpha1
        )  # the density of beta1 is uniform, so that of share is not

    return energy.condition(y=data["y"], sigma1=data["sigma1"])
