"""A Griffe extension: what the source alone does not tell of energia's public names.

Griffe reads source and runs none of it. Functions that functions made (`en.Normal` and the other
distributions, `en.samplers.register`), and classes whose `__init__` Equinox makes of their fields,
are asked for their signature.
"""

import dataclasses
import importlib
import inspect
import re
from typing import Any

import griffe


class Completed(griffe.Extension):
    """Completes the public names of the package once Griffe has read it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe's parser knows doctests by a plural, and would read them as prose."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.M)

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        loader.resolve_aliases(external=False)
        modules = [pkg]
        for module in modules:
            for name in map(str, module.exports or ()):
                member = module[name]
                found = member.final_target if member.is_alias else member
                if found.is_module:
                    modules.append(found)
                elif found.is_attribute:
                    found.parent.set_member(found.name, function(name, runtime(module, name)))
                elif found.is_class and "__init__" not in found.all_members:
                    value = runtime(module, name)
                    if dataclasses.is_dataclass(value) and takes_fields(value):
                        found.set_member("__init__", function("__init__", value, ["self"]))


def runtime(module: griffe.Module, name: str) -> Any:
    return getattr(importlib.import_module(module.path), name)


def takes_fields(cls: type) -> bool:
    return list(inspect.signature(cls).parameters) not in ([], ["args", "kwargs"])


def function(name: str, value: Any, first: list[str] | None = None) -> griffe.Function:
    """A function as Griffe would have read a definition of it."""
    anywhere = griffe.ParameterKind.positional_or_keyword
    parameters = [griffe.Parameter(each, kind=anywhere) for each in first or ()]
    for p in inspect.signature(value).parameters.values():
        typed, required = p.annotation is not p.empty, p.default is p.empty
        parameters.append(
            griffe.Parameter(
                p.name,
                kind=griffe.ParameterKind(p.kind.description),
                annotation=annotation(p.annotation) if typed else None,
                default=None if required else repr(p.default),
            )
        )
    made = griffe.Function(name, parameters=griffe.Parameters(*parameters))
    if name != "__init__":
        made.docstring = griffe.Docstring(inspect.getdoc(value) or "", parent=made)
    return made


def annotation(value: Any) -> str:
    """An annotation in short: `Energy | None`."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", inspect.formatannotation(value))
