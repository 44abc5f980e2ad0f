"""What is read off a frozen object once, and kept beside it."""

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


def remembered(method: Callable[[Any], Value]) -> Callable[[Any], Value]:
    """A method of no arguments that is evaluated once an object, as long as the object lives.

    Equinox modules hold their fields and nothing else, and are not hashable: values stand here, by
    identity.
    """
    kept: dict[int, tuple[weakref.ref[Any], Value]] = {}

    @functools.wraps(method)
    def once(self: Any) -> Value:
        place = id(self)
        found = kept.get(place)
        if found is not None and found[0]() is self:
            return found[1]
        value = method(self)
        kept[place] = weakref.ref(self, lambda _: kept.pop(place, None)), value
        return value

    return once
