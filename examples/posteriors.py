"""Probabilistic programs as sums of factors: three Bayesian models, in one to two minutes.

A posterior is a sum of energies: one for each prior, and `en.total` for the rows of data. Eight
schools in its non-centred form; varying intercepts on simulated data whose truth is known; and a
mixture whose discrete labels are summed out in closed form and come back from the draws.

    python examples/posteriors.py --sampler nuts
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_iris

import energia as en


def normal(x, mean, sd):
    """Minus the log density of a normal distribution."""
    return 0.5 * ((x - mean) / sd) ** 2 + jnp.log(sd) + 0.5 * jnp.log(2 * jnp.pi)


def analyse(name, posterior, sampler, key, num_samples, out, init=None):
    """Read the model, draw it, sample it, and see whether the draws can be trusted."""
    print(f"\n--- {name}\n\n{posterior}\n")
    figure = en.plot.factor_graph(posterior)
    figure.savefig(out / f"{name.replace(' ', '_')}.png", dpi=150)
    draws = en.sample(
        posterior, sampler, key=key, num_warmup=num_samples, num_samples=num_samples, init=init
    )
    draws.diagnose()
    print(f"\n{draws.summary().to_string()}\n")
    return draws


def row(numbers, digits):
    return " ".join(f"{number:6.{digits}f}" for number in np.asarray(numbers))


# --- 1. eight schools: theta = mu + tau z, so that the scale and the effects do not funnel

EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@en.energy(mu=en.Real())
def average(mu):
    return normal(mu, 0.0, 5.0)


@en.energy(tau=en.Positive())
def half_cauchy(tau):
    return jnp.log1p((tau / 5) ** 2)


@en.energy(z=en.Real((8,)))
def standard(z):
    return jnp.sum(normal(z, 0.0, 1.0))


@en.energy
def school(theta, index, effect, error):
    return normal(effect, theta[index], error)


def non_centred(mu, tau, z):
    return mu + tau * z


def eight_schools(sampler, key, num_samples, out):
    schools = en.total(school, index=np.arange(8), effect=EFFECTS, error=ERRORS)
    posterior = average + half_cauchy + standard + schools.substitute(theta=non_centred)
    draws = analyse("eight schools", posterior, sampler, key, num_samples, out)

    def effect(mu, tau, z, key):
        theta = non_centred(mu, tau, z)
        return {"theta": theta, "effect": theta + ERRORS * jax.random.normal(key, (8,))}

    draws = draws.predictive(effect, key=key, observed={"effect": EFFECTS})
    made = draws.groups["posterior_predictive"]
    above = (made["effect"] > EFFECTS).mean(axis=(0, 1))
    print("effect of each school:      ", row(made["theta"].mean(axis=(0, 1)), 1))
    print("replications above the data:", row(above, 2), "\n")
    print(draws.loo("school"))


# --- 2. varying intercepts: houses in counties, of which some have few

TRUTH = {"mu": 1.5, "tau": 0.4, "slope": -0.7, "sigma": 0.7}
NUM_COUNTIES, NUM_HOUSES = 30, 600


def simulate(seed=2):
    random = np.random.default_rng(seed)
    intercepts = random.normal(TRUTH["mu"], TRUTH["tau"], NUM_COUNTIES)
    sizes = random.dirichlet(np.full(NUM_COUNTIES, 2.0))
    county = random.choice(NUM_COUNTIES, NUM_HOUSES, p=sizes)
    floor = random.integers(0, 2, NUM_HOUSES).astype(float)
    mean = intercepts[county] + TRUTH["slope"] * floor
    radon = random.normal(mean, TRUTH["sigma"])
    return intercepts, {"county": county, "floor": floor, "radon": radon}


@en.energy(mu=en.Real(), tau=en.Positive(), slope=en.Real(), sigma=en.Positive())
def weak_priors(mu, tau, slope, sigma):
    return 0.5 * (mu**2 / 25 + tau**2 + slope**2 / 25 + sigma**2)


@en.energy(intercept=en.Real((NUM_COUNTIES,)))
def counties(intercept, mu, tau):
    return jnp.sum(normal(intercept, mu, tau))


@en.energy
def house(intercept, slope, sigma, county, floor, radon):
    return normal(radon, intercept[county] + slope * floor, sigma)


def varying_intercepts(sampler, key, num_samples, out):
    intercepts, data = simulate()
    posterior = weak_priors + counties + en.total(house, **data)
    draws = analyse("varying intercepts", posterior, sampler, key, num_samples, out)
    print("          truth   mean     sd")
    for name, value in TRUTH.items():
        print(f"{name:8}{value:7.2f}{draws[name].mean():7.2f}{draws[name].std():7.2f}")
    low, high = np.quantile(draws["intercept"], [0.05, 0.95], axis=(0, 1))
    inside = np.sum((low < intercepts) & (intercepts < high))
    print(f"90 % intervals hold {inside} of {NUM_COUNTIES} intercepts\n")
    print(draws.loo("house"))


# --- 3. a mixture: the label of each flower is summed out, exactly


@en.energy(
    weights=en.Simplex(3),
    lengths=en.Ordered(3),
    widths=en.Real((3,)),
    sds=en.Positive((3, 2)),
)
def species(weights, lengths, widths, sds):
    """Dirichlet(5, 5, 5), and normal priors in centimetres; the scales are log-normal."""
    centres = jnp.sum(normal(lengths, 4.0, 2.0)) + jnp.sum(normal(widths, 1.0, 1.0))
    scales = jnp.sum(normal(jnp.log(sds), jnp.log(0.3), 0.5) + jnp.log(sds))
    return centres + scales - 4 * jnp.sum(jnp.log(weights))


@en.energy(z=en.Categorical(3))
def share(z, weights):
    return -jnp.log(weights[z])


@en.energy(z=en.Categorical(3))
def petal(z, lengths, widths, sds, length, width):
    return normal(length, lengths[z], sds[z, 0]) + normal(width, widths[z], sds[z, 1])


def mixture(sampler, key, num_samples, out):
    flowers = load_iris()
    length, width = flowers.data[:, 2:].T
    flower = share + petal
    posterior = species + en.total(flower.marginalize("z"), length=length, width=width)
    # far from the data one kind of flower may be split in two, where a chain would stay
    start = {
        "lengths": np.quantile(length, [1 / 6, 1 / 2, 5 / 6]),
        "widths": np.quantile(width, [1 / 6, 1 / 2, 5 / 6]),
    }
    draws = analyse("mixture", posterior, sampler, key, num_samples, out, init=start)

    def membership(weights, lengths, widths, sds):
        """p(z | length, width), from the energy in which z still stands."""
        at = {"weights": weights, "lengths": lengths, "widths": widths, "sds": sds}

        def chances(length, width):
            energy = flower.condition(**at, length=length, width=width)
            return jax.nn.softmax(-jax.vmap(energy)(jnp.arange(3)))

        return jax.vmap(chances)(jnp.asarray(length), jnp.asarray(width))

    draws = draws.predictive(membership)
    chances = draws.groups["posterior_predictive"]["membership"].mean(axis=(0, 1))
    right = np.mean(np.argmax(chances, axis=1) == flowers.target)
    print(f"labels found without a label: {right:.0%} of the {len(length)} flowers are right")
    for index in (0, 70, 83, 149):
        size = f"{length[index]:.1f} × {width[index]:.1f} cm"
        print(f"  {size}, {flowers.target_names[flowers.target[index]]:12}", end="")
        print(row(chances[index], 3))
    print(f"\n{draws.loo('petal')}")


MODELS = {"schools": eight_schools, "intercepts": varying_intercepts, "mixture": mixture}


def main(sampler: str, num_samples: int, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for index, model in enumerate(MODELS.values()):
        model(sampler, jax.random.key(index), num_samples, out)
    print(f"\nfactor graphs in {out}  ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sampler", default="nuts", help=f"one of {', '.join(en.samplers.names())}"
    )
    parser.add_argument(
        "--num-samples", type=int, default=1000, help="draws a chain, after as many to warm up"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/posteriors"))
    arguments = parser.parse_args()
    main(arguments.sampler, arguments.num_samples, arguments.out)
