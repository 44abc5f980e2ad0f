"""The main job of energia on real handwritten digits, in one to two minutes.

Write energies and compose them; learn an energy from scikit-learn's digits; compose what was
learned with a constraint; sample it with a sampler by name; check convergence; draw pictures.

    python examples/quickstart.py --sampler nuts
"""

import argparse
import pathlib
import time
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_digits

import energia as en

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LEVELS = jnp.geomspace(1.5, 0.1, 10)  # noise, in units where a pixel runs from -1 to 1


# --- 1. two energies: a class, and a function


class Ring(en.Energy):
    """Mass along a circle."""

    radius: jax.Array

    def __call__(self, x):
        return 20.0 * (jnp.linalg.norm(x) - self.radius) ** 2


@en.energy(x=en.Real((2,)))
def right(x):
    """Mass on the right-hand side."""
    return jax.nn.softplus(-8.0 * x[0])


# --- 2. an energy to learn: E(x, y, sigma) = |x - f(x, y, sigma)|^2 / 2 sigma^2


class Digits(en.Energy):
    """Images x of the class y under Gaussian noise of the level sigma.

    f is a denoiser: a perceptron of x and sigma, whose features the class scales and shifts.
    """

    features: eqx.nn.Linear
    by_class: jax.Array
    network: eqx.nn.MLP
    frequencies: jax.Array = en.constant()

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.frequencies = jnp.geomspace(0.5, 8.0, 8)
        self.features = eqx.nn.Linear(64 + 2 * 8, 256, key=keys[0])
        self.by_class = jax.random.normal(keys[1], (10, 2, 256))
        self.network = eqx.nn.MLP(256, 64, 256, 2, activation=jax.nn.silu, key=keys[2])

    def __call__(self, x, y, sigma):
        phase = self.frequencies * jnp.log(sigma)
        spread = jnp.sqrt(0.5 + sigma**2)
        inputs = jnp.concatenate([x / spread, jnp.sin(phase), jnp.cos(phase)])
        scale, shift = self.by_class[y]
        features = (1 + 0.3 * scale) * self.features(inputs) + shift
        guess = self.network(jax.nn.silu(features))
        clean = 0.5 * x / spread**2 + 0.7 * sigma * guess / spread
        return jnp.sum((x - clean) ** 2) / (2 * sigma**2)


@en.energy
def ink(x, amount):
    """A constraint: how dark the image is on average."""
    return 400.0 * (jnp.mean(x) - amount) ** 2


def walk_down(energy, sampler, key, count):
    """Sample E(x, sigma) from much noise to little, then remove what is left (Tweedie's formula).

    Every level is the same compiled program: a conditioned value is data.
    """
    x = None
    for level, sigma in enumerate(LEVELS):
        at_level = energy.condition(sigma=sigma)
        with warnings.catch_warnings():  # one draw a chain cannot be checked for convergence
            warnings.simplefilter("ignore", en.ConvergenceWarning)
            draws = en.sample(
                at_level,
                sampler,
                key=jax.random.fold_in(key, level),
                num_chains=count,
                num_warmup=50,
                num_samples=1,
                init=x,
            )
        x = draws["x"][:, -1]
    return x + sigma**2 * jax.vmap(at_level.score)(x)


def main(sampler: str, num_steps: int, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    key = jax.random.key(0)

    arc = Ring(jnp.array(1.0)) + 0.5 * right
    print(arc)
    toy = en.sample(arc, sampler, key=key, num_samples=2000)
    print(toy.summary().to_string(), "\n")
    toy.diagnose()

    images, labels = load_digits(return_X_y=True)
    data = {"x": images / 8 - 1, "y": labels}
    model = Digits(key).constrain(x=en.Real((64,)), y=en.Categorical(10))
    fit = en.fit(
        model,
        data,
        en.objectives.DSM(sigma=LEVELS, given="y"),
        key=key,
        num_steps=num_steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)),
    )
    digits = fit.ema_energy
    print(f"\n{fit}")

    threes = digits.condition(y=3)
    rows = {f"{y}": digits.condition(y=y) for y in range(10)}
    rows |= {"3, thin": threes + ink.condition(amount=-0.52)}
    rows |= {"3, bold": threes + ink.condition(amount=-0.26)}
    pictures = {
        name: walk_down(energy, sampler, jax.random.fold_in(key, index), count=12)
        for index, (name, energy) in enumerate(rows.items())
    }

    bold = rows["3, bold"].condition(sigma=0.3)
    print(f"\n{bold}")
    draws = en.sample(bold, sampler, key=key, num_samples=4000)
    print(draws.summary().head(8).to_string(), "\n")
    draws.diagnose()

    plot_toy(arc, toy, out / "composed.png")
    plot_digits(pictures, out / "digits.png")
    plot_traces(draws, out / "traces.png")
    seconds = time.perf_counter() - began
    print(f"\npictures in {out}: composed.png, digits.png, traces.png  ({seconds:.0f} s)")


def plot_toy(energy: en.Energy, draws: en.Draws, path: pathlib.Path) -> None:
    axis = jnp.linspace(-1.6, 1.6, 161)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
    density = jnp.exp(-jax.vmap(jax.vmap(energy))(grid))
    figure, panels = plt.subplots(1, 2, figsize=(7, 3.6), sharex=True, sharey=True)
    # the root shows the thin end of the arc too
    panels[0].contourf(axis, axis, jnp.sqrt(density), levels=20, cmap="Blues")
    panels[0].set_title("exp(-E / 2)")
    x = np.asarray(draws["x"]).reshape(-1, 2)
    panels[1].plot(x[:, 0], x[:, 1], ".", markersize=2, alpha=0.3)
    panels[1].set_title(f"{len(x)} draws")
    for panel in panels:
        panel.set_aspect("equal")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def plot_digits(pictures: dict[str, jax.Array], path: pathlib.Path) -> None:
    figure, panels = plt.subplots(len(pictures), 12, figsize=(7, 0.58 * len(pictures)))
    for row, (name, images) in zip(panels, pictures.items(), strict=True):
        row[0].text(-1.5, 3.5, name, ha="right", va="center")
        for panel, image in zip(row, images, strict=True):
            panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            panel.axis("off")
    figure.subplots_adjust(left=0.12, right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    figure.savefig(path, dpi=120)


def plot_traces(draws: en.Draws, path: pathlib.Path) -> None:
    figure, panel = plt.subplots(figsize=(7, 2.6))
    for chain, lp in enumerate(draws.stats["lp"]):
        panel.plot(-lp, linewidth=0.6, label=f"chain {chain}")
    panel.set(xlabel="draw", ylabel="E", title=f"energy of the draws, {draws!r}")
    panel.title.set_fontsize(9)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sampler", default="nuts", help=f"one of {', '.join(en.samplers.names())}"
    )
    parser.add_argument("--num-steps", type=int, default=8000, help="training steps")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/quickstart"))
    arguments = parser.parse_args()
    main(arguments.sampler, arguments.num_steps, arguments.out)
