"""The posteriors as energies: priors as factors, data as data factors.

Each function takes the data of its posterior and gives the energy of its parameters.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import energia as en

Data = Mapping[str, Any]


def normal(x: Any, mean: Any, sd: Any) -> jax.Array:
    return 0.5 * ((x - mean) / sd) ** 2 + jnp.log(sd)


def cauchy(x: Any, scale: float) -> jax.Array:
    return jnp.log1p((x / scale) ** 2)


def half_normal(name: str, scale: float, shape: tuple[int, ...] = ()) -> en.Energy:
    prior = en.Gaussian(jnp.zeros(shape), scale=scale).rename(x=name)
    return prior.constrain(**{name: en.Positive(shape)})


@en.energy(sigma=en.Positive())
def half_cauchy(sigma):
    return cauchy(sigma, 2.5)


@en.energy(sigma=en.Positive())
def linear(beta, sigma, x, y):
    return normal(y, x @ beta, sigma)


def regression(columns: list[Any], y: Any) -> en.Energy:
    """Rows y ~ Normal(x beta, sigma), with a column of ones first."""
    x = np.stack([np.ones(len(y)), *map(np.asarray, columns)], axis=1)
    rows = linear.constrain(beta=en.Real(x.shape[1]), x=en.Real(x.shape[1]), y=en.Real())
    return en.total(rows, x=x, y=y)


def kidiq(data: Data) -> en.Energy:
    return half_cauchy + regression([data["mom_hs"], data["mom_iq"]], data["kid_score"])


def earnings(data: Data) -> en.Energy:
    height, male = np.asarray(data["height"]), np.asarray(data["male"])
    return regression([height, male, height * male], np.log(data["earn"]))


def mesquite(data: Data) -> en.Energy:
    names = ("weight", "diam1", "diam2", "canopy_height", "total_height")
    weight, d1, d2, canopy, total = (np.log(data[name]) for name in names)
    columns = [d1 + d2 + canopy, d1 + d2, d1 - d2, total, data["group"]]
    return regression(columns, weight)


def blr(data: Data) -> en.Energy:
    prior = en.Gaussian(jnp.zeros(5), scale=10.0).rename(x="beta") + half_normal("sigma", 10.0)
    return prior + en.total(linear, x=data["X"], y=data["y"])


def autoregression(data: Data) -> en.Energy:
    y, order = np.asarray(data["y"]), data["K"]
    lags = np.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], axis=1)
    prior = en.Gaussian(jnp.zeros(order + 1), scale=10.0).substitute(
        x=lambda alpha, beta: jnp.concatenate([alpha[None], beta])
    )
    rows = linear.substitute(
        beta=lambda alpha, beta: jnp.concatenate([alpha[None], beta]),
        x=lambda lags: jnp.concatenate([jnp.ones(1, lags.dtype), lags]),
    )
    posterior = half_cauchy + prior + en.total(rows, lags=lags, y=y[order:])
    return posterior.constrain(alpha=en.Real(), beta=en.Real(order))


def eight_schools(data: Data) -> en.Energy:
    """Non-centred: theta = mu + tau z, as a substitution in the likelihood."""

    @en.energy(tau=en.Positive())
    def prior(mu, tau):
        return 0.5 * (mu / 5) ** 2 + cauchy(tau, 5.0)

    @en.energy(mu=en.Real())
    def measured(mu, tau, z, y, sigma):
        return normal(y, mu + tau * z, sigma)

    count = data["J"]
    effects = en.Gaussian(jnp.zeros(count)).rename(x="z")
    schools = measured.substitute(z=lambda z, school: z[school])
    rows = {"school": np.arange(count), "y": data["y"], "sigma": data["sigma"]}
    return prior + effects + en.total(schools, **rows)


def garch(data: Data) -> en.Energy:
    @en.energy(
        mu=en.Real(),
        alpha0=en.Positive(),
        alpha1=en.Interval(0, 1),
        beta1=en.Interval(0, lambda alpha1: 1 - alpha1),
    )
    def garch11(mu, alpha0, alpha1, beta1, y, sigma1):
        def step(variance, shock):
            return (variance := alpha0 + alpha1 * shock**2 + beta1 * variance), variance

        variances = jax.lax.scan(step, sigma1**2, y[:-1] - mu)[1]
        sds = jnp.sqrt(jnp.concatenate([sigma1[None] ** 2, variances]))
        return jnp.sum(normal(y, mu, sds))

    return garch11.condition(y=np.asarray(data["y"]), sigma1=data["sigma1"])


def gaussian_process(data: Data) -> en.Energy:
    @en.energy(rho=en.Positive())
    def length_scale(rho):
        return 4 * rho - 24 * jnp.log(rho)

    @en.energy
    def process(rho, alpha, sigma, x, y):
        squares = (x[:, None] - x) ** 2
        cov = alpha**2 * jnp.exp(-0.5 * squares / rho**2) + sigma * jnp.eye(len(x))
        factor = jnp.linalg.cholesky(cov)
        white = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diag(factor)))

    likelihood = process.condition(x=np.asarray(data["x"], float), y=np.asarray(data["y"]))
    return length_scale + half_normal("alpha", 2.0) + half_normal("sigma", 1.0) + likelihood


def mixture(data: Data) -> en.Energy:
    """Every row has a component of its own, summed out."""

    @en.energy(theta=en.Interval(0, 1))
    def share(theta):
        return -4 * (jnp.log(theta) + jnp.log1p(-theta))

    @en.energy(z=en.Categorical(2), y=en.Real())
    def component(mu, sigma, theta, z, y):
        return normal(y, mu[z], sigma[z]) - jnp.log(jnp.where(z == 0, theta, 1 - theta))

    means = en.Gaussian(jnp.zeros(2), scale=2.0).rename(x="mu").constrain(mu=en.Ordered(2))
    prior = means + half_normal("sigma", 2.0, (2,)) + share
    return prior + en.total(component.marginalize("z"), y=data["y"])


def hidden_markov(data: Data) -> en.Energy:
    """The forward algorithm, as one factor: the hidden states are summed out by hand."""

    @en.energy(mu=en.Ordered(2, low=0.0), theta1=en.Simplex(2), theta2=en.Simplex(2))
    def forward(mu, theta1, theta2, y):
        log_transition = jnp.log(jnp.stack([theta1, theta2]))

        def step(log_alpha, y):
            log_alpha = jax.nn.logsumexp(log_alpha[:, None] + log_transition, axis=0)
            return log_alpha - 0.5 * (y - mu) ** 2, None

        last, _ = jax.lax.scan(step, -0.5 * (y[0] - mu) ** 2, y[1:])
        return -jax.nn.logsumexp(last)

    return hidden_means() + forward.condition(y=np.asarray(data["y"]))


def hidden_markov_factors(data: Data) -> en.Energy:
    """The same posterior as a chain of factors, with every hidden state marginalised."""

    @en.energy(z=en.Categorical(2))
    def emission(mu, z, y):
        return 0.5 * (y - mu[z]) ** 2

    @en.energy(before=en.Categorical(2), z=en.Categorical(2))
    def transition(theta1, theta2, before, z):
        return -jnp.log(jnp.where(before == 0, theta1[z], theta2[z]))

    y, states = data["y"], [f"z{t}" for t in range(len(data["y"]))]
    factors = [emission.condition(y=row).rename(z=z) for row, z in zip(y, states, strict=True)]
    factors += [transition.rename(before=a, z=b) for a, b in itertools.pairwise(states)]
    chain = functools.reduce(operator.add, factors)
    return (hidden_means() + chain.marginalize(*states)).constrain(
        theta1=en.Simplex(2), theta2=en.Simplex(2)
    )


def hidden_means() -> en.Energy:
    prior = en.Gaussian(jnp.array([3.0, 10.0])).rename(x="mu")
    return prior.constrain(mu=en.Ordered(2, low=0.0))


def logistic(features: np.ndarray, label: np.ndarray) -> en.Energy:
    """Bayesian logistic regression with standard normal weights."""

    @en.energy(x=en.Real(features.shape[1]), y=en.Binary())
    def bernoulli(weights, x, y):
        return jax.nn.softplus((1 - 2 * y) * (x @ weights))

    prior = en.Gaussian(jnp.zeros(features.shape[1])).rename(x="weights")
    return prior + en.total(bernoulli, x=features, y=label)


def german_credit(data: Data) -> en.Energy:
    """Logistic regression of inference-gym: standardised features, and an intercept last."""
    x = np.asarray(data["features"], float)
    x = np.concatenate([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))], axis=1)
    return logistic(x, data["label"] == 2)


POSTERIORS: dict[str, Callable[[Data], en.Energy]] = {
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

# Where the reference holds other parameters than the energy: how each gives the other.
Map = Callable[[Mapping[str, Any]], dict[str, Any]]
TO_REFERENCE: dict[str, Map] = {
    "eight_schools-eight_schools_noncentered": lambda draws: {
        "theta": draws["mu"][..., None] + draws["tau"][..., None] * draws["z"],
        "mu": draws["mu"],
        "tau": draws["tau"],
    },
}
FROM_REFERENCE: dict[str, Map] = {
    "eight_schools-eight_schools_noncentered": lambda draw: {
        "z": (draw["theta"] - draw["mu"]) / draw["tau"],
        "mu": draw["mu"],
        "tau": draw["tau"],
    },
}
