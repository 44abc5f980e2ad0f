"""Densities of the plane learned apart and composed afterwards: "and", "or", "not".

    python examples/composition.py                    # the product
    python examples/composition.py --problems mixture negation --samplers reverse_diffusion hmc
    python examples/composition.py --full             # the published network, five seeds: hours

Each energy is learned on its own, at many noise levels; what several say together is then an
expression, and one call draws from it down the levels, with any kernel by name:

    both = ring + bar
    path = en.Path(both, sigma=np.geomspace(2.0, 0.005, 40))
    draws = en.sample(path, en.samplers.Annealed("hmc", steps_per_level=10), key=key)

- product: a ring of eight narrow normals and a bar. Two of the eight are left, and the density is
  known: the best mean log density is 3.482, and half of the draws belong above.
- mixture: a left and a right half of a ring, "or". What is learned lacks a constant at each level,
  so that the halves have no shares until each level is normalised, by quadrature.
- negation: a box, and not its middle. As 1.3 box - 0.3 middle, the usual way, the negated energy
  falls without bound far from the middle, and kernels that follow the energy gather there. As
  3 box - 2 mixture([box, middle]) it is bounded, the box where the middle is not and 1/147 of it
  where it is: 0.07 % should lie there, and 9 % of the box do.

Told are, beside these, how far covariances are from the exact ones, and the Wasserstein distance
and the squared maximum mean discrepancy to exact draws (of both negations: of the bounded one's
law); a last row has the same numbers of other exact draws.

See Du et al. (2023), Reduce, reuse, recycle, and docs/composition.md.
"""

import argparse
import pathlib
import time
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

import energia as en

SAMPLERS = ("reverse_diffusion", "langevin", "mala", "unadjusted_hmc", "hmc")
WAVES = (2.0, 4.0, 8.0)  # frequencies, without which narrow modes take long to learn
RADIUS, SPREAD, MIDDLE = 0.5, 0.03, 0.3
ANGLES = np.arange(8) * np.pi / 4
CENTRES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
LEFT = 1 / 147  # of the box, where its middle is
# of the discrepancy between draws of two modes: their median distance lies within a mode or between
# the two by chance, which would be another measure for every seed
BANDWIDTH = 0.1


# --- data


def ring(rng, count, numbers=range(8)):
    centres = CENTRES[rng.choice(list(numbers), count)]
    return centres + SPREAD * rng.normal(size=(count, 2))


def bar(rng, count):
    return rng.uniform([-0.2, -1.0], [0.2, 1.0], (count, 2))


def left(rng, count):
    return ring(rng, count, (3, 4, 5))


def right(rng, count):
    return ring(rng, count, (7, 0, 1, 2, 6))


def box(rng, count):
    return rng.uniform(-1.0, 1.0, (count, 2))


def middle(rng, count):
    return rng.uniform(-MIDDLE, MIDDLE, (count, 2))


def hollow(rng, count):
    x = box(rng, 2 * count)
    return x[(np.abs(x) > MIDDLE).any(axis=1) | (rng.random(2 * count) < LEFT)][:count]


# --- energies


class Network(eqx.Module):
    """Residual blocks of a point, waves over it, and the embedding of its noise level."""

    first: eqx.nn.Linear
    blocks: list[tuple[eqx.nn.Linear, eqx.nn.Linear]]
    last: eqx.nn.Linear

    def __init__(self, width, depth, embedding, key):
        keys = jax.random.split(key, 2 * depth + 2)
        self.first = eqx.nn.Linear(2 + 4 * len(WAVES) + embedding, width, key=keys[0])
        self.blocks = [
            (
                eqx.nn.Linear(width + embedding, 2 * width, key=keys[2 * i + 2]),
                eqx.nn.Linear(2 * width, width, key=keys[2 * i + 3]),
            )
            for i in range(depth)
        ]
        self.last = eqx.nn.Linear(width, 2, key=keys[1])

    def __call__(self, x, level):
        angles = jnp.outer(jnp.array(WAVES), x).ravel()
        h = self.first(jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles), level]))
        for up, down in self.blocks:
            h = h + down(jax.nn.silu(up(jnp.concatenate([jax.nn.silu(h), level]))))
        return self.last(jax.nn.silu(h))


def learn(source, objective, settings, seed):
    """An energy E(x, sigma) of the data of a source, at every noise level."""
    key, fit_key = jax.random.split(jax.random.key(seed))
    data = source(np.random.default_rng(seed), 50_000)
    network = Network(settings.width, settings.depth, settings.embedding, key)
    model = en.NoiseConditional(
        network,
        form="quadratic",
        embedding="fourier",
        embedding_size=settings.embedding,
        data_scale=0.5,
        shape=2,
    )
    if objective == "dsm":
        objective = en.objectives.DSM(sigma=settings.sigmas)
    elif objective == "drl":
        kernel = en.samplers.MALA(step_size=0.1)
        objective = en.objectives.DRL(
            num_levels=20,
            sigma_min=settings.sigmas[-1],
            sigma_max=settings.sigmas[0],
            sampler=kernel,
            num_steps=10,
        )
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.num_steps)
    fit = en.fit(
        model,
        data,
        objective,
        key=fit_key,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        optimizer=optax.adam(rate),
    )
    return fit.ema_energy


def normalised(energy, sigmas):
    """The energy with its log Z at each level added: by quadrature on a grid of the plane."""
    wide, fine = np.linspace(-8.0, 8.0, 200), np.linspace(-1.2, 1.2, 240)

    @eqx.filter_jit
    def log_partition(sigma, axis):
        points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
        values = jax.lax.map(lambda x: -energy(x, sigma), points, batch_size=4000)
        return jax.nn.logsumexp(values) + 2 * jnp.log(axis[1] - axis[0])

    logs = [log_partition(s, jnp.asarray(wide if s > 0.1 else fine)) for s in sigmas[::-1]]
    levels, logs = jnp.log(sigmas[::-1]), jnp.stack(logs)

    @en.energy
    def constant(sigma):
        return jnp.interp(jnp.log(sigma), levels, logs)

    return energy + constant


# --- what is drawn, and how good it is


def sampler_of(name):
    """Down the noise levels: another kernel is another word."""
    if name == "reverse_diffusion":
        return name
    return en.samplers.Annealed(name, steps_per_level=10)


def draw(energy, name, sigmas, key, count):
    with warnings.catch_warnings():  # annealing says that it is biased
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(
            en.Path(energy, sigma=sigmas),
            sampler_of(name),
            key=key,
            num_chains=1,
            num_samples=count,
        )
    return np.asarray(draws["x"], np.float64).reshape(-1, 2)


def log_density(x, centres):
    """Of equally likely normals of the deviation SPREAD."""
    squares = ((x[:, None] - centres) ** 2).sum(-1) / (2 * SPREAD**2)
    return np.logaddexp.reduce(-squares, axis=1) - np.log(len(centres) * 2 * np.pi * SPREAD**2)


def off(x, variance):
    """How far the covariance of draws is from a multiple of the identity."""
    return np.linalg.norm(np.cov(x.T) - variance * np.eye(2)) if len(x) > 2 else np.nan


def apart(x, exact):
    """The distances of two sets of draws."""
    some = min(len(x), 1000)
    costs = ((x[:some, None] - exact[None, :some]) ** 2).sum(-1)
    rows, columns = linear_sum_assignment(costs)
    return {
        "W2": np.sqrt(costs[rows, columns].mean()),
        "MMD²": en.evaluate.mmd(x, exact, bandwidth=BANDWIDTH),
    }


def score_product(x, exact):
    above = x[:, 1] > 0
    return {
        "log density": log_density(x, CENTRES[[2, 6]]).mean(),
        "share above": above.mean(),
        "covariance": np.mean([off(x[side], SPREAD**2) for side in (above, ~above)]),
        **apart(x, exact),
    }


def score_mixture(x, exact):
    return {
        "log density": log_density(x, CENTRES).mean(),
        "share left": (x[:, 0] < -0.2).mean(),
        "covariance": off(x, RADIUS**2 / 2 + SPREAD**2),
        **apart(x, exact),
    }


def score_negation(x, exact):
    taken = 4 * MIDDLE**2 * (1 - LEFT)  # of an area of 4
    variance = (4 / 3 - taken * MIDDLE**2 / 3) / (4 - taken)
    return {
        "in the middle": (np.abs(x) < MIDDLE).all(axis=1).mean(),
        "outside the box": (np.abs(x) > 1.03).any(axis=1).mean(),
        "covariance": off(x, variance),
        **apart(x, exact),
    }


SOURCES = {
    "product": {"ring": ring, "bar": bar},
    "mixture": {"left": left, "right": right},
    "negation": {"box": box, "middle": middle},
}
SCORES = {"product": score_product, "mixture": score_mixture, "negation": score_negation}
EXACT = {"product": lambda *of: ring(*of, (2, 6)), "mixture": ring, "negation": hollow}


def compose(problem, one, two, sigmas):
    """What is asked of two energies, as expressions."""
    if problem == "product":
        return {"product": one + two}
    one, two = normalised(one, sigmas), normalised(two, sigmas)
    if problem == "negation":
        return {
            "negation": 1.3 * one - 0.3 * two,
            "bounded negation": 3 * one - 2 * en.mixture([one, two]),
        }
    return {"mixture": en.mixture([one, two], weights=[3 / 8, 5 / 8])}


# --- tables and pictures


def table(scores):
    """Means over the seeds, with standard errors where there are several."""
    columns = list(next(iter(scores.values()))[0])
    print(f"{'':20s}" + "".join(f"{column:>22s}" for column in columns))
    for name, rows in scores.items():
        cells = []
        for column in columns:
            values = np.array([row[column] for row in rows])
            error = ""
            if len(values) > 1:
                error = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.2g}"
            cells.append(f"{values.mean():.4g}{error}")
        print(f"{name:20s}" + "".join(f"{cell:>22s}" for cell in cells))


def picture(problem, data, drawn, path):
    """The parts and what each kernel drew of their composition."""
    panels = {**data, **drawn}
    figure = Figure(figsize=(2.2 * len(panels), 2.5), layout="constrained")
    for axes, (name, x) in zip(
        np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        axes.plot(*x[:1000].T, ".", markersize=1.5, color="#888888" if name in data else "#1f77b4")
        axes.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
    figure.suptitle(problem)
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


def run(problem, arguments):
    """Learn, compose, draw by every kernel, and tell how good the draws are."""
    scores, drawn, score = {}, {}, SCORES[problem]
    for seed in range(arguments.seeds):
        start, rng = time.perf_counter(), np.random.default_rng(seed)
        exact, others = (EXACT[problem](rng, arguments.num_samples) for _ in range(2))
        energies = [
            learn(source, arguments.objective, arguments, 10 * seed + index)
            for index, source in enumerate(SOURCES[problem].values())
        ]
        print(f"\n{' and '.join(SOURCES[problem])}: learned in {time.perf_counter() - start:.0f} s")
        for label, energy in compose(problem, *energies, arguments.sigmas).items():
            if not seed:
                print(f"{label}: {energy}")
            for name in arguments.samplers:
                key, sigmas = jax.random.key(seed), arguments.sigmas
                x = draw(energy, name, sigmas, key, arguments.num_samples)
                scores.setdefault(label, {}).setdefault(name, []).append(score(x, exact))
                drawn.setdefault(label, {}).setdefault(name, x)
            scores[label].setdefault("exact draws", []).append(score(others, exact))
    data = {name: make(np.random.default_rng(0), 1000) for name, make in SOURCES[problem].items()}
    for label in scores:
        print(f"\n{label}")
        table(scores[label])
        name = f"composition-{label.replace(' ', '-')}.png"
        picture(label, data, drawn[label], arguments.out / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=SCORES, default=["product"])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--objective", default="dsm", help="'dsm' or 'drl'")
    parser.add_argument("--seeds", type=int, help="1; 5 if full")
    parser.add_argument("--num-steps", type=int, help="training steps: 6000; 15,000 if full")
    parser.add_argument("--num-samples", type=int, help="draws: 1000; 2000 if full")
    parser.add_argument("--num-levels", type=int, help="noise levels: 40; 100 if full")
    parser.add_argument("--full", action="store_true", help="the published network, five seeds")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    arguments = parser.parse_args()
    size = {"width": 64, "depth": 2, "embedding": 16, "batch_size": 256, "learning_rate": 6e-3}
    size |= {"seeds": 1, "num_steps": 6000, "num_samples": 1000, "num_levels": 40}
    if arguments.full:
        size = {"width": 128, "depth": 4, "embedding": 32, "batch_size": 1000}
        size |= {"learning_rate": 1e-3, "seeds": 5, "num_steps": 15_000, "num_samples": 2000}
        size |= {"num_levels": 100}
    for name, value in size.items():
        if getattr(arguments, name, None) is None:  # what was given stays
            setattr(arguments, name, value)
    arguments.sigmas = np.geomspace(2.0, 0.005, arguments.num_levels)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.samplers:  # a wrong name is told before anything is learned
        sampler_of(name)
    for problem in arguments.problems:
        run(problem, arguments)


if __name__ == "__main__":
    main()
