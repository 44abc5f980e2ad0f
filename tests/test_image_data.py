"""Images of digits, files in the format of MNIST, and random transforms of images."""

import gzip
import inspect
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energia as en

# --- files


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, (images, labels) = en.data.digits(), load_digits(return_X_y=True)
    np.testing.assert_array_equal(data["x"].reshape(-1, 64) * 16, images)
    np.testing.assert_array_equal(data["y"], labels)
    assert (data["x"].dtype, data["y"].dtype) == (np.float32, np.int32)


def test_digits_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        en.data.digits()


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "y_train": random.integers(0, 10, 5, dtype=np.uint8),
        "x_test": random.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "y_test": random.integers(0, 10, 3, dtype=np.uint8),
    }


def idx(array):
    """The bytes of an IDX file: two zeros, the kind, the axes, their lengths, the numbers."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def files(arrays, folder, mark="-", end=""):
    names = {"x_train": "train-images", "y_train": "train-labels"}
    names |= {"x_test": "t10k-images", "y_test": "t10k-labels"}
    for key, name in names.items():
        rank, content = arrays[key].ndim, idx(arrays[key])
        (folder / f"{name}{mark}idx{rank}-ubyte{end}").write_bytes(
            gzip.compress(content) if end else content
        )


@pytest.mark.parametrize("form", ["npz", "idx", "gz", "dots"])
def test_mnist_reads_every_form(arrays, tmp_path, form):
    path = tmp_path
    if form == "npz":
        path = tmp_path / "mnist.npz"
        np.savez_compressed(path, **arrays)
    elif form == "gz":
        files(arrays, tmp_path, end=".gz")
    else:
        files(arrays, tmp_path, mark="." if form == "dots" else "-")
    for part, data in zip(("train", "test"), en.data.mnist(path), strict=True):
        np.testing.assert_allclose(data["x"] * 255, arrays[f"x_{part}"], rtol=1e-6)
        np.testing.assert_array_equal(data["y"], arrays[f"y_{part}"])
        assert (data["x"].dtype, data["y"].dtype) == (np.float32, np.int32)


def test_mnist_itself(data_file):
    train, test = en.data.mnist(data_file("mnist.npz"))
    assert (train["x"].shape, test["x"].shape) == ((60_000, 28, 28), (10_000, 28, 28))
    # as published: mean and standard deviation of the training pixels, the first labels
    assert train["x"].mean(dtype=float) == pytest.approx(0.1307, abs=5e-5)
    assert train["x"].std(dtype=float) == pytest.approx(0.3081, abs=5e-5)
    assert train["y"][:5].tolist() == [5, 0, 4, 1, 9]


def test_files_that_are_none_raise(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        en.data.mnist(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"none of the files train-images-idx3-ubyte,"):
        en.data.mnist(tmp_path)
    file = tmp_path / "some.npz"
    for content in (b"", b"text", b"PK\x03\x04 broken"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no npz file"):
            en.data.mnist(file)
    np.savez(file, x_train=arrays["x_train"])
    with pytest.raises(ValueError, match=r"lacks \['y_train'\]"):
        en.data.mnist(file)
    np.savez(file, **(arrays | {"y_train": arrays["y_train"][:4]}))
    with pytest.raises(ValueError, match=r"a label for each, got uint8\[5, 28, 28\]"):
        en.data.mnist(file)
    files(arrays, tmp_path)
    image = tmp_path / "train-images-idx3-ubyte"
    for content in (idx(arrays["y_train"]), image.read_bytes()[:-1], b"", b"\x1f\x8b"):
        image.write_bytes(content)
        with pytest.raises(ValueError, match="is no IDX file of 3 axes"):
            en.data.mnist(tmp_path)


# --- transforms


def many(transform, image, key, count=4000):
    """The transform of one image, many times; an array of them."""
    apply = jax.jit(jax.vmap(lambda key: transform({"x": jnp.asarray(image)}, key)["x"]))
    return np.asarray(apply(jax.random.split(key, count)))


def test_levels_are_spread_up_to_the_next_one(key):
    levels = 5
    grey = np.arange(levels) / (levels - 1)
    x = many(en.data.dequantize(levels), grey, key)
    for k in range(levels):
        assert (x[:, k] >= k / levels).all()
        assert (x[:, k] < (k + 1) / levels).all()
    spread = x * levels - np.arange(levels)
    assert np.all(np.abs(spread.mean(0) - 0.5) < 5 * np.sqrt(1 / 12 / len(x)))
    assert np.all(np.abs(spread.var(0) - 1 / 12) < 5 * np.sqrt(1 / 180 / len(x)))
    bytes_ = many(en.data.dequantize(), np.arange(256) / 255, key, 20)
    np.testing.assert_array_equal(np.floor(bytes_ * 256), np.tile(np.arange(256), (20, 1)))


def test_noise_is_normal(key):
    noise = many(en.data.add_noise(0.3), np.ones((2, 2)), key) - 1
    assert np.all(np.abs(noise.mean(0)) < 5 * 0.3 / np.sqrt(len(noise)))
    assert np.all(np.abs(noise.std(0) / 0.3 - 1) < 5 / np.sqrt(2 * len(noise)))
    assert abs(np.corrcoef(noise.reshape(-1, 4).T)[0, 1]) < 5 / np.sqrt(len(noise))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_shifts_are_uniform_and_bring_zeros(key, channels):
    image = np.zeros((5, 6, *channels), np.float32)
    image[2, 3] = 1 + np.arange(np.prod(channels, dtype=int)).reshape(channels)
    moved = many(en.data.translate(2), image, key)
    total = moved.reshape(len(moved), -1).sum(1)
    rows, columns = np.nonzero(moved.reshape(len(moved), 5, 6, -1)[:, :, :, 0])[1:]
    assert np.all(total == image.sum())  # nothing is lost while the dot stays inside
    places = np.bincount(5 * rows + (columns - 1), minlength=25) / len(moved)
    assert np.all(np.abs(places - 1 / 25) < 5 * np.sqrt(1 / 25 / len(moved)))
    edge = many(en.data.translate(1), np.eye(4, dtype=np.float32), key, 200)
    assert set(edge.sum((1, 2))) == {2, 3, 4}


def test_every_second_image_is_mirrored(key):
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    flipped = many(en.data.flip(), image, key)
    mirrored = (flipped == image[:, ::-1]).all((1, 2))
    assert np.all(mirrored | (flipped == image).all((1, 2)))
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(flipped))


def test_images_are_turned_about_their_centre_by_a_uniform_angle(key):
    """A ramp is turned without error: its slopes are the cosine and the sine of the angle."""
    rows, columns = np.mgrid[:9, :9] - 4.0
    inside = np.hypot(rows, columns) < 3.5
    turned = many(en.data.rotate(90), columns.astype(np.float32), key)
    design = np.stack([columns[inside], rows[inside]], 1)
    slopes, error = np.linalg.lstsq(design, turned[:, inside].T, rcond=None)[:2]
    assert np.max(error) < 1e-8
    angle = np.rad2deg(np.arctan2(slopes[1], slopes[0]))
    np.testing.assert_allclose(np.hypot(*slopes), 1, atol=1e-5)
    assert abs(angle.mean()) < 5 * 90 / np.sqrt(3 * len(angle))
    assert abs((angle**2).mean() - 90**2 / 3) < 5 * 90**2 * np.sqrt(4 / 45 / len(angle))
    assert np.abs(angle).max() > 85
    colours = np.stack([columns, 2 * columns, rows], -1).astype(np.float32)
    both = many(en.data.rotate(30), colours, key, 5)
    np.testing.assert_allclose(2 * both[..., 0], both[..., 1], atol=1e-5)


def test_transforms_follow_one_another_with_keys_of_their_own(key):
    noise = en.data.add_noise(1.0)
    twice = many(en.data.compose(noise, noise), np.zeros(3), key)
    assert abs(twice.std() / np.sqrt(2) - 1) < 5 / np.sqrt(2 * twice.size)

    def double(datum, key):
        return {**datum, "x": 2 * datum["x"]}

    spread = many(en.data.compose(en.data.dequantize(2), double), np.ones(1), key, 50)
    assert (spread >= 1).all()
    assert (spread < 2).all()
    with pytest.raises(TypeError, match="compose\\(\\) takes functions"):
        en.data.compose()


def test_equal_transforms_are_one_function():
    data = en.data
    assert data.rotate(10) is data.rotate(10.0)
    assert data.compose(data.flip(), data.translate(1)) is data.compose(
        data.flip(), data.translate(1)
    )
    assert data.rotate(10) is not data.rotate(11)
    assert data.flip() is not data.flip(name="image")


@pytest.mark.smoke
def test_training_takes_transforms_and_compiles_them_once(key, compilations):
    rows = {"x": np.eye(6, dtype=np.float32)[None].repeat(20, 0), "y": np.zeros(20, int)}
    rows["x"] = rows["x"].reshape(20, 6, 6)

    @en.energy(x=en.Real((6, 6)))
    def quadratic(x, scale=1.0):
        return 0.5 * jnp.sum(x**2)

    model = quadratic + en.Gaussian(jnp.zeros((6, 6)))

    def fitted():
        change = en.data.compose(en.data.translate(1), en.data.dequantize(16), keep)
        optimizer = optax.adam(1e-3)
        return en.fit(
            model, rows, "dsm", key=key, num_steps=3, batch_size=10, optimizer=optimizer,
            augment=change,
        )  # fmt: skip

    first = fitted()
    with compilations() as seen:
        second = fitted()
    assert seen.count == 0, seen.compiled
    np.testing.assert_array_equal(first.history["loss"], second.history["loss"])
    assert np.isfinite(first.history["loss"]).all()


def keep(datum, key):
    """The image alone, without its label."""
    return {"x": datum["x"]}


def test_what_is_no_image_or_number_raises(key):
    data = en.data
    for make, wrong, match in [
        (data.dequantize, 1, "levels= must be at least 2"),
        (data.add_noise, 0.0, "scale= must be a positive number"),
        (data.translate, 0, "pixels= must be at least 1"),
        (data.rotate, -3.0, "degrees= must be a positive number"),
        (data.rotate, 200.0, "degrees= must be at most 180"),
    ]:
        with pytest.raises(ValueError, match=match):
            inspect.unwrap(make)(wrong)
    for transform in (data.flip(), data.translate(1), data.rotate(5)):
        with pytest.raises(ValueError, match="an image has shape"):
            transform({"x": jnp.zeros(4)}, key)
        with pytest.raises(ValueError, match="name='x' is none of the data's"):
            transform({"image": jnp.zeros((4, 4))}, key)
