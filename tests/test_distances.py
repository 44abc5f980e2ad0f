"""Distances between samples, and of a sample from a law, against closed forms."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

evaluate = en.evaluate


# --- Fréchet


def test_frechet_distance_of_normal_laws(key):
    """By the textbook's formula, with the samples' own moments; features are the rows here."""
    from scipy.linalg import sqrtm

    one, two = np.asarray(jax.random.normal(key, (2, 200, 4)), float)
    mix = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (4, 4)), float)
    two = two @ mix + 0.5
    first, second = np.cov(one.T), np.cov(two.T)
    shift = one.mean(0) - two.mean(0)
    wanted = shift @ shift + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert evaluate.frechet_distance(one, two) == pytest.approx(wanted, rel=1e-5)
    assert evaluate.frechet_distance(two, one) == pytest.approx(wanted, rel=1e-5)


def test_frechet_distance_of_scales_and_of_singular_covariances(key):
    """Of x and a x + b: |b|² and (1 - a)² a variance, also where entries are copies."""
    x = np.asarray(jax.random.normal(key, (50, 3)))
    x = np.repeat(x - x.mean(0), 30, axis=1)  # more entries than rows
    wanted = x.shape[1] * 0.25 + 4 * x.var(0, ddof=1).sum()
    assert evaluate.frechet_distance(3 * x + 0.5, x) == pytest.approx(wanted, rel=1e-5)
    assert 0 <= evaluate.frechet_distance(x, x) < 1e-9 * x.var(0).sum()


def test_frechet_distance_of_few_rows_is_too_large_by_as_much_as_told(key):
    """Between samples of one normal law, to second order in the moments' errors."""
    size, count, variance = 6, 1000, 4.0
    draws = np.asarray(2 * jax.random.normal(key, (40, 2, count, size)))
    found = [evaluate.frechet_distance(one, two) for one, two in draws]
    told = variance * (size + size * (size + 1) / 4) * (2 / count)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - told) < 5 * error
    assert error < 0.05 * told


def test_features_are_taken_row_by_row(key):
    one, two = jax.random.normal(key, (2, 300, 2, 3))
    pick = np.asarray(jax.random.normal(key, (4, 6)))
    wanted = evaluate.frechet_distance(*(x.reshape(300, 6) @ pick.T for x in (one, two)))
    found = evaluate.frechet_distance(one, two, features=lambda x: pick @ x.reshape(-1))
    assert found == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(TypeError, match="features= must be a function of one row"):
        inspect.unwrap(evaluate.frechet_distance)(one, two, features=3)
    with pytest.raises(ValueError, match="rows of one shape"):
        evaluate.frechet_distance(one, two[:, :1])


# --- sliced Wasserstein


def test_a_shift_and_a_scale_are_as_long_as_their_projections(key):
    """Of x and s x + b in one dimension: sorted values move by (s - 1) x + b."""
    x = np.asarray(jax.random.normal(key, (400, 3)))
    shift = np.array([1.0, -2.0, 0.5])
    found = evaluate.sliced_wasserstein(x, x + shift, num_projections=4000, key=key) ** 2
    # of a squared entry of a direction the mean is 1/3, the variance 4/45
    error = shift @ shift * np.sqrt(4 / 45 / 4000)
    assert abs(found - shift @ shift / 3) < 5 * error
    moments = x.T @ x / len(x)
    found = evaluate.sliced_wasserstein(3 * x, x, num_projections=4000, key=key) ** 2
    assert found == pytest.approx(4 * np.trace(moments) / 3, rel=0.02)


def test_samples_of_unequal_size_are_compared_exactly(key):
    """As samples of the least common size, with every row written out as often as it counts."""
    one, two = np.asarray(jax.random.normal(key, (2, 6, 2)))
    two = two[:4] + 1
    found = evaluate.sliced_wasserstein(one, two, num_projections=50, key=key)
    written = evaluate.sliced_wasserstein(
        np.repeat(one, 2, 0), np.repeat(two, 3, 0), num_projections=50, key=key
    )
    assert found == pytest.approx(written, rel=1e-5)
    assert evaluate.sliced_wasserstein(two, one, num_projections=50, key=key) == pytest.approx(
        found, rel=1e-5
    )
    with pytest.raises(ValueError, match=r"sliced_wasserstein\(\) needs at least 2 rows"):
        evaluate.sliced_wasserstein(one[:1], two, key=key)


def test_sliced_wasserstein_distance_of_normal_laws(key):
    x, y = np.asarray(jax.random.normal(key, (2, 5000, 4)))
    found = evaluate.sliced_wasserstein(x, 2 * y + 1, num_projections=200, key=key)
    assert found == pytest.approx(np.sqrt(4 / 4 + 1), rel=0.05)
    assert evaluate.sliced_wasserstein(x, y, num_projections=200, key=key) < 0.06


# --- Stein


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_stein_discrepancy_is_the_mean_of_the_kernels_derivatives(key, kernel):
    energy, width = en.GaussianMixture(jnp.array([[0.0, 0.0], [2.0, 1.0]]), scales=0.8), 1.3
    x = jax.random.normal(key, (12, 2))

    def k(x, y):
        gap = jnp.sum((x - y) ** 2) / width**2
        return (1 + gap) ** -0.5 if kernel == "imq" else jnp.exp(-gap / 2)

    @jax.jit
    @jax.vmap
    def u(x, y):
        s, t = (-jax.grad(energy)(z) for z in (x, y))
        slopes = s @ jax.grad(k, 1)(x, y) + t @ jax.grad(k, 0)(x, y)
        return s @ t * k(x, y) + slopes + jnp.trace(jax.jacobian(jax.grad(k, 0), 1)(x, y))

    first, second = np.nonzero(~np.eye(12, dtype=bool))
    wanted = np.mean(np.asarray(u(x[first], x[second]), float))
    found = en.evaluate.ksd(energy, x, kernel=kernel, bandwidth=width)
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_stein_discrepancy_of_shifted_normal_laws(key, shift):
    """Scores differ by the shift everywhere: its square times the kernel's mean; no bias."""
    width, size, target = 1.5, 3, en.Gaussian(jnp.zeros(3))
    draws = np.asarray(jax.random.normal(key, (100, 50, size))) + np.array([shift, 0, 0])
    found = [evaluate.ksd(target, x, kernel="rbf", bandwidth=width) for x in draws]
    wanted = shift**2 * (width**2 / (width**2 + 2)) ** (size / 2)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - wanted) < 5 * error
    assert error < 0.03


def test_bounded_variables_are_compared_where_they_are_free(key):
    """An exponential law, whose density does not vanish at its bound."""
    law = en.Exponential(1.0)
    (name,) = law.variables
    x = np.asarray(jax.random.exponential(key, (2000,)))
    right, wrong = (evaluate.ksd(law, {name: rows}) for rows in (x, 1.5 * x))
    assert abs(right) < 0.01
    assert wrong > 0.02


def test_latent_classes_are_summed_out(key):
    parts = en.GaussianMixture(jnp.array([[0.0], [3.0]]), scales=1.0)

    @en.energy(x=en.Real((1,)), z=en.Categorical(2))
    def joint(x, z):
        return 0.5 * jnp.sum((x - 3.0 * z) ** 2)

    x = jax.random.normal(key, (30, 1))
    assert evaluate.ksd(joint, {"x": x}, bandwidth=1.0) == pytest.approx(
        evaluate.ksd(parts, x, bandwidth=1.0), abs=1e-5
    )
    with pytest.raises(TypeError, match="'z' is categorical 2"):
        evaluate.ksd(joint, {"x": x, "z": np.zeros(30, int)})
    with pytest.raises(ValueError, match="at least 2 rows"):
        evaluate.ksd(parts, x[:1])
    with pytest.raises(ValueError, match="the score of row 1 is not finite"):
        evaluate.ksd(en.energy(lambda x: jnp.sqrt(x)), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="kernel= must be one of"):
        evaluate.ksd(parts, x, kernel="cubic")


# --- features, and what a linear classifier reads from them


@pytest.mark.parametrize("penalty", [1e-4, 0.5])
def test_a_probe_is_scikit_learns_logistic_regression(key, penalty):
    from sklearn.linear_model import LogisticRegression

    rows = {k: np.asarray(v) for k, v in en.data.pinwheel(1200, key=key).items()}
    train, test = ({k: v[part] for k, v in rows.items()} for part in (np.s_[:300], np.s_[300:]))
    x = np.concatenate([rows["x"], rows["x"] ** 2, 0 * rows["x"] + 3], 1)
    centre, scale = x[:300].mean(0), np.maximum(x[:300].std(0), 1e-3)
    other = LogisticRegression(C=1 / (penalty * 300), tol=1e-8, max_iter=2000)
    other.fit(((x - centre) / scale)[:300], rows["y"][:300])
    wanted = other.score(((x - centre) / scale)[300:], rows["y"][300:])

    def features(x):
        return jnp.concatenate([x, x**2, 0 * x + 3])

    found = evaluate.linear_probe(train, test, features=features, penalty=penalty)
    assert found == pytest.approx(wanted, abs=1.5 / 900)  # a row may stand on the border
    given = {"x": x[:300], "y": train["y"]}, {"x": x[300:], "y": test["y"]}
    assert evaluate.linear_probe(*given, penalty=penalty) == pytest.approx(found, abs=1.5 / 900)


def test_a_trained_network_bends_what_no_line_divides(key):
    keys = jax.random.split(key, 3)
    train, test = (en.data.rings(2000, key=each) for each in keys[:2])
    network = evaluate.feature_network(train, size=16, num_steps=400, key=keys[2])
    assert network(train["x"][0]).shape == (16,)
    assert evaluate.linear_probe(train, test) < 0.5
    assert evaluate.linear_probe(train, test, features=network) > 0.9
    again = evaluate.feature_network(train, size=16, num_steps=400, key=keys[2])
    assert evaluate.frechet_distance(train["x"], test["x"], features=again) == (
        evaluate.frechet_distance(train["x"], test["x"], features=network)
    )


@pytest.mark.slow
def test_networks_of_images_tell_a_shape_wherever_it_stands(key):
    """Bars that lie, or stand: their pixels alone tell nothing."""
    place = np.asarray(jax.random.randint(key, (200, 2), 0, 4))
    y = np.arange(200) % 2
    x = np.zeros((200, 7, 7, 2), np.float32)
    for image, (row, column), stands in zip(x, place, y, strict=True):
        image[row : row + (4 if stands else 1), column : column + (1 if stands else 4), 1] = 1
    data = {"x": x, "y": y}
    network = evaluate.feature_network(data, num_steps=40, key=key)
    assert network(jnp.asarray(x[0])).shape == (64,)
    assert evaluate.linear_probe(data, data, features=network) == 1


def test_what_no_network_takes_raises(key):
    data = {"x": np.zeros((4, 3)), "y": np.array([0, 1, 0, 1])}
    for wrong, match in [
        ({"x": data["x"]}, "a dict of 'x' and its labels 'y'"),
        (data | {"y": np.zeros(4)}, "an integer of at least 0"),
        (data | {"y": np.zeros(4, int)}, "at least 2 classes"),
        (data | {"x": np.zeros((4, 3, 3, 3, 3))}, "takes vectors, or images"),
        (data | {"x": np.full((4, 3), np.nan)}, "finite rows"),
    ]:
        with pytest.raises((TypeError, ValueError), match=match):
            evaluate.feature_network(wrong, key=key)
    with pytest.raises(ValueError, match="rows of one shape"):
        evaluate.linear_probe(data, data | {"x": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="penalty= must be a positive number"):
        evaluate.linear_probe(data, data, penalty=0.0)
