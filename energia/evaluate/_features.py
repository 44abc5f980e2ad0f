"""A small network whose features tell the classes of the data apart."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia._types import as_float, check_count, check_key
from energia.energies import Classifier, Convolution
from energia.energies._trainable import constant
from energia.objectives import MLE
from energia.training import fit

WIDTHS = (32, 64)  # channels of the convolutions
HIDDEN = 128  # units of the first layer, where there are no images


class FeatureNetwork(eqx.Module):
    """Features of one datum, made by `feature_network`: a function from its shape to (size,)."""

    layers: tuple[Convolution | eqx.nn.Linear, ...]
    centre: jax.Array = constant()
    scale: jax.Array = constant()

    def __call__(self, x: jax.Array) -> jax.Array:
        values = (as_float(x) - self.centre) / self.scale
        if values.ndim > 1:
            values = values[None] if values.ndim == 2 else jnp.moveaxis(values, -1, 0)
        for layer in self.layers:
            if isinstance(layer, eqx.nn.Linear):
                values = jnp.ravel(values)
            values = jax.nn.silu(layer(values))
        return values


def feature_network(
    data: Mapping[str, Any], *, size: int = 64, num_steps: int = 2000, key: jax.Array
) -> FeatureNetwork:
    r"""Train a small classifier, and keep it up to its last layer: features to compare samples by.

    Images go through two convolutions of 3 by 3 with a stride of 2, to 32 and 64 channels, and a
    linear map to the features; other data through one layer of 128 units and that map. Activations
    are SiLU. A linear classifier of the features is trained with them by the cross-entropy, and
    dropped.

    Features depend on the key: numbers that are to be compared need one network. Saved with
    `eqx.tree_serialise_leaves` it can be kept beside them.

    Args:
        data: x, shape (rows, height, width), (rows, height, width, channels) or (rows, n), and
            labels y, integers from 0, shape (rows,).
        size: number of features.
        num_steps: of Adam, with 128 rows each.
        key: a typed JAX key.

    Returns:
        A function of one datum with values of shape (size,): `features=` of `frechet_distance` and
        of `linear_probe`.

    Raises:
        TypeError, ValueError: for data that are no labelled images or vectors.

    Example:
        >>> import energia as en, jax
        >>> data = en.data.moons(500, key=jax.random.key(0))
        >>> network = en.evaluate.feature_network(data, num_steps=5, key=jax.random.key(1))
        >>> network(data["x"][0]).shape
        (64,)
        >>> other = en.data.moons(500, key=jax.random.key(2))
        >>> en.evaluate.frechet_distance(other["x"], data["x"], features=network) < 0.1
        True
    """
    x, y = labelled(data, "data")
    size, num_steps = check_count(size, "size", 1), check_count(num_steps, "num_steps", 1)
    key_layers, key_last, key_fit = jax.random.split(check_key(key), 3)
    network = FeatureNetwork(
        _layers(x.shape[1:], size, key_layers), as_float(x.mean()), as_float(x.std() or 1.0)
    )
    last = eqx.nn.Linear(size, int(y.max()) + 1, key=key_last)
    joint = Classifier(eqx.nn.Sequential([eqx.nn.Lambda(network), last]), shape=x.shape[1:])
    trained = fit(joint, {"x": x, "y": y}, MLE(given="x"), key=key_fit, num_steps=num_steps)
    return trained.energy.logits.layers[0].fn


def labelled(data: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows x as floats, and their labels y."""
    if not isinstance(data, Mapping) or set(data) != {"x", "y"}:
        got = sorted(data) if isinstance(data, Mapping) else type(data).__name__
        raise TypeError(f"{what} must be a dict of 'x' and its labels 'y', got {got}")
    x, y = np.asarray(as_float(data["x"], "x")), np.asarray(data["y"])
    if x.ndim < 2 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"{what} must have at least 2 finite rows x, got shape {x.shape}")
    if y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min() < 0:
        raise ValueError(
            f"{what} must have labels y, an integer of at least 0 for each of its {len(x)} rows, "
            f"got shape {y.shape} and dtype {y.dtype}"
        )
    if y.max() == y.min():
        raise ValueError(f"{what} must have at least 2 classes, got {y.min()} in every row")
    return x, y


def _layers(shape: tuple[int, ...], size: int, key: jax.Array) -> tuple[Any, ...]:
    keys = jax.random.split(key, 3)
    if len(shape) == 1:
        return (
            eqx.nn.Linear(shape[0], HIDDEN, key=keys[0]),
            eqx.nn.Linear(HIDDEN, size, key=keys[1]),
        )
    if len(shape) not in (2, 3):
        raise ValueError(
            "feature_network() takes vectors, or images of shape (height, width) or (height, "
            f"width, channels), got rows of shape {shape}"
        )
    channels = (1 if len(shape) == 2 else shape[2], *WIDTHS)
    convolutions = [
        Convolution(before, after, stride=2, key=each)
        for before, after, each in zip(channels, channels[1:], keys, strict=False)
    ]
    places = math.prod(-(-length // 4) for length in shape[:2])
    return (*convolutions, eqx.nn.Linear(places * channels[-1], size, key=keys[2]))
