"""Bounds that are functions of other variables, through the whole algebra."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en
from energia.energies._unconstrained import Unconstrained
from energia.supports import Support
from energia.testing import Target


def below(a):
    return 1 - a


@en.energy(a=en.Interval(0, 1), b=en.Interval(0, below))
def triangle(a, b):
    return -jnp.log(a) - 0.5 * jnp.log(b)


@en.energy(a=en.Interval(0, 1))
def half(a):
    return a**2


AT = {"a": jnp.array(0.3), "b": jnp.array(0.2)}


def bounds(energy: en.Energy, name: str, **values: float) -> tuple[float, float]:
    there = energy._support_at(name, {n: jnp.asarray(v) for n, v in values.items()})
    assert isinstance(there, en.Interval)
    low, high = there.ends(jnp.float32)
    return float(low), float(high)


def log_det(energy: en.Energy, **free: float) -> float:
    result = Unconstrained(energy).constrain({n: jnp.asarray(v) for n, v in free.items()})[1]
    assert result is not None
    return float(result)


# --- the algebra


def test_it_is_read_where_it_is_declared():
    assert triangle.supports["b"].depends == ("a",)  # pyright: ignore
    assert bounds(triangle, "b", a=0.25) == (0.0, 0.75)


def test_map_and_its_jacobian():
    def coordinates(z):
        return jnp.stack(
            list(Unconstrained(triangle).constrain({"a": z[0], "b": z[1]})[0].values())
        )

    with jax.enable_x64(True):
        z = jnp.array([0.4, -1.1])
        jacobian = jax.jit(jax.jacobian(coordinates))(z)
        expected = np.linalg.slogdet(jacobian)[1]
        assert log_det(triangle, a=0.4, b=-1.1) == pytest.approx(expected, rel=1e-12)
        values = Unconstrained(triangle).constrain({"a": z[0], "b": z[1]})[0]
        back = Unconstrained(triangle).unconstrain(values)
    np.testing.assert_allclose([back["a"], back["b"]], z, rtol=1e-10)


@pytest.mark.parametrize(
    ("energy", "bounded", "values"),
    [
        (triangle.rename(a="p"), "b", {"p": 0.25}),
        (triangle.rename(b="q"), "q", {"a": 0.25}),
        (triangle.rename(a="b", b="a"), "a", {"b": 0.25}),
        (triangle.rename(a="p").rename(p="r", b="s"), "s", {"r": 0.25}),
        (triangle.condition(a=0.25), "b", {}),
        (triangle.rename(a="p").condition(p=0.25), "b", {}),
        (triangle.condition(a=0.25).rename(b="q"), "q", {}),
        (triangle.substitute(a=lambda u, v: u * v), "b", {"u": 0.5, "v": 0.5}),
        (triangle.substitute(a=lambda u: u / 2).rename(u="w"), "b", {"w": 0.5}),
        (triangle.substitute(a=lambda u: u / 2).condition(u=0.5), "b", {}),
        (triangle + half, "b", {"a": 0.25}),
        (half + triangle, "b", {"a": 0.25}),
        ((half + triangle) / 2, "b", {"a": 0.25}),
        (triangle.freeze() - half, "b", {"a": 0.25}),
        (en.mixture([triangle, half]), "b", {"a": 0.25}),
        ((half + triangle).rename(a="p"), "b", {"p": 0.25}),
    ],
    ids=str,
)
def test_it_follows(energy, bounded, values):
    values = {**values, bounded: 0.1}
    assert bounds(energy, bounded, **values) == (0.0, 0.75)
    position = {n: jnp.asarray(0.3) for n in energy.variables}
    mapped = Unconstrained(energy).constrain(position)[0]
    low, high = bounds(energy, bounded, **{n: float(v) for n, v in mapped.items()})
    assert low < float(mapped[bounded]) < high


def test_a_bound_of_one_term_on_a_variable_of_another():
    bounded = en.energy(lambda b: b).constrain(b=en.Interval(0, below))  # pyright: ignore
    energy = half + bounded.rename(b="q")
    assert bounds(energy, "q", a=0.25, q=0.1) == (0.0, 0.75)
    assert bounds(half + bounded, "b", a=0.25, b=0.1) == (0.0, 0.75)
    with pytest.raises(ValueError, match=r"'q' depends on \['a'\], no variable of"):
        Unconstrained(bounded.rename(b="q"))


def test_one_side_declares():
    plain = en.energy(lambda b, c: b * c, c=en.Real())  # pyright: ignore
    assert (plain + triangle).supports["b"] == triangle.supports["b"]
    same = en.energy(lambda a, b: a, b=en.Interval(0, below))  # pyright: ignore
    assert (same + triangle).supports["b"] == triangle.supports["b"]


def test_clashes():
    other = en.energy(lambda b: b, b=en.Interval(0, 1))  # pyright: ignore
    with pytest.raises(ValueError, match="supports of 'b' clash"):
        _ = triangle + other
    with pytest.raises(ValueError, match="clash"):
        _ = triangle + triangle.constrain(b=en.Interval(0, lambda a: 1 - a))
    with pytest.raises(ValueError, match="clash"):
        _ = triangle.condition(a=0.1) + triangle.condition(a=0.2).rename(b="b")
    settled = (triangle + half).constrain(b=en.Interval(0, 1))
    assert bounds(settled, "b", a=0.5, b=0.2) == (0.0, 1.0)


def test_traced_conditions_make_one_program(compilations):
    @eqx.filter_jit
    def value(a):
        energy = Unconstrained(triangle.condition(a=a))
        return energy.at({"b": jnp.zeros(())}), energy.constrain({"b": jnp.zeros(())})[0]["b"]

    numbers = [jnp.float32(0.25), jnp.float32(0.5)]
    got, middle = value(numbers[0])
    assert float(middle) == pytest.approx(0.375)
    assert float(got) == pytest.approx(float(triangle(0.25, 0.375)) - np.log(0.75 / 4), rel=1e-5)
    with compilations() as seen:
        assert float(value(numbers[1])[1]) == pytest.approx(0.25)
    assert seen.count == 0, seen.compiled
    several = jax.vmap(lambda a: value(a)[1])(jnp.array([0.25, 0.5]))
    np.testing.assert_allclose(several, [0.375, 0.25], rtol=1e-6)


def test_arrays_of_bounds():
    above = en.Interval(lambda a: a, lambda a: a + jnp.arange(1.0, 4.0), shape=3)
    energy = en.energy(lambda a, x: jnp.sum(x), a=en.Real(), x=above)  # pyright: ignore
    values, _ = Unconstrained(energy).constrain({"a": jnp.array(2.0), "x": jnp.zeros(3)})
    np.testing.assert_allclose(values["x"], [2.5, 3.0, 3.5])


# --- data


def test_data_beyond_a_bound():
    rows = {"a": [0.2, 0.5], "b": [0.1, 0.7]}
    with pytest.raises(ValueError, match=r"condition\(b=...\).*\(0, 0.5\).*0\.6"):
        triangle.condition(a=0.5, b=0.6)
    with pytest.raises(ValueError, match=r"condition\(b=...\).*0\.6"):
        triangle.condition(a=0.5).condition(b=0.6)
    with pytest.raises(ValueError, match=r"condition\(b=...\).*0\.6"):
        triangle.substitute(a=lambda u: u / 2).condition(u=1.0, b=0.6)
    weighted = en.energy(
        lambda a, b, w: w * a * b,  # pyright: ignore
        a=en.Interval(0, 1),
        b=en.Interval(0, below),
    )
    with pytest.raises(ValueError, match=r"total\(b=...\).* 0\.[67]\d* at index \(1,\)"):
        en.total(weighted, **rows)
    fine = en.total(weighted, a=[0.2, 0.5], b=[0.1, 0.5])  # an end is common in data
    assert float(fine.at({"w": 2.0})) == pytest.approx(2 * (0.02 + 0.25))


def test_a_fixed_value_would_bound_what_stays():
    with pytest.raises(ValueError, match=r"condition\(b=...\).*depends on \['a'\].*constrain"):
        triangle.condition(b=0.7)
    with pytest.raises(ValueError, match=r"total\(b=...\).*depends on \['a'\].*constrain"):
        en.total(triangle, b=[0.1, 0.7])
    lifted = triangle.constrain(a=en.Interval(0, 0.3), b=en.Positive()).condition(b=0.7)
    assert bounds(lifted, "a", a=0.1)[1] == pytest.approx(0.3)


def test_starts_within_bounds(key):
    def sample(energy: en.Energy, init: object = None) -> en.Draws:
        return en.sample(energy, "nuts", key=key, num_chains=1, num_samples=1, init=init)

    with pytest.raises(ValueError, match=r"init for 'b' has 1 value outside.*0\.8"):
        sample(triangle, {"a": 0.5, "b": 0.8})
    with pytest.raises(ValueError, match=r"init for 'b' needs a start of \['a'\]"):
        sample(triangle, {"b": 0.8})
    wide = triangle.constrain(a=en.Interval(2, 3))
    with pytest.raises(ValueError, match=r"bounds of 'b' are out of order there: \(0.0, -1\.\d+\)"):
        sample(wide)
    with pytest.raises(ValueError, match=r"bounds of 'b' are out of order there: \(0.0, -1.5\)"):
        sample(wide, {"a": 2.5})
    cycle = en.energy(
        lambda a, b: a + b,  # pyright: ignore
        a=en.Interval(0, lambda b: b),
        b=en.Interval(0, below),
    )
    with pytest.raises(ValueError, match=r"\['a', 'b'\] .* depend on one another in a cycle"):
        sample(cycle)
    foreign = en.energy(lambda b: b, b=en.Interval(0, below))  # pyright: ignore
    with pytest.raises(ValueError, match=r"'b' depends on \['a'\], no variable of"):
        sample(foreign)


class Pair(en.Energy):
    """Energy w (a + b) on the triangle, with w to be learned."""

    w: jax.Array

    def __call__(self, a, b):
        return self.w * (a + b)

    def _supports(self) -> Mapping[str, Support | None]:
        return {"a": en.Interval(0, 1), "b": en.Interval(0, below)}


PCD = en.objectives.PCD(
    sampler=en.samplers.Langevin(step_size=0.05), num_steps=5, buffer_size=512, reinit_prob=0.0
)


def test_fit_refuses_data_beyond_a_bound(key):
    rows = {"a": np.array([0.1, 0.2]), "b": np.array([0.3, 0.9])}
    with pytest.raises(ValueError, match=r"the data for 'b' has 1 value outside.* at index \(1,\)"):
        en.fit(Pair(jnp.array(0.0)), rows, PCD, key=key, num_steps=1, batch_size=2)


@pytest.mark.slow
def test_pcd_learns_on_the_triangle(key):
    """Of s = a + b the density is s exp(-w s) on (0, 1), and a given s is uniform on (0, s)."""
    w, generator = 3.0, np.random.default_rng(0)
    line = (np.arange(20_000) + 0.5) / 20_000
    shares = line * np.exp(-w * line)
    s = generator.choice(line, 4096, p=shares / shares.sum())
    a = s * generator.uniform(size=s.size)
    rows = {"a": a, "b": s - a}
    fit = en.fit(
        Pair(jnp.array(0.0)),
        rows,
        PCD,
        key=key,
        num_steps=1500,
        batch_size=256,
        optimizer=optax.adam(1e-2),
    )
    spread = np.average((line - np.average(line, weights=shares)) ** 2, weights=shares)
    error = 1 / np.sqrt(s.size * spread)  # of the maximum-likelihood estimate
    assert float(fit.energy.w) == pytest.approx(w, abs=5 * error + 0.15)  # pyright: ignore


# --- draws


@en.energy(a=en.Interval(0, 1), q=en.Interval(0, below))
def flat(a, q):
    return 0.0 * (a + q)


def dirichlet(energy: en.Energy, other: str, *alpha: float) -> Target:
    """(a, other, 1 - a - other) is Dirichlet(alpha)."""
    total = sum(alpha)
    mean = [entry / total for entry in alpha]
    variance = [m * (1 - m) / (total + 1) for m in mean]
    product = alpha[0] * alpha[1] / (total * (total + 1))
    return Target(
        f"a Dirichlet{alpha} density on a triangle",
        energy,
        mean={"a": mean[0], other: mean[1]},
        variance={"a": variance[0], other: variance[1]},
        expectations={"E ab": (lambda **draw: draw["a"] * draw[other], product)},
    )


@pytest.mark.slow
def test_exact_moments():
    targets = [dirichlet(triangle, "b", 2.0, 1.5, 1.0), dirichlet(flat, "q", 1.0, 1.0, 1.0)]
    en.testing.check_sampler("nuts", targets=targets)


@pytest.mark.filterwarnings("ignore::energia.diagnostics.ConvergenceWarning")
def test_draws_go_on_and_are_kept(key, tmp_path):
    kernel = en.samplers.NUTS(step_size=0.5, inverse_mass_matrix=jnp.ones(2))
    whole = en.sample(triangle, kernel, key=key, num_chains=2, num_warmup=0, num_samples=60)
    part = en.sample(triangle, kernel, key=key, num_chains=2, num_warmup=0, num_samples=20)
    part.save(tmp_path / "draws")
    again = en.Draws.load(tmp_path / "draws", energy=triangle).extend(40)
    for name in ("a", "b"):
        np.testing.assert_array_equal(again[name], whole[name])
    assert np.all(np.asarray(whole["a"] + whole["b"]) < 1)
