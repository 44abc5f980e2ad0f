"""Pictures of images, scores and landscapes: what is drawn, and where."""

import inspect
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import energia as en

plot = en.plot


def drawn(figure):
    """The pixels of a figure, from 0 to 1, shape (height, width, 3); everything lies inside."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        for text in (t for t in (*axes.texts, axes.xaxis.label, axes.yaxis.label) if t.get_text()):
            extent = text.get_window_extent()
            assert figure.bbox.contains(extent.x0, extent.y0), text
            assert figure.bbox.contains(extent.x1, extent.y1), text
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def test_every_image_stands_in_its_place():
    """Each image is one shade: the middle of its cell has it."""
    shades = np.linspace(0, 1, 7)
    x = np.broadcast_to(shades[:, None, None], (7, 4, 6))
    figure = plot.images(x, columns=3)
    pixels = drawn(figure)
    height, width = pixels.shape[:2]
    assert len(figure.axes[0].images) == 7
    for index, shade in enumerate(shades):
        row, column = divmod(index, 3)
        middle = pixels[int(height * (row + 0.5) / 3), int(width * (column + 0.5) / 3)]
        np.testing.assert_allclose(middle, shade, atol=0.01)
    assert (pixels[-3:, width // 2 :] == 1).all()  # the last row is not full


def test_images_are_not_turned_and_have_their_colours():
    image = np.zeros((3, 2, 2, 3))
    image[:, 0, 0, 0] = 1  # red at the top left
    image[:, 1, 1] = 1  # white at the bottom right
    pixels = drawn(plot.images(image, columns=3))
    height, width = pixels.shape[:2]
    cell = pixels[:, : width // 3]
    np.testing.assert_allclose(cell[height // 4, width // 12], [1, 0, 0], atol=0.01)
    np.testing.assert_allclose(cell[3 * height // 4, width // 4], 1, atol=0.01)
    np.testing.assert_allclose(cell[3 * height // 4, width // 12], 0, atol=0.01)


def test_bounds_are_black_and_white_for_all():
    x = np.stack([np.full((2, 2), -1.0), np.full((2, 2), 0.5), np.full((2, 2), 9.0)])
    pixels = drawn(plot.images(x, columns=3, bounds=(0, 1), labels=np.arange(3)))
    height, width = pixels.shape[:2]
    shades = pixels[height // 3, [width // 6, width // 2, 5 * width // 6], 0]
    np.testing.assert_allclose(shades, [0, 0.5, 1], atol=0.01)
    same = plot.images(np.ones((2, 3, 3, 1)))  # all alike: no division by zero
    assert np.isfinite(drawn(same)).all()


def test_strips_run_from_the_first_draw_to_the_last():
    """Draws are as bright as they are late; chains as their number."""
    x = np.zeros((3, 100, 2, 2)) + np.arange(100)[:, None, None]
    figure = plot.strips(x, num_columns=4, num_chains=2, thin=5)
    shades = [image.get_array().mean() for image in figure.axes[0].images]
    np.testing.assert_allclose(shades, 2 * [0, 1 / 3, 2 / 3, 1], atol=0.01)
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "170", "335", "500"]
    drawn(figure)
    assert len(plot.strips(x[:, :3]).axes[0].images) == 9


def test_histograms_have_an_area_of_one_and_common_bins():
    random = np.random.default_rng(0)
    scores = {"in": random.normal(size=1000), "out": 5 + 2 * random.normal(size=400)}
    figure = plot.histograms(scores, num_bins=30)
    axes = figure.axes[0]
    lines = [patch.get_data() for patch in axes.patches if not patch.get_fill()]
    for (heights, edges, _), array in zip(lines, scores.values(), strict=True):
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
        middle = np.sum(heights * np.diff(edges) * (edges[1:] + edges[:-1]) / 2)
        assert middle == pytest.approx(array.mean(), abs=0.1)
        np.testing.assert_array_equal(edges, lines[0][1])
    assert axes.get_xlabel() == "energy [nats]"
    drawn(figure)
    drawn(plot.histograms({"one": np.ones(3)}))


def test_traces_have_a_panel_an_entry_and_a_line_a_chain():
    random = np.random.default_rng(0)
    values = {"x": random.normal(size=(3, 50, 2, 2)), "lp": random.normal(size=(3, 50))}
    figure = plot.traces(values)
    labels = ["x[0, 0]", "x[0, 1]", "x[1, 0]", "x[1, 1]", "lp"]
    assert [axes.get_ylabel() for axes in figure.axes] == labels
    for axes, wanted in zip(figure.axes, [*values["x"].reshape(3, 50, 4).T, None], strict=True):
        assert len(axes.lines) == 3
        if wanted is not None:
            for chain, line in enumerate(axes.lines):
                np.testing.assert_array_equal(line.get_ydata(), wanted[:, chain])
    drawn(figure)


def test_traces_of_a_history_leave_out_what_was_not_measured():
    history = {"loss": np.arange(20.0), "validation_loss": np.full(20, np.nan)}
    history["validation_loss"][9::10] = [2.0, 1.0]
    figure = plot.traces(history, names=["validation_loss"])
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[10, 2], [20, 1]])
    assert figure.axes[0].get_xlabel() == "step"


def test_reliability_shows_accuracy_confidence_and_shares():
    p = np.array([0.55, 0.95, 0.95, 0.75])
    found = en.evaluate.calibration_error(
        np.stack([p, 1 - p], 1), np.array([1, 0, 1, 0]), num_bins=10
    )
    figure = plot.reliability(found)
    upper, lower = figure.axes
    bars, gaps = (np.array([bar.get_bbox().extents for bar in c]) for c in upper.containers)
    # confidence at the left of a bin, bottom, right, top
    np.testing.assert_allclose(bars[[5, 7, 9], 3], [0, 1, 0.5])
    np.testing.assert_allclose(gaps[[5, 7, 9]][:, [1, 3]], [[0, 0.55], [0.75, 1], [0.5, 0.95]])
    np.testing.assert_allclose(bars[:, 0], np.arange(10) / 10)
    shares = [bar.get_height() for bar in lower.containers[0]]
    np.testing.assert_allclose(shares, np.array([0, 0, 0, 0, 0, 1, 0, 1, 0, 2]) / 4)
    drawn(figure)


@pytest.mark.parametrize("high", [2, 17])
def test_a_landscape_is_dark_where_the_energy_is_low(high):
    bounds = ((-2, 3), (-3, high))
    figure = plot.landscape(en.Gaussian(jnp.array([1.0, -1.0])), bounds, points=[[-1.5, -2.5]])
    axes = figure.axes[0]
    pixels = drawn(figure)[::-1]  # rows from the bottom
    corners = axes.transData.transform([(0, 0), (1, 1)])
    assert np.ptp(corners[:, 0]) == pytest.approx(np.ptp(corners[:, 1]))

    def shade(x, y):
        column, row = np.asarray(axes.transData.transform((x, y))).astype(int)
        return pixels[row - 1 : row + 2, column - 1 : column + 2].mean()

    # 0, 1.8, 2.7 and 5.4 nats above the lowest, and symmetric
    shades = [shade(*place) for place in ((1, -1), (-0.9, -1), (-0.9, 0.35), (-1.6, 0.97))]
    assert all(np.diff(shades) > 0.03)
    assert abs(shade(-0.9, -1) - shade(2.9, -1)) < 0.02
    assert shade(1, -1) < 0.3


def test_a_landscape_of_two_numbers_keeps_to_their_supports():
    @en.energy(mu=en.Real(), tau=en.Positive())
    def pair(mu, tau):
        return mu**2 + tau  # lowest where tau may not be

    figure = plot.landscape(pair, ((-2, 2), (-5, 5)), num_points=50)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("mu", "tau")
    pixels, axes = drawn(figure)[::-1], figure.axes[0]
    low, high = (
        pixels[row, column].mean()
        for column, row in np.asarray(axes.transData.transform([(0, 0.3), (0, -3)])).astype(int)
    )
    assert low < 0.3
    assert high > 0.9


def test_what_cannot_be_drawn_raises(monkeypatch):
    images, landscape, traces = map(inspect.unwrap, (plot.images, plot.landscape, plot.traces))
    for wrong in (np.zeros((3, 64)), np.zeros((3, 4, 4, 2)), np.zeros((0, 4, 4))):
        with pytest.raises(ValueError, match="x must have shape"):
            images(wrong)
    with pytest.raises(ValueError, match="not finite"):
        images(np.full((1, 2, 2), np.nan))
    with pytest.raises(ValueError, match="labels= must name 2 images, got 1"):
        images(np.zeros((2, 2, 2)), labels=["one"])
    with pytest.raises(ValueError, match="low below high"):
        images(np.zeros((2, 2, 2)), bounds=(1, 0))
    with pytest.raises(ValueError, match=r"x must have shape \(chain, draw"):
        plot.strips(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="vector of finite numbers"):
        plot.histograms({"a": [np.inf]})
    with pytest.raises(ValueError, match=r"names= has \['y'\]; there are \['x'\]"):
        traces({"x": np.zeros(3)}, names=["y"])
    with pytest.raises(ValueError, match="1 to 12 panels"):
        traces({"x": np.zeros((2, 3, 64))})
    with pytest.raises(TypeError, match=r"what en\.evaluate\.calibration_error gave"):
        inspect.unwrap(plot.reliability)(0.1)
    with pytest.raises(ValueError, match=r"one variable of shape \(2,\) or of two numbers"):
        landscape(en.Gaussian(jnp.zeros(3)), (-1, 1))
    with pytest.raises(ValueError, match="has no lowest value there"):
        landscape(en.energy(lambda x: jnp.sum(x) * jnp.nan), (-1, 1), num_points=4)
    with pytest.raises(ValueError, match="bounds= must be"):
        landscape(en.Ring(), (1, -1))
    with pytest.raises(ValueError, match="points= must have shape"):
        landscape(en.Ring(), (-1, 1), points=[1.0, 2.0], num_points=4)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'energia\[plot\]'"):
        plot.images(np.zeros((2, 2, 2)))
