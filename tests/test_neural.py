"""Neural energies: networks with a scalar output, and classifiers as joint energies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

KEY = jax.random.key(0)


def convolved(image, conv, stride):
    """A convolution of an image with the channels last, by nested loops over its window."""
    kernel, bias = np.asarray(conv.weight), np.asarray(conv.bias)
    side = kernel.shape[-1]
    margin = side // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    rows = range(0, image.shape[0], stride)
    columns = range(0, image.shape[1], stride)
    windows = [[padded[i : i + side, j : j + side] for j in columns] for i in rows]
    return np.einsum("abijc,ocij->abo", np.array(windows), kernel) + bias[:, 0, 0]


def normed(image, groups):
    """Group normalisation with the affine map that training begins at: none."""
    parts = image.reshape(*image.shape[:2], groups, -1)
    mean, variance = parts.mean((0, 1, 3), keepdims=True), parts.var((0, 1, 3), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(image.shape)


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def image():
    return np.asarray(jax.random.normal(jax.random.key(1), (5, 6, 2)))


@pytest.mark.parametrize("groups", [None, 2])
def test_convolutions_are_those_of_nested_loops(image, groups):
    energy = en.ConvEnergy(image.shape, widths=(4, 6), num_groups=groups, key=KEY)
    features = image
    for layer in energy.layers:
        features = convolved(features, layer, 2)
        features = silu(features if groups is None else normed(features, groups))
    assert features.shape == (2, 2, 6)
    flat = np.moveaxis(features, -1, 0).ravel()
    expected = np.asarray(energy.last.weight)[0] @ flat + np.asarray(energy.last.bias)[0]
    np.testing.assert_allclose(energy(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [None, 2])
def test_residual_blocks_are_those_of_nested_loops(image, groups):
    energy = en.ResNetEnergy(image.shape, width=4, depth=3, num_groups=groups, key=KEY)
    features = convolved(image, energy.first, 1)
    for block, stride in zip(energy.blocks, (2, 2, 1), strict=True):
        one, two = block.convolutions
        inner = convolved(features, one, stride)
        inner = silu(inner if groups is None else normed(inner, groups))
        inner = convolved(inner, two, 1)
        inner = inner if groups is None else normed(inner, groups)
        kept = features if block.shortcut is None else convolved(features, block.shortcut, stride)
        features = silu(kept + inner)
    expected = np.asarray(energy.last.weight)[0] @ features.mean((0, 1))
    expected = expected + np.asarray(energy.last.bias)[0]
    np.testing.assert_allclose(energy(image), expected, rtol=1e-5, atol=1e-5)


def test_grey_images_have_no_axis_of_channels():
    energy = en.ConvEnergy((5, 6), widths=(4,), key=KEY)
    x = jax.random.normal(KEY, (5, 6))
    assert energy.supports == {"x": en.Real((5, 6))}
    same = en.ConvEnergy((5, 6, 1), widths=(4,), key=KEY)
    assert float(energy(x)) == float(same(x[..., None]))


@pytest.mark.parametrize("make", [en.ConvEnergy, en.ResNetEnergy])
def test_images_that_are_none(make):
    with pytest.raises(ValueError, match=r"\(height, width\) or .* got \(784,\)"):
        make((784,), key=KEY)
    with pytest.raises(ValueError, match="image_shape= must be at least 1, got 0"):
        make((8, 0), key=KEY)
    with pytest.raises(ValueError, match="num_groups=3 must divide every width, but not 64"):
        make((8, 8), num_groups=3, key=KEY)
    with pytest.raises(ValueError, match=r"takes one value of shape \(8, 8\), got \(2, 8, 8\)"):
        make((8, 8), key=KEY)(jnp.zeros((2, 8, 8)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "energy",
    [
        en.ResNetEnergy((4, 4), width=2, depth=2, num_groups=2, key=KEY),
        en.Classifier(eqx.nn.MLP(3, 4, 5, 1, activation=jax.nn.silu, key=KEY)),
    ],
    ids=["resnet", "classifier"],
)
def test_laws(energy):
    en.testing.check_energy(energy)


# --- classifiers


@pytest.fixture(scope="module")
def joint():
    return en.Classifier(eqx.nn.MLP(2, 3, 8, 1, activation=jnp.tanh, key=KEY))


def test_joint_energy_is_minus_a_logit(joint):
    x = jnp.array([0.5, -1.0])
    logits = joint.logits(x)
    assert [float(joint(x, y)) for y in range(3)] == [float(-logit) for logit in logits]
    assert float(joint.condition(y=2)(x)) == float(-logits[2])


def test_marginal_is_the_closed_form_with_its_gradient(joint):
    x = jnp.array([0.5, -1.0])
    free = joint.marginalize("y")

    def closed(x):
        return -jax.nn.logsumexp(joint.logits(x))

    np.testing.assert_allclose(free(x), closed(x), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(free)(x), jax.grad(closed)(x), rtol=1e-5)


def test_class_given_a_datum_is_drawn_as_the_classifier_has_it(joint):
    x = jnp.array([0.5, -1.0])
    draws = en.sample(joint.condition(x=x), "gibbs", key=KEY, num_chains=4, num_samples=1000)
    shares = np.bincount(np.asarray(draws["y"]).ravel(), minlength=3) / 4000
    wanted = np.asarray(jax.nn.softmax(joint.logits(x)))
    assert np.all(np.abs(shares - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 4000))


def test_a_function_is_a_classifier_of_unknown_supports():
    joint = en.Classifier(lambda x: jnp.stack([x @ x, -x @ x]))
    assert joint.supports == {"x": None, "y": None}
    assert float(joint(jnp.array([1.0, 2.0]), 1)) == 5.0
    known = en.Classifier(joint.logits, shape=(2,))
    assert known.supports == {"x": en.Real((2,)), "y": en.Categorical(2)}
    constrained = joint.constrain(x=en.Real((2,)), y=en.Categorical(2))
    x = jnp.array([1.0, 2.0])
    assert float(constrained.marginalize("y")(x)) == float(known.marginalize("y")(x))


def test_classifiers_that_are_none(joint):
    with pytest.raises(TypeError, match="logits"):
        en.Classifier(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"a number for each class, got shape \(\)"):
        en.Classifier(jnp.sum, shape=(2,))
    with pytest.raises(ValueError, match="y must be a class from 0 to 2, got 3"):
        joint(jnp.zeros(2), 3)
    with pytest.raises(ValueError, match=r"takes one class y, got shape \(2,\)"):
        joint(jnp.zeros(2), jnp.array([0, 1]))


@pytest.mark.parametrize(("width", "stride"), [(1, 2), (3, 1), (3, 2)])
def test_a_convolution_is_the_same_on_every_device(width, stride, key, monkeypatch):
    layer = en.Convolution(2, 4, width, stride=stride, key=key)
    images = [jax.random.normal(key, (2, *size)) for size in ((1, 5), (4, 7))]
    here = [layer(image) for image in images]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for mine, image in zip(here, images, strict=True):
        np.testing.assert_allclose(mine, layer(image), atol=1e-5)
    with pytest.raises(ValueError, match="must be odd, got 2"):
        en.Convolution(2, 4, 2, key=key)
