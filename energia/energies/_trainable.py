"""What is trained: every float array of an energy, except what stands in a constant field."""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import strong, strong_tree

_CONSTANT = "energia_constant"


def constant(**kwargs: Any) -> Any:
    """Declare a field whose arrays are never trained: weights of a composite, masks, data.

    `en.fit` moves the float arrays of an energy, however deep they stand, except those below a
    field declared so. A stopped gradient is not enough: weight decay would still move the array.

    Args:
        **kwargs: passed on to `equinox.field`, `default=` say. Numbers and NumPy arrays become JAX
            arrays unless another `converter=` is given.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> class Masked(en.Energy):
        ...     scale: jax.Array
        ...     mask: jax.Array = en.constant()
        ...     def __call__(self, x):
        ...         return jnp.sum(self.mask * (x / self.scale) ** 2)
        >>> print(Masked(jnp.ones(3), jnp.array([1.0, 0.0, 1.0])))
        Masked(x)  [3 parameters]
    """
    kwargs.setdefault("converter", strong_tree)
    metadata = {**kwargs.pop("metadata", {}), _CONSTANT: True}
    return eqx.field(metadata=metadata, **kwargs)


def is_trainable(leaf: Any) -> bool:
    """Whether a leaf outside constant fields is trained: a float, or a floating-point array."""
    if eqx.is_array(leaf):
        return bool(jnp.issubdtype(leaf.dtype, jnp.floating))
    return isinstance(leaf, float)


def _in_constant_field(tree: Any, path: Sequence[Any]) -> bool:
    node = tree
    for entry in path:
        match entry:
            case jax.tree_util.GetAttrKey(name=name):
                fields = getattr(type(node), "__dataclass_fields__", {})
                if name in fields and fields[name].metadata.get(_CONSTANT, False):
                    return True
                node = getattr(node, name)
            case jax.tree_util.SequenceKey(idx=index) | jax.tree_util.DictKey(key=index):
                node = node[index]
            case jax.tree_util.FlattenedIndexKey(key=index):
                node = jax.tree.leaves(node, is_leaf=_other_than(node))[index]
            case _:  # a key of a foreign kind: nothing below it declares anything
                return False
    return False


def _other_than(node: Any) -> Callable[[Any], bool]:
    return lambda other: other is not node


def trainable_leaves(tree: Any) -> list[bool]:
    """For each leaf of the tree, in its flattening order, whether `en.fit` trains it."""
    return [
        is_trainable(leaf) and not _in_constant_field(tree, path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def count_parameters(tree: Any) -> int:
    """How many numbers `en.fit` would train; an array that stands in several places counts once."""
    leaves = jax.tree.leaves(tree)
    kept = [leaf for leaf, yes in zip(leaves, trainable_leaves(tree), strict=True) if yes]
    arrays = {id(leaf): leaf.size for leaf in kept if eqx.is_array(leaf)}
    return sum(arrays.values()) + sum(1 for leaf in kept if not eqx.is_array(leaf))


class Following(eqx.Module):
    """A part of an energy with constants that follow its parameters, as the vectors of a norm do.

    After each optimiser step `en.fit` puts `refreshed()` in its place.
    """

    @abc.abstractmethod
    def refreshed(self) -> "Following":
        """The same with constants brought up to date; a pure function."""


def _nodes(tree: Any) -> Iterator[tuple[Any, bool]]:
    """Leaves and parts that follow, and whether they are such parts outside constant fields."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_following)[0]
    for path, node in paths:
        yield node, _is_following(node) and not _in_constant_field(tree, path)


def _is_following(node: Any) -> bool:
    return isinstance(node, Following)


def refreshed(tree: Any) -> Any:
    """The tree with constants that follow parameters brought up to date.

    Below constant fields nothing is trained, and everything stays as it is.
    """
    structure = jax.tree.structure(tree, is_leaf=_is_following)
    new = [node.refreshed() if follows else node for node, follows in _nodes(tree)]
    return jax.tree.unflatten(structure, new)


class Skeleton(eqx.Module):
    """An energy without its parameters: `merge` puts them back.

    One array that stood in several places is one parameter, so that ties survive training. Ties
    are found by identity, before any cast.
    """

    others: list[Any]
    slots: tuple[int | None, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    following: tuple[int, ...] = eqx.field(static=True, default=())  # which of the others do

    def merge(self, parameters: Sequence[jax.Array], followed: Sequence[jax.Array] = ()) -> Any:
        """The energy with these parameters, and with these constants that follow them."""
        leaves = [
            other if slot is None else parameters[slot]
            for other, slot in zip(self.others, self.slots, strict=True)
        ]
        for index, array in zip(self.following, followed or self.followed, strict=True):
            leaves[index] = array
        return jax.tree.unflatten(self.structure, leaves)

    @property
    def followed(self) -> list[jax.Array]:
        """The constants that follow, as they were."""
        return [self.others[index] for index in self.following]

    def refresh(
        self, parameters: Sequence[jax.Array], followed: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """The constants that follow, brought up to date with these parameters."""
        if not self.following:
            return []
        leaves = jax.tree.leaves(refreshed(self.merge(parameters, followed)))
        return [leaves[index] for index in self.following]


def split(tree: Any) -> tuple[list[jax.Array], Skeleton]:
    """The parameters of an energy, each a fresh copy, and the skeleton that takes them back."""
    leaves, structure = jax.tree.flatten(tree)
    parameters: list[jax.Array] = []
    known: dict[int, int] = {}
    slots: list[int | None] = []
    for leaf, trained in zip(leaves, trainable_leaves(tree), strict=True):
        if not trained:
            slots.append(None)
            continue
        slot = known.get(id(leaf)) if eqx.is_array(leaf) else None
        if slot is None:
            slot = len(parameters)
            parameters.append(jnp.array(strong(leaf), copy=True))
            if eqx.is_array(leaf):
                known[id(leaf)] = slot
        slots.append(slot)
    others = [
        None if slot is not None else strong(leaf) for leaf, slot in zip(leaves, slots, strict=True)
    ]
    follows = [yes for node, yes in _nodes(tree) for _ in jax.tree.leaves(node)]
    following = [i for i, yes in enumerate(follows) if yes and eqx.is_inexact_array(others[i])]
    return parameters, Skeleton(others, tuple(slots), structure, tuple(following))
