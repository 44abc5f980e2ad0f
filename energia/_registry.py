"""Registries: names for classes, open to classes from outside."""

import difflib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Base = TypeVar("Base")
Class = TypeVar("Class", bound=type[Any])


class Registry(Generic[Base]):
    """Classes of one kind by name.

    Registering returns the class unchanged. The same class from the same module replaces itself (a
    notebook cell run twice); another class under a taken name raises.
    """

    def __init__(self, kind: str, where: str):
        self.kind = kind
        self.where = where
        self._classes: dict[str, type[Base]] = {}
        self._base: type[Base] | None = None

    def use_base(self, base: type[Base]) -> None:
        """Set the class that everything registered must inherit from."""
        self._base = base

    def register(self, name: str) -> Callable[[Class], Class]:
        """Register a class under a name; a decorator.

        Raises:
            TypeError: when the name is no string or the class is of another kind.
            ValueError: when another class has the name.

        Example:
            >>> import energia as en
            >>> en.samplers.register("mala")(en.samplers.MALA) is en.samplers.MALA  # once more
            True
        """
        if not isinstance(name, str):
            raise TypeError(f"{self.where}.register takes a name: @{self.where}.register('name')")

        def add(cls: Class) -> Class:
            base = self._base
            kind: Any = cls  # a checker would narrow the class to its base, and return that
            if base is not None and not (isinstance(kind, type) and issubclass(kind, base)):
                raise TypeError(f"{cls!r} is no {base.__name__}: inherit from it to register")
            old = self._classes.get(name)
            if old is not None and _origin(old) != _origin(cls):
                raise ValueError(
                    f"the {self.kind} name {name!r} is taken by {'.'.join(_origin(old))}; "
                    "choose another"
                )
            self._classes[name] = kind
            return cls

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted.

        Example:
            >>> import energia as en
            >>> en.objectives.names()[:4]
            ('cd', 'cnce', 'drl', 'dsm')
        """
        return tuple(sorted(self._classes))

    def name_of(self, cls: type) -> str | None:
        """The name that a class is registered under, or None."""
        return next((name for name, known in self._classes.items() if known is cls), None)

    def get(self, name: str) -> type[Base]:
        """The class registered under a name.

        Raises:
            ValueError: when there is none; names the nearest ones.
        """
        if name not in self._classes:
            near = difflib.get_close_matches(name, self._classes, n=3, cutoff=0.4)
            guess = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            known = ", ".join(self.names())
            raise ValueError(
                f"no {self.kind} is called {name!r}: {guess}The names are {known}; "
                f"@{self.where}.register({name!r}) adds one"
            )
        return self._classes[name]

    def resolve(self, given: Any) -> Base:
        """An instance from a name or an instance: strings end here."""
        if isinstance(given, str):
            return self.get(given)()
        if self._base is not None and isinstance(given, self._base):
            return given
        hint = f": write {given.__name__}(...)" if isinstance(given, type) else ""
        raise TypeError(
            f"expected the name of a {self.kind} or an {self.where} object, got {given!r}{hint}"
        )


def _origin(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
