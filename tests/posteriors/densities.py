"""The log densities of the posteriors in NumPy and SciPy, which know nothing of energia.

In double precision, at the parameters of the reference, up to a constant.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats

Data = Mapping[str, Any]
Draw = Mapping[str, np.ndarray]


def normal(y: Any, mean: Any, sd: Any) -> float:
    return float(np.sum(stats.norm.logpdf(np.asarray(y, float), mean, sd)))


def cauchy(x: Any, scale: float) -> float:
    return float(stats.cauchy.logpdf(x, scale=scale))


def kidiq(data: Data, draw: Draw) -> float:
    b, sigma = draw["beta"], draw["sigma"]
    mean = b[0] + b[1] * np.array(data["mom_hs"]) + b[2] * np.array(data["mom_iq"])
    return normal(data["kid_score"], mean, sigma) + cauchy(sigma, 2.5)


def earnings(data: Data, draw: Draw) -> float:
    b, height, male = draw["beta"], np.array(data["height"]), np.array(data["male"])
    mean = b[0] + b[1] * height + b[2] * male + b[3] * height * male
    return normal(np.log(data["earn"]), mean, draw["sigma"])


def mesquite(data: Data, draw: Draw) -> float:
    b, one, two = draw["beta"], np.array(data["diam1"]), np.array(data["diam2"])
    mean = (
        b[0]
        + b[1] * np.log(one * two * np.array(data["canopy_height"]))
        + b[2] * np.log(one * two)
        + b[3] * np.log(one / two)
        + b[4] * np.log(data["total_height"])
        + b[5] * np.array(data["group"])
    )
    return normal(np.log(data["weight"]), mean, draw["sigma"])


def blr(data: Data, draw: Draw) -> float:
    beta, sigma = draw["beta"], draw["sigma"]
    likelihood = normal(data["y"], np.array(data["X"]) @ beta, sigma)
    return likelihood + normal(beta, 0, 10) + normal(sigma, 0, 10)


def autoregression(data: Data, draw: Draw) -> float:
    alpha, beta, sigma, y = draw["alpha"], draw["beta"], draw["sigma"], data["y"]
    total = normal(alpha, 0, 10) + normal(beta, 0, 10) + cauchy(sigma, 2.5)
    for t in range(data["K"], data["T"]):
        total += normal(y[t], alpha + sum(beta[k] * y[t - k - 1] for k in range(5)), sigma)
    return total


def eight_schools(data: Data, draw: Draw) -> float:
    """Of mu, tau and z: without the Jacobian of theta = mu + tau z, which is no parameter."""
    theta, mu, tau = draw["theta"], draw["mu"], draw["tau"]
    total = normal(data["y"], theta, data["sigma"]) + normal((theta - mu) / tau, 0, 1)
    return total + normal(mu, 0, 5) + cauchy(tau, 5)


def garch(data: Data, draw: Draw) -> float:
    y, sd, total = data["y"], data["sigma1"], 0.0
    for t in range(data["T"]):
        if t:
            shock = y[t - 1] - draw["mu"]
            sd = np.sqrt(draw["alpha0"] + draw["alpha1"] * shock**2 + draw["beta1"] * sd**2)
        total += normal(y[t], draw["mu"], sd)
    return total


def gaussian_process(data: Data, draw: Draw) -> float:
    x, rho, alpha, sigma = np.array(data["x"], float), draw["rho"], draw["alpha"], draw["sigma"]
    cov = alpha**2 * np.exp(-0.5 * (x[:, None] - x) ** 2 / rho**2) + sigma * np.eye(len(x))
    total = stats.multivariate_normal.logpdf(data["y"], cov=cov)  # pyright: ignore[reportArgumentType]
    total += stats.gamma.logpdf(rho, 25, scale=1 / 4)
    return float(total) + normal(alpha, 0, 2) + normal(sigma, 0, 1)


def mixture(data: Data, draw: Draw) -> float:
    mu, sigma, theta, y = draw["mu"], draw["sigma"], draw["theta"], np.array(data["y"])
    first, second = (stats.norm.pdf(y, m, s) for m, s in zip(mu, sigma, strict=True))
    total = np.sum(np.log(theta * first + (1 - theta) * second))
    return float(total + stats.beta.logpdf(theta, 5, 5)) + normal(mu, 0, 2) + normal(sigma, 0, 2)


def hidden_markov(data: Data, draw: Draw) -> float:
    """Products of matrices, scaled at each step."""
    mu, total = draw["mu"], 0.0
    transition = np.stack([draw["theta1"], draw["theta2"]])
    alpha = np.ones(2)
    for t, y in enumerate(data["y"]):
        alpha = (alpha @ transition if t else alpha) * stats.norm.pdf(y, mu, 1)
        total += np.log(alpha.sum())
        alpha /= alpha.sum()
    return float(total) + normal(mu, [3, 10], 1)


DENSITIES: dict[str, Callable[[Data, Draw], float]] = {
    "arK-arK": autoregression,
    "earnings-logearn_interaction": earnings,
    "eight_schools-eight_schools_noncentered": eight_schools,
    "garch-garch11": garch,
    "gp_pois_regr-gp_regr": gaussian_process,
    "hmm_example-hmm_example": hidden_markov,
    "kidiq-kidscore_momhsiq": kidiq,
    "low_dim_gauss_mix-low_dim_gauss_mix": mixture,
    "mesquite-logmesquite_logvash": mesquite,
    "sblrc-blr": blr,
}
