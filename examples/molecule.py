"""Constraints on an analytic system: a chain of beads with bond, turn and contact energies.

    python examples/molecule.py                  # one to two minutes
    python examples/molecule.py --kernel mala    # or nuts, several times as long
    python examples/molecule.py --full           # ten times the draws

A molecule in the plane, as its energies say it: each bead is a named variable; one bond energy is
renamed along the chain, and so are one turn energy and one repulsion; a contact between two distant
beads is added, or left out, by `+`. A turn has two minima, to the left and to the right: that makes
64 conformations with barriers of 8 kT between them, and in few of them the two beads meet. A kernel
by itself stays near the conformations that it began with; parallel tempering along temperatures
goes round them all, and the diagnostics tell the two apart: R-hat and the effective sample size of
the contact and of the turns.

The free chain, bonds and turns alone, has closed forms: in the polar coordinates of its bonds it
is a product, r exp(-k (r - 1)^2 / 2) of each length and exp(-h (cos - 1/2)^2) of each turn, so that

    <R^2> = n <r^2> + 2 <r>^2 sum_{i<j} <cos>^(j - i).

So it can be drawn without a chain of steps, and such draws, weighted by exp(-E) of what is added,
tell what repulsion and contact make of it.
"""

import argparse
import itertools
import pathlib
import time
import warnings
from typing import Any

import arviz_base
import arviz_stats
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import energia as en

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BEADS = [f"x{index}" for index in range(8)]
PAIR = (0, 5)  # of the contact: six beads with five bonds between them close to a hexagon
STIFFNESS, TURN, REPULSION, CONTACT = 100.0, 32.0, 8.0, 4.0  # in units of kT
CLOSED = 1.4  # bond lengths, below which the pair is in contact
TEMPERATURES = np.geomspace(8.0, 1.0, 8)
STEPS = {"mala": 10}  # a step of Langevin is one leapfrog step; ten make a trajectory
POINT = en.Real((2,))


# --- the energies, each written once


@en.energy(a=POINT, b=POINT)
def bond(a, b):
    return 0.5 * STIFFNESS * (jnp.linalg.norm(b - a) - 1) ** 2


@en.energy(a=POINT, b=POINT, c=POINT)
def turn(a, b, c):
    """Minima where the second bond turns from the first by 60 degrees to either side."""
    first, second = b - a, c - b
    cosine = first @ second / jnp.sqrt((first @ first) * (second @ second))
    return TURN * (cosine - 0.5) ** 2


@en.energy(a=POINT, b=POINT)
def repulsion(a, b):
    """The Gaussian core of polymer physics: finite, so that no start is impossible."""
    return REPULSION * jnp.exp(-0.5 * jnp.sum((b - a) ** 2) / 0.3**2)


@en.energy(a=POINT, b=POINT)
def contact(a, b):
    """A well of the depth CONTACT at the length of a bond."""
    return -CONTACT * jnp.exp(-0.5 * ((jnp.linalg.norm(b - a) - 1) / 0.25) ** 2)


def molecules() -> dict[str, en.Energy]:
    """The free chain, the chain, and the chain with a contact; the first bead stays where it is."""
    bonds = sum(bond.rename(a=a, b=b) for a, b in itertools.pairwise(BEADS))
    turns = sum(
        turn.rename(a=a, b=b, c=c) for a, b, c in zip(BEADS, BEADS[1:], BEADS[2:], strict=False)
    )
    distant = [(a, b) for i, a in enumerate(BEADS) for b in BEADS[i + 4 :]]
    free = bonds + turns
    chain = free + sum(repulsion.rename(a=a, b=b) for a, b in distant)
    ring = chain + contact.rename(a=BEADS[PAIR[0]], b=BEADS[PAIR[1]])
    energies = {"free chain": free, "chain": chain, "chain with contact": ring}
    return {name: energy.condition(x0=np.zeros(2)) for name, energy in energies.items()}


# --- what is known of the free chain


def law(weight, low, high):
    """A density on an interval, up to its normaliser: `mean(f)` and the quantiles of it."""
    points = np.linspace(low, high, 20_001)
    shares = weight(points) / np.sum(weight(points))
    cumulated = np.cumsum(shares) - shares / 2
    return lambda f: np.sum(shares * f(points)), lambda share: np.interp(share, cumulated, points)


length, length_at = law(lambda r: r * np.exp(-STIFFNESS * (r - 1) ** 2 / 2), 0.0, 3.0)
angle, angle_at = law(lambda t: np.exp(-TURN * (np.cos(t) - 0.5) ** 2), 0.0, np.pi)


def closed_forms() -> dict[str, float]:
    count = len(BEADS) - 1
    cosine, mean = angle(np.cos), length(lambda r: r)
    along = sum((count - apart) * cosine**apart for apart in range(1, count))
    square = length(lambda r: r**2)
    return {
        "bond length": mean,
        "bond length squared": square,
        "bonds below the median length": 0.5,
        "bonds above the 95 % quantile": 0.05,
        "cosine of a turn": cosine,
        "turns below the median angle": 0.5,
        "turns above the 95 % quantile": 0.05,
        "turns to the left": 0.5,
        "variance of their number": (count - 1) / 4,
        "end-to-end distance squared": count * square + 2 * mean**2 * along,
        "_median length": length_at(0.5),
        "_long": length_at(0.95),
        "_median angle": angle_at(0.5),
        "_wide": angle_at(0.95),
    }


def independent(count: int) -> np.ndarray:
    """Free chains, bond by bond, shape (count, bead, 2)."""
    random, bonds = np.random.default_rng(1), len(BEADS) - 1
    lengths = length_at(random.uniform(size=(count, bonds)))
    turns = angle_at(random.uniform(size=(count, bonds - 1)))
    return joined(lengths, turns * random.choice([-1, 1], turns.shape), random)


def joined(lengths: np.ndarray, turns: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Beads from bond lengths and turns, the first bond in any direction."""
    first = random.uniform(0, 2 * np.pi, (len(turns), 1))
    heading = np.cumsum(np.concatenate([first, turns], axis=1), axis=1)
    bonds = lengths[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    return np.pad(np.cumsum(bonds, axis=1), [(0, 0), (1, 0), (0, 0)])


def weights_of(added: en.Energy, beads: np.ndarray) -> np.ndarray:
    """exp(-E) of what is added to the free chain, of mean 1."""
    rows = {name: jnp.asarray(beads[:, index]) for index, name in enumerate(BEADS[1:], 1)}
    weights = np.exp(-np.asarray(jax.jit(jax.vmap(added.at))(rows), np.float64))
    return weights / weights.mean()


# --- what is seen


def places(draws: en.Draws) -> np.ndarray:
    """The beads of every draw, shape (chain, draw, bead, 2)."""
    rest = np.stack([draws[name] for name in BEADS[1:]], axis=-2)
    return np.pad(rest, [(0, 0), (0, 0), (1, 0), (0, 0)]).astype(np.float64)


def shape_of(beads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bond lengths, and turns in radians, positive to the left."""
    bonds = np.diff(beads, axis=-2)
    heading = np.arctan2(bonds[..., 1], bonds[..., 0])
    turns = (np.diff(heading, axis=-1) + np.pi) % (2 * np.pi) - np.pi
    return np.linalg.norm(bonds, axis=-1), turns


def distance(beads: np.ndarray, i: int, j: int) -> np.ndarray:
    return np.linalg.norm(beads[..., i, :] - beads[..., j, :], axis=-1)


def table(quantities: dict[str, np.ndarray]) -> Any:
    """ArviZ's table: means with their errors by effective sample size, and R-hat."""
    tree = arviz_base.from_dict({"posterior": quantities})
    columns = ["mean", "mcse_mean", "ess_bulk", "r_hat"]
    return arviz_stats.summary(tree, round_to="none")[columns].astype(float)


def check(beads: np.ndarray) -> None:
    """The free chain against its closed forms."""
    known = closed_forms()
    lengths, turns = shape_of(beads)
    left = np.mean(turns > 0, axis=-1)
    seen = {
        "bond length": lengths.mean(-1),
        "bond length squared": (lengths**2).mean(-1),
        "bonds below the median length": np.mean(lengths < known["_median length"], -1),
        "bonds above the 95 % quantile": np.mean(lengths > known["_long"], -1),
        "cosine of a turn": np.cos(turns).mean(-1),
        "turns below the median angle": np.mean(np.abs(turns) < known["_median angle"], -1),
        "turns above the 95 % quantile": np.mean(np.abs(turns) > known["_wide"], -1),
        "turns to the left": left,
        "variance of their number": (turns.shape[-1] * (left - 0.5)) ** 2,
        "end-to-end distance squared": distance(beads, 0, -1) ** 2,
    }
    print(f"{'':32}{'exact':>9}{'found':>10}{'error':>9}{'z':>7}")
    for name, row in table(seen).iterrows():
        z = (row["mean"] - known[name]) / row["mcse_mean"]
        print(f"{name:32}{known[name]:9.4f}{row['mean']:10.4f}{row['mcse_mean']:9.4f}{z:7.2f}")


def report(beads: np.ndarray) -> None:
    """The contact and the turns: by reflection half of these are to the left."""
    _, turns = shape_of(beads)
    closed = (distance(beads, *PAIR) < CLOSED).astype(float)
    rows = table({"in contact": closed, "turns to the left": np.mean(turns > 0, axis=-1)})
    print(rows.to_string(float_format=lambda value: f"{value:.3f}"))


def expected(weights: np.ndarray, beads: np.ndarray) -> None:
    """The share in contact by weights, to compare with what chains found."""
    closed = distance(beads, *PAIR) < CLOSED
    share = np.mean(weights * closed)
    error = np.std(weights * (closed - share)) / np.sqrt(len(weights))  # to first order
    print(f"in contact, by weights of independent chains: {share:.4f} ± {error:.4f}")


def started(num_chains: int) -> dict[str, np.ndarray]:
    """Chains of random turns, each chain another conformation."""
    random = np.random.default_rng(0)
    turns = np.pi / 3 * random.choice([-1, 1], (num_chains, len(BEADS) - 2))
    beads = joined(np.ones((num_chains, len(BEADS) - 1)), turns, random)
    return {name: beads[:, index] for index, name in enumerate(BEADS[1:], 1)}


# --- the run


def main(kernel: str, num_samples: int, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", en.ConvergenceWarning)  # diagnose() tells the same
    began = time.perf_counter()
    energies, start = molecules(), started(num_chains=4)
    print(energies["free chain"])
    print(f"\n--- chain with contact, {kernel} by itself\n")
    plain = en.sample(
        energies["chain with contact"],
        kernel,
        key=jax.random.key(0),
        num_samples=num_samples,
        thin=4 * len(TEMPERATURES),  # as many steps as all replicas together take
        init=start,
    )
    stuck = places(plain)
    plain.diagnose()
    report(stuck)

    seen, weights, free = {}, {}, independent(200_000)
    for index, (name, energy) in enumerate(energies.items()):
        print(f"\n--- {name}, parallel tempering of {kernel}\n")
        draws = en.sample(
            en.paths.tempering(energy, TEMPERATURES),
            en.samplers.ParallelTempering(en.samplers.Repeat(kernel, STEPS.get(kernel, 1))),
            key=jax.random.key(index),
            num_samples=num_samples,
            thin=4,
            init=start,
        )
        draws.diagnose()
        seen[name] = places(draws)
        if name == "free chain":
            check(seen[name])
            continue
        report(seen[name])
        weights[name] = weights_of(energy - energies["free chain"], free)
        expected(weights[name], free)

    plot_conformations(seen, out / "conformations.png")
    plot_distances(seen, free, weights, out / "distances.png")
    plot_checks(seen["free chain"], out / "closed_forms.png")
    plot_mixing({kernel: stuck, "tempered": seen["chain with contact"]}, out / "mixing.png")
    print(f"\npictures in {out}  ({time.perf_counter() - began:.0f} s)")


# --- pictures


def plot_conformations(seen: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Draws far apart in a run, turned so that the first bond points to the right."""
    figure, panels = plt.subplots(len(seen), 8, figsize=(11, 1.35 * len(seen)))
    for row, (name, beads) in zip(panels, seen.items(), strict=True):
        many = beads[:, -1 :: -(beads.shape[1] // 4)].reshape(-1, len(BEADS), 2)
        row[0].text(-0.1, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
        for panel, x in zip(row, many, strict=False):
            angle = np.arctan2(x[1, 1], x[1, 0])
            cosine, sine = np.cos(angle), np.sin(angle)
            x = x @ np.array([[cosine, -sine], [sine, cosine]])
            panel.plot(*x.T, color="0.4", linewidth=2)
            panel.scatter(*x.T, s=45, c=range(len(BEADS)), cmap="viridis", zorder=2)
            panel.plot(*x[list(PAIR)].T, "r:", linewidth=1)
            middle = x.mean(0)
            panel.set(
                xlim=middle[0] + np.array([-3.4, 3.4]), ylim=middle[1] + np.array([-3.4, 3.4])
            )
            panel.set_aspect("equal")
            panel.axis("off")
    figure.subplots_adjust(left=0.14, right=0.99, top=0.99, bottom=0.01, wspace=0, hspace=0)
    figure.savefig(path, dpi=120)


def plot_distances(
    seen: dict[str, np.ndarray],
    free: np.ndarray,
    weights: dict[str, np.ndarray],
    path: pathlib.Path,
) -> None:
    """Draws, and in black what weighted independent chains expect."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    pairs = {f"beads {PAIR[0]} and {PAIR[1]}": PAIR, "end to end": (0, len(BEADS) - 1)}
    common = {"bins": np.linspace(0, len(BEADS) - 1, 71), "density": True}
    for panel, (title, pair) in zip(panels, pairs.items(), strict=True):
        apart = distance(free, *pair)
        for name, own in weights.items():
            panel.hist(distance(seen[name], *pair).ravel(), **common, alpha=0.5, label=name)
            panel.hist(apart, **common, weights=own, histtype="step", color="k", linewidth=0.8)
        panel.set(title=title, xlabel="distance / bond length")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def plot_checks(beads: np.ndarray, path: pathlib.Path) -> None:
    lengths, turns = shape_of(beads)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2))
    r = np.linspace(0.4, 1.7, 400)
    angle = np.linspace(-np.pi / 1.5, np.pi / 1.5, 400)
    laws = {
        "bond length": (lengths, r, r * np.exp(-STIFFNESS * (r - 1) ** 2 / 2)),
        "turn / rad": (turns, angle, np.exp(-TURN * (np.cos(angle) - 0.5) ** 2)),
    }
    for panel, (name, (values, at, weight)) in zip(panels, laws.items(), strict=True):
        panel.hist(values.ravel(), bins=80, range=(at[0], at[-1]), density=True, alpha=0.5)
        panel.plot(at, weight / (np.sum(weight) * (at[1] - at[0])), "k", linewidth=1)
        panel.set(xlabel=name, title="free chain: draws and closed form")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def plot_mixing(runs: dict[str, np.ndarray], path: pathlib.Path) -> None:
    figure, panels = plt.subplots(len(runs), 1, figsize=(9, 4), sharex=True, sharey=True)
    for panel, (name, beads) in zip(panels, runs.items(), strict=True):
        for chain in distance(beads, *PAIR):
            panel.plot(chain, ".", markersize=2)
        panel.axhline(CLOSED, color="0.6", linewidth=0.8)
        panel.set(title=name, ylabel=f"beads {PAIR[0]} to {PAIR[1]}")
    panels[-1].set_xlabel("draw")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kernel", default="hmc", help="hmc, mala or nuts")
    parser.add_argument("--num-samples", type=int, help="draws a chain: 2000; 20,000 if full")
    parser.add_argument("--full", action="store_true", help="ten times the draws")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/molecule"))
    arguments = parser.parse_args()
    count = arguments.num_samples or (20_000 if arguments.full else 2000)
    main(arguments.kernel, count, arguments.out)
