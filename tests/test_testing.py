"""`en.testing.check_energy` accepts what keeps the laws and rejects what breaks one."""

import inspect
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.testing import Target, check_energy
from energia.testing._targets import continuous, discrete, functionals
from energia.testing._targets import mixed as mixed_target


class Flawed(en.Energy):
    """A quadratic energy, sound or with a flaw."""

    weight: jax.Array
    flaw: str = eqx.field(static=True, default="")

    def __call__(self, x: jax.Array) -> jax.Array:
        value = self.weight * jnp.sum(x**2)
        match self.flaw:
            case "vector":
                return self.weight * x**2
            case "whole":
                return jnp.sum(jnp.round(x)).astype(int)
            case "not finite":
                return value / 0
            case "reads numbers":
                return value * float(self.weight)
            case "stopped gradient":
                return value + jax.lax.stop_gradient(jnp.sum(x) ** 2)
            case "infinite slope":
                return value + jnp.sqrt(jnp.abs(x[0] - x[0]))
            case "impure":
                return value + jnp.asarray(RANDOM.normal(), value.dtype)
            case "cancels":
                return (value + 1e6) - 1e6
        return value

    def _supports(self) -> dict[str, en.Real]:
        return {"x": en.Real((3,))}


RANDOM = np.random.default_rng(0)
ONE = jnp.ones(())


@en.energy(x=en.Positive(), p=en.Simplex(3), s=en.Spin((2,)), k=en.Categorical(3))
def mixed(x, p, s, k):
    return x - jnp.sum(jnp.log(p)) + 0.1 * k * x * jnp.sum(s)


@en.energy
def unknown(x, y):
    return jnp.sum(x**2) + jnp.sum(x) * y


SOUND: dict[str, tuple[en.Energy, Any]] = {
    "class": (Flawed(ONE), None),
    "Python float": (Flawed(2.0), None),  # pyright: ignore[reportArgumentType]
    "every kind of support": (mixed, None),
    "unknown supports": (unknown, {"x": np.ones(2), "y": 0.5}),
    "sum of several variables": (en.Ring() + en.Gaussian(1.0).rename(x="z"), None),
    "conditioned, scaled mixture": (
        2 * en.mixture([Flawed(ONE), en.Gaussian(jnp.zeros(3))]) / 3,
        {"x": jnp.zeros(3)},
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound(name: str, key: jax.Array) -> None:
    energy, values = SOUND[name]
    check_energy(energy, values, key=key)


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("vector", r"it is a real scalar: shape \(3,\), dtype float32"),
        ("whole", r"it is a real scalar: shape \(\), dtype int32"),
        ("not finite", "finite on its supports: "),
        ("reads numbers", "compiled it has the value .*: it raises ConcretizationTypeError"),
        ("stopped gradient", "its gradient is its derivative: along a random direction"),
        ("infinite slope", "its gradient is finite: d/dx = .*nan"),
        ("impure", "breaks the law that"),
        ("cancels", "32 bits give the value that 64 give"),
    ],
)
def test_flawed(flaw: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_energy(Flawed(0.1 * ONE, flaw))


def test_support_that_does_not_fit() -> None:
    energy = en.energy(x=en.Real((2,)))(lambda x: jnp.sum(x * jnp.ones(3)))
    with pytest.raises(
        AssertionError, match=r"it is a real scalar: it raises .*incompatible shapes"
    ):
        check_energy(energy)


def test_what_is_checked() -> None:
    with pytest.raises(TypeError, match=r"check_energy.. takes an energy, got <function"):
        inspect.unwrap(check_energy)(lambda x: x)
    with pytest.raises(ValueError, match=r"support of 'y' is unknown: give values=\{'y': ...\}"):
        check_energy(unknown, {"x": np.ones(2)})
    with pytest.raises(ValueError, match=r"values= has \['z'\]; the variables are \('x', 'y'\)"):
        check_energy(unknown, {"z": 1.0})
    with pytest.raises(AssertionError, match=r"hold their values: 'x' in real \(3,\) is float32"):
        check_energy(Flawed(ONE), {"x": np.ones(2)})
    with pytest.raises(AssertionError, match=r"x=-1.0 is outside positive"):
        check_energy(en.Gaussian(0.0).constrain(x=en.Positive()), {"x": -1.0})


# --- the targets: their moments against quadrature and enumeration


@pytest.mark.parametrize("target", continuous()[:2], ids=lambda target: target.name)
def test_moments_of_normals(target: Target) -> None:
    grid = np.linspace(-7, 7, 280)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    check_moments(target, {"x": points})


@pytest.mark.parametrize("target", discrete(), ids=lambda target: target.name)
def test_moments_of_discrete_variables(target: Target) -> None:
    supports: Any = target.energy.supports
    entries = [math.prod(support.shape) for support in supports.values()]
    each = [s.states for s, n in zip(supports.values(), entries, strict=True) for _ in range(n)]
    table = np.array(list(itertools.product(*each)))
    columns = np.split(table, np.cumsum(entries)[:-1], axis=1)
    points = {
        name: column.reshape(-1, *support.shape).astype(support.dtype)
        for (name, support), column in zip(supports.items(), columns, strict=True)
    }
    check_moments(target, points)


def test_moments_beside_labels() -> None:
    target = mixed_target()
    grid = (np.arange(300) + 0.5) / 300
    x, tau = (axis.ravel() for axis in np.meshgrid(14 * grid - 6, 30 * grid**2))
    density = np.tile(2 * grid[:, None], (1, 300)).ravel()  # of the grid of tau
    weights, points = [], {"x": [], "tau": [], "z": []}
    for z in range(3):
        values = {"x": x, "tau": tau, "z": np.full(x.size, z, np.int32)}
        energies = jax.vmap(target.energy.at)({n: jnp.asarray(v) for n, v in values.items()})
        weights.append(density * np.exp(-np.asarray(energies, float)))
        for name, value in values.items():
            points[name].append(value)
    law = np.concatenate(weights) / np.sum(weights)
    draws = {n: jnp.asarray(np.concatenate(v))[None] for n, v in points.items()}
    for text, (values, expected) in functionals(target, draws).items():
        assert law @ values[0] == pytest.approx(expected, abs=5e-3), text


def test_moments_of_bounded_variables() -> None:
    target = continuous()[2]
    others = {"x": 0.0, "tau": 1.0, "share": 1.0, "parts": np.full(3, 1 / 3)}

    def part(*names: str) -> Target:
        """The variables that are independent of the rest."""
        fixed = {name: value for name, value in others.items() if name not in names}
        inside = {n: v for n, v in target.expectations.items() if {"x", "tau"} <= set(names)}
        return Target(
            "a part",
            target.energy.condition(**fixed),
            mean={name: target.mean[name] for name in names},
            variance={name: target.variance[name] for name in names},
            expectations=inside,
        )

    fine = (np.arange(4000) + 0.5) / 4000
    check_moments(part("share"), {"share": -1 + 4 * fine})
    grid = (np.arange(400) + 0.5) / 400
    x, tau = (axis.ravel() for axis in np.meshgrid(60 * grid - 30, 8 * grid))
    check_moments(part("x", "tau"), {"x": x, "tau": tau}, tolerance=5e-3)
    first, second = (axis.ravel() for axis in np.meshgrid(grid, grid))
    inside = first + second < 1
    parts = np.stack([first, second, 1 - first - second], -1)[inside]
    check_moments(part("parts"), {"parts": parts}, tolerance=5e-3)


def check_moments(target: Target, points: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    """Sums over a grid, weighted by exp(-E)."""
    energies = np.asarray(
        jax.vmap(target.energy.at)({n: jnp.asarray(p) for n, p in points.items()})
    )
    weights = np.exp(-(energies.astype(float) - energies.min()))
    weights /= weights.sum()
    draws = {name: jnp.asarray(p)[None] for name, p in points.items()}
    for text, (values, expected) in functionals(target, draws).items():
        found = weights @ values[0]
        assert found == pytest.approx(expected, abs=tolerance), text
