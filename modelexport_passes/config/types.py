"""What a type annotation expects, in a person's words, and the type of each part of a value."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any, Literal, Union, cast

from pydantic import BaseModel

from modelexport_passes.config.problems import DocumentPath, one_of

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    None: "null",
    Any: "any value",
    object: "any value",
    list: "a list",
    dict: "a mapping",
}


def describe(annotation: Any) -> str:
    """The values a type takes, as words: ``"all", "auto" or a list of text``."""
    words = [word for member in members_of(annotation) for word in _alternatives(member)]
    # null is what leaving the key out means; to name it beside others says nothing new
    return one_of([word for word in words if word != _WORDS[None]] or words)


def _alternatives(annotation: Any) -> list[str]:
    """The values of a type that is no union: one entry, or one for each literal value."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return [f'"{value}"' if isinstance(value, str) else str(value) for value in args]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [f'"{member.value}"' for member in annotation]
    if is_pass(annotation):
        return ["a pass: a mapping with the keys pass, with"]
    if keys_of(annotation):
        return [f"a mapping with the keys {', '.join(keys_of(annotation))}"]
    if annotation in _WORDS:
        return [_WORDS[annotation]]
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        return [f"a mapping from {describe(args[0])} to {describe(args[1])}"]
    if isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        return [f"a list of {describe(args[0])}".replace("of a mapping", "of mappings")]
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return ["a path"]
    name: str = getattr(cast("object", annotation), "__name__", str(cast("object", annotation)))
    return [f"a {name} (only in Python)"]


def members_of(annotation: Any) -> list[Any]:
    """The members of a union, aliases and ``Annotated`` removed; a single one for any other type."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in members_of(member)]
    return [annotation]


def keys_of(annotation: Any) -> dict[str, Any]:
    """Key -> type of a mapping with fixed keys (a dataclass or one of our file's sections); else empty."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) and not is_pass(annotation):
        hints = typing.get_type_hints(annotation)
        return {field.name: hints[field.name] for field in dataclasses.fields(annotation) if field.init}
    return {}


def is_pass(annotation: Any) -> bool:
    """Whether a type is that of passes: in a file, a mapping as for a step."""
    # Only what has imported onnx_ir can name its passes, and importing it here would take a second.
    onnx_ir = sys.modules.get("onnx_ir")
    return onnx_ir is not None and isinstance(annotation, type) and issubclass(annotation, onnx_ir.passes.PassBase)


def type_at(annotation: Any, path: DocumentPath) -> Any:
    """The type expected at a path inside a value of the given type; Any where it cannot be told."""
    if not path:
        return annotation
    step, rest = path[0], path[1:]
    found: list[Any] = []
    for member in members_of(annotation):
        args = typing.get_args(member)
        origin = typing.get_origin(member)
        keys = keys_of(member)
        if step in keys:
            found.append(type_at(keys[str(step)], rest))
        elif isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
            found.append(type_at(args[1], rest))
        elif isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet) and isinstance(step, int) and args:
            found.append(type_at(args[0], rest))
    return Union[tuple(found)] if found else Any  # noqa: UP007 - built from values


def kind_of(value: Any) -> str:
    """What a value is, as a person would say it: ``3 (a whole number)``."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"{shown} ({_WORDS[type(value)] if type(value) in _WORDS and not isinstance(value, bool) else 'a bool'})"
