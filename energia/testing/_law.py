"""Laws: what must hold, told in one form where it does not."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

Require = Callable[[Any, str], None]


@contextlib.contextmanager
def law(subject: str, text: str) -> Iterator[Require]:
    """A block in which `require(condition, numbers)` must hold and nothing may be raised.

    Args:
        subject: what is tested.
        text: the law, in words.

    Raises:
        AssertionError: with the law and the numbers that break it.
    """

    def require(holds: Any, numbers: str) -> None:
        if not bool(holds):
            raise AssertionError(f"{subject} breaks the law that {text}: {numbers}")

    try:
        yield require
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{subject} breaks the law that {text}: it raises {type(error).__name__}: {error}"
        ) from error


def avals(tree: Any) -> Any:
    """Dtype and shape of every array of a tree as text; the other leaves as they are."""

    def describe(leaf: Any) -> Any:
        known = eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        return f"{leaf.dtype}{list(leaf.shape)}" if known else leaf

    return jax.tree.map(describe, tree)


def differences(first: Any, second: Any) -> str:
    """Where two trees differ in structure, or in a leaf by `==`; empty where nowhere."""
    if (one := jax.tree.structure(first)) != (two := jax.tree.structure(second)):
        return f"structure {one} against {two}"
    pairs = zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True)
    found = [f"{jax.tree_util.keystr(p)}: {a} against {b}" for (p, a), b in pairs if a != b]
    return "; ".join(found[:3])


def unequal(first: Any, second: Any) -> str:
    """Where the arrays of two trees of one structure differ in a bit; empty where nowhere."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True)
    for path, one, two in ((p, np.asarray(a), np.asarray(b)) for (p, a), b in pairs):
        if one.shape != two.shape or not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
            return f"{jax.tree_util.keystr(path)}: {_short(one)} against {_short(two)}"
    return ""


def other_numbers(tree: Any) -> Any:
    """The same tree with every float array 1 % larger."""
    return jax.tree.map(lambda leaf: 1.01 * leaf if eqx.is_inexact_array(leaf) else leaf, tree)


def _short(array: np.ndarray) -> str:
    return np.array2string(array, precision=6, threshold=6).replace("\n", "")
