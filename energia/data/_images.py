"""Images of digits: those that scikit-learn ships, and files in the format of MNIST."""

import gzip
import math
import os
import struct
import zipfile
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]

PARTS = {"train": "train", "test": "t10k"}  # of the names of IDX files
KINDS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def digits() -> Arrays:
    """The 1,797 handwritten digits of 8 by 8 pixels that scikit-learn ships.

    There are 17 levels of grey, so that `dequantize(17)` fills the gaps between them.

    Returns:
        `x`, shape (1797, 8, 8), from 0 (paper) to 1, and `y`, the digit, shape (1797,); NumPy
        arrays.

    Raises:
        ImportError: without scikit-learn.

    References:
        Alpaydin and Kaynak (1998), Optical recognition of handwritten digits (the test part).

    Example:
        >>> import energia as en
        >>> data = en.data.digits()
        >>> data["x"].shape, data["y"][:5].tolist()
        ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "en.data.digits() reads the data that scikit-learn ships: python -m pip install "
            "scikit-learn"
        ) from error
    images, labels = load_digits(return_X_y=True)
    return {
        "x": np.asarray(images.reshape(-1, 8, 8) / 16, np.float32),
        "y": np.asarray(labels, np.int32),
    }


def mnist(path: str | os.PathLike[str]) -> tuple[Arrays, Arrays]:
    """Labelled images from files in the format of MNIST, which many data sets share.

    Nothing is downloaded. There are 256 levels of grey, so that `dequantize(256)` fills the gaps
    between them.

    Args:
        path: an npz file with the arrays `x_train`, `y_train`, `x_test` and `y_test`; or a folder
            with the four IDX files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, as they are or compressed (.gz);
            a dot may stand before `idx`.

    Returns:
        Training data and test data, dicts of `x`, shape (rows, height, width), from 0 to 1, and the
        labels `y`, shape (rows,); NumPy arrays.

    Raises:
        FileNotFoundError: when there is no such file, with the names that were looked for.
        ValueError: when a file is in another format.

    References:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
        recognition.

    Example:
        >>> import energia as en, numpy as np, tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "two.npz"
        >>> images, labels = np.full((2, 28, 28), 255, np.uint8), np.array([3, 7], np.uint8)
        >>> np.savez(file, x_train=images, y_train=labels, x_test=images[:1], y_test=labels[:1])
        >>> train, test = en.data.mnist(file)
        >>> train["x"].shape, float(train["x"].max()), test["y"].tolist()
        ((2, 28, 28), 1.0, [3])
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"mnist() reads an npz file or a folder, and there is no {place}")
    read = _from_folder if place.is_dir() else _from_npz
    parts = [_scaled(*read(place, part), f"{place}, {part}") for part in PARTS]
    return parts[0], parts[1]


def _from_npz(file: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is no npz file: mnist() reads one, or a folder of IDX files")
    with np.load(file, allow_pickle=False) as arrays:
        if missing := {f"x_{part}", f"y_{part}"} - set(arrays.files):
            raise ValueError(
                f"{file} lacks {sorted(missing)}: mnist() reads x_train, y_train, x_test, y_test"
            )
        return arrays[f"x_{part}"], arrays[f"y_{part}"]


def _from_folder(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    return _idx(folder, f"{PARTS[part]}-images", 3), _idx(folder, f"{PARTS[part]}-labels", 1)


def _idx(folder: Path, name: str, rank: int) -> np.ndarray:
    """The array in an IDX file."""
    stem = f"idx{rank}-ubyte"
    names = [f"{name}{mark}{stem}{end}" for mark in "-." for end in ("", ".gz")]
    found = [folder / each for each in names if (folder / each).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} has none of the files {', '.join(names)}")
    raw = found[0].read_bytes()
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        zero, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
        values = np.frombuffer(content, KINDS[kind], offset=4 + 4 * axes)
        if zero or axes != rank or values.size != math.prod(shape):
            raise ValueError(f"{values.size} numbers for the shape {shape}")
    except (ValueError, KeyError, struct.error, EOFError, OSError) as error:
        raise ValueError(f"{found[0]} is no IDX file of {rank} axes: {error}") from error
    return values.reshape(shape)


def _scaled(images: np.ndarray, labels: np.ndarray, where: str) -> Arrays:
    if images.dtype != np.uint8 or images.ndim < 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where}: mnist() reads images of bytes, shape (rows, height, width), and a label for "
            f"each, got {images.dtype}{list(images.shape)} and {labels.dtype}{list(labels.shape)}"
        )
    return {"x": np.asarray(images, np.float32) / np.float32(255), "y": labels.astype(np.int32)}
