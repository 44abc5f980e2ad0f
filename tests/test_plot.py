"""Factor graphs: what they hold, where it stands, and that nothing overlaps."""

import inspect
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import energia as en
from energia.plot._graph import graph_of
from energia.plot._layout import Layout


@en.energy(mu=en.Real())
def location(mu):
    return mu**2


@en.energy(tau=en.Positive())
def scale(tau):
    return tau


@en.energy(z=en.Real((8,)))
def standard(z):
    return jnp.sum(z**2)


@en.energy
def effects(theta, y, spread):
    return jnp.sum((y - theta) ** 2 / spread**2)


@en.energy(z=en.Categorical(3), weights=en.Simplex(3))
def label(z, weights):
    return -jnp.log(weights[z])


@en.energy(means=en.Ordered(3), sigma=en.Positive())
def component(means, sigma, z, y):
    return (y - means[z]) ** 2 / sigma


@en.energy
def pair(a, b):
    return a * b


@en.energy(intercepts=en.Real((5,)))
def radon_measurements(intercepts, slope, sigma, county, floor, y):
    return (y - intercepts[county] - slope * floor) ** 2 / sigma


def chain(length):
    return sum(pair.rename(a=f"x{i}", b=f"x{i + 1}") for i in range(length))


LATENT = (label + component).marginalize("z")
SCHOOLS = location + scale + standard
SCHOOLS += effects.substitute(theta=lambda mu, tau, z: mu + tau * z)
TREE = sum(
    [pair.rename(a=f"h{i}", b=f"h{i + 1}") for i in range(3)]
    + [pair.rename(a=f"h{i}", b=f"v{i}").condition(**{f"v{i}": 1.0}) for i in range(4)],
    start=location.rename(mu="h0"),
)
ENERGIES = {
    "one": en.Ring(),
    "schools": SCHOOLS.condition(y=jnp.ones(8), spread=jnp.ones(8)),
    "mixture": scale.rename(tau="sigma")
    + en.energy(lambda means: jnp.sum(means))
    + en.energy(lambda weights: jnp.sum(weights))
    + en.total(LATENT, y=jnp.ones(30)),
    "hierarchy": location
    + scale
    + en.energy(lambda intercepts, mu, tau: jnp.sum(intercepts * mu * tau))
    + location.rename(mu="slope")
    + scale.rename(tau="sigma")
    + en.total(radon_measurements, county=[0, 1], floor=[0.0, 1.0], y=[0.0, 1.0]),
    "two plates": location
    + en.total(pair.rename(a="mu"), b=jnp.ones(4))
    + en.total(pair.rename(a="mu", b="y"), y=jnp.ones(6)),
    "nested": location.rename(mu="theta")
    + en.total(en.total(effects, y=jnp.ones(3)), spread=[1.0, 2.0]),
    "tree": TREE,
    "chain": chain(7),
    "cycle": chain(4) + pair.rename(a="x4", b="x0"),
    "apart": location + scale,
}


def described(energy):
    """Labels of the variables by kind, of plates, and for each factor those of its variables."""
    graph = graph_of(energy)
    kinds = {kind: [n.label for n in graph.nodes if n.kind == kind] for kind in KINDS}
    factors = {
        node.label: [graph.nodes[v].label for f, v in graph.edges if f == index]
        for index, node in enumerate(graph.nodes)
        if node.kind == "factor"
    }
    return kinds, factors, graph.plates


KINDS = ("free", "observed", "marginal")


def test_the_graph_of_a_non_centred_model():
    kinds, factors, plates = described(ENERGIES["schools"])
    assert kinds == {"free": ["mu", "tau", "z"], "observed": ["y", "spread"], "marginal": []}
    assert factors["effects"] == ["mu", "tau", "z", "y", "spread"]
    assert factors["location"] == ["mu"]
    assert plates == []


def test_rows_and_what_was_summed_out_stand_in_the_plate():
    energy = ENERGIES["mixture"]
    kinds, factors, plates = described(energy)
    assert kinds["observed"] == ["y$_i$"]
    assert kinds["marginal"] == ["z$_i$"]
    assert factors["label"] == ["z$_i$", "weights"]
    assert factors["component"] == ["means", "sigma", "z$_i$", "y$_i$"]
    assert plates == ["i ≤ 30"]
    graph = graph_of(energy)
    inside = [node.label for node in graph.nodes if node.plates == (0,)]
    assert inside == ["y$_i$", "z$_i$", "label", "component"]


def test_a_value_is_one_variable_outside_plates():
    shared = (location.rename(mu="y") + pair.rename(a="mu", b="y")).condition(y=2.0)
    kinds, factors, _ = described(shared)
    assert kinds["observed"] == ["y"]
    assert factors == {"location": ["y"], "pair": ["mu", "y"]}
    other = location.condition(mu=1.0) + pair.condition(b=1.0)
    assert described(other)[0]["observed"] == ["mu", "b"]
    rows = en.total(effects.condition(spread=2.0), y=jnp.ones(3))
    spread = next(node for node in graph_of(rows).nodes if node.label == "spread")
    assert spread.plates == ()


def test_weights_multiply_and_stay_out_of_sums():
    twice = 3.0 * (0.5 * (location + scale)).rename(mu="m").freeze()
    assert list(described(twice)[1]) == ["1.5·location", "1.5·scale"]
    assert list(described(-location - (-scale))[1]) == ["-location", "scale"]
    assert list(described(2 * en.total(component, y=[1.0]))[1]) == ["2·component"]
    kinds, factors, _ = described(2 * en.total(LATENT, y=[1.0]))
    assert kinds["marginal"] == []  # 2 times a free energy is not the free energy of 2 times
    assert factors == {"2·Marginal": ["weights", "means", "sigma", "y$_i$"]}
    traced = []
    jax.jit(lambda w: traced.extend(described(w * location)[1]))(0.5)
    assert traced == ["w·location"]


@pytest.mark.parametrize("name", ENERGIES)
def test_layout(name):
    graph = graph_of(ENERGIES[name])
    widths = np.full(len(graph.nodes), 0.8)
    layout = Layout(graph, widths)
    x, levels = layout.solve(), layout.levels
    np.testing.assert_array_equal(x, Layout(graph, widths).solve())
    for i, j in itertools.combinations(range(len(x)), 2):
        assert levels[i] != levels[j] or abs(x[i] - x[j]) > 1.0
    for factor, variable in graph.edges:
        assert abs(levels[factor] - levels[variable]) == 1
    for plate in range(len(graph.plates)):
        own = [plate in node.plates for node in graph.nodes]
        left, right = x[own].min() - 0.4, x[own].max() + 0.4
        bottom, top = levels[own].min(), levels[own].max()
        inside = (x + 0.4 > left) & (x - 0.4 < right) & (bottom <= levels) & (levels <= top)
        assert (inside == own).all()
    crossings = sum(
        (x[a] - x[c]) * (x[b] - x[d]) < 0
        for (a, b), (c, d) in itertools.combinations(layout.upward, 2)
        if levels[a] == levels[c] and len({a, b, c, d}) == 4
    )
    assert crossings == 0
    if "observed" in {node.kind for node in graph.nodes}:
        assert {graph.nodes[i].kind for i in np.nonzero(levels == 0)[0]} == {"observed"}


@pytest.mark.parametrize("name", ENERGIES)
def test_names_fit_and_the_picture_holds_everything(name):
    figure = en.plot.factor_graph(ENERGIES[name])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    page = figure.bbox
    graph = graph_of(ENERGIES[name])
    names = axes.texts[len(graph.plates) :]
    boxes = axes.patches[len(graph.plates) :]
    assert [text.get_text() for text in axes.texts] == [
        *graph.plates,
        *(node.label for node in graph.nodes),
    ]
    for text, patch in zip(names, boxes, strict=True):
        inner, outer = text.get_window_extent(), patch.get_window_extent()
        assert outer.x0 + 2 < inner.x0
        assert inner.x1 < outer.x1 - 2
        assert outer.y0 < inner.y0
        assert inner.y1 < outer.y1
    for artist in (*axes.texts, *axes.patches):
        extent = artist.get_window_extent()
        assert page.contains(extent.x0, extent.y0)
        assert page.contains(extent.x1, extent.y1)
    for text, plate in zip(axes.texts, axes.patches[: len(graph.plates)], strict=False):
        held = [text.get_window_extent(), *(patch.get_window_extent() for patch in boxes)]
        assert not any(held[0].overlaps(other) for other in held[1:])
        assert plate.get_window_extent().contains(held[0].x0, held[0].y0)
    assert np.std(np.asarray(canvas.buffer_rgba())) > 20


def test_long_names_are_cut():
    @en.energy
    def a_factor_with_a_name_of_many_letters(x):
        return x

    (only,) = described(a_factor_with_a_name_of_many_letters)[1]
    assert only == "a_factor_with_a_n…"


def test_refused(monkeypatch):
    draw = inspect.unwrap(en.plot.factor_graph)  # below the type checker of the tests
    with pytest.raises(TypeError, match="takes an energy, got 3"):
        draw(3)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'energia\[plot\]'"):
        en.plot.factor_graph(en.Ring())
