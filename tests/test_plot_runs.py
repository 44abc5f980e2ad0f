"""Pictures of runs: what is drawn, of what, and what is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

plot = en.plot
LEVELS = 5


@pytest.fixture(scope="module")
def tempered():
    sampler = en.samplers.ParallelTempering("hmc", num_replicas=LEVELS)
    return en.sample(en.DoubleWell(6.0), sampler, key=jax.random.key(0), num_samples=500)


@pytest.fixture(scope="module")
def trained():
    data = np.random.default_rng(0).normal(size=(400, 2))
    model = en.Gaussian(jnp.ones(2))
    return en.fit(
        model,
        data[:300],
        "pcd",
        key=jax.random.key(0),
        num_steps=300,
        validation=data[300:],
        evaluate_every=100,
    )


def outlines(axes):
    """The heights of each chain's outline, shape (chain, bin)."""
    return np.stack([patch.get_data().values for patch in axes.patches])


def test_ranks_of_one_law_are_even_and_of_shifted_chains_are_not():
    rng = np.random.default_rng(0)
    even = rng.normal(size=(4, 4000))
    shifted = even + np.array([0.0, 0.0, 0.0, 3.0])[:, None]
    figure = plot.ranks({"even": even, "shifted": shifted}, bins=10)
    assert [axes.get_title() for axes in figure.axes] == ["even", "shifted"]
    level, away = map(outlines, figure.axes)
    assert level.shape == away.shape == (4, 10)
    np.testing.assert_allclose(level, 1, atol=0.2)  # 5 standard errors of a count are 0.25
    np.testing.assert_allclose(level.mean(0), 1, atol=1e-6)  # all chains have all ranks
    assert away[3, -1] > 3.5
    assert away[3, 0] < 0.05


def test_ranks_do_not_know_the_order_of_chains():
    """Of a variable of two values no chain comes first: the same numbers, the same outline."""
    flips = np.random.default_rng(0).integers(0, 2, 1000)
    figure = plot.ranks({"z": np.stack([flips, flips[::-1]])})
    one, other = outlines(figure.axes[0])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ({"x": np.zeros((1, 10))}, None, "compares chains"),
        ({"x": np.zeros(10)}, None, "compares chains"),
        ({"x": np.full((2, 10), np.nan)}, None, "finite"),
        ({"x": np.zeros((2, 10))}, ["y"], "there are"),
        ({"x": np.zeros((2, 10, 13))}, None, "1 to 12 panels"),
    ],
)
def test_ranks_refuse(values, names, message):
    with pytest.raises(ValueError, match=message):
        plot.ranks(values, names=names)


def test_swaps_show_rates_and_round_trips(tempered):
    left, right = plot.swaps(tempered).axes
    levels, rates = left.lines[0].get_data()
    stats = tempered.stats
    assert len(rates) == LEVELS - 1
    np.testing.assert_allclose(rates, np.mean(stats["swap_acceptance_rate"], (0, 1)), rtol=1e-6)
    ladder = np.asarray(stats["levels"])[0, -1]
    assert np.all((ladder[:-1] < levels) & (levels < ladder[1:]))
    trips = np.stack([line.get_ydata() for line in right.lines])
    assert trips.shape == (4, 500)
    assert (trips[:, 0] == 0).all()
    counted = np.asarray(stats["round_trips"])
    np.testing.assert_array_equal(trips[:, -1], counted[:, -1] - counted[:, 0])


def test_swaps_refuse_other_draws(tempered):
    with pytest.raises(TypeError, match=r"what en\.sample gave"):
        inspect.unwrap(plot.swaps)(tempered.stats)
    other = en.sample(en.Gaussian(0.0), "hmc", key=jax.random.key(0), num_samples=400)
    with pytest.raises(ValueError, match="ParallelTempering"):
        plot.swaps(other)


def test_a_training_is_drawn_whole(trained):
    figure = trained.plot()  # plot.training of it
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["loss", "energy [nats]"]
    shown = {
        line.get_label()
        for axes in figure.axes
        for line in axes.lines
        if line.get_label()[0] != "_"
    }
    assert shown == set(trained.history)
    loss = figure.axes[0].lines
    np.testing.assert_allclose(loss[0].get_ydata(), trained.history["loss"])
    smooth = loss[1]
    width = 300 // 50
    last = np.mean(trained.history["loss"][-width:])
    assert smooth.get_xdata()[-1] == 300
    np.testing.assert_allclose(smooth.get_ydata()[-1], last, rtol=1e-5, atol=1e-6)
    steps, values = loss[2].get_data()  # known at three steps
    assert list(steps) == [100, 200, 300]
    np.testing.assert_allclose(values, trained.history["validation_loss"][steps - 1])


def test_a_training_needs_a_fit(trained):
    with pytest.raises(TypeError, match=r"what en\.fit gave"):
        inspect.unwrap(plot.training)(trained.history)
