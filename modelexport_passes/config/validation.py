"""Checking a value of a document against a type: strict, every problem at its place and in a person's words."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from modelexport_passes.config.document import Document
from modelexport_passes.config.problems import DocumentPath, Problem, did_you_mean, one_of, render_path
from modelexport_passes.config.types import describe, keys_of, kind_of, members_of, type_at

_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=True)
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")


def check_value(annotation: Any, path: DocumentPath, document: Document) -> tuple[Any, list[Problem]]:
    """Read the value at a path of a document as a type.

    No value is converted, except that a list may become a tuple or set, text an enum or path, a mapping a dataclass.

    Returns:
        the value and no problems, or None and all problems.
    """
    value = value_at(document.value, path)
    # In a list, because pydantic hands the strictness down to dataclasses only from around them. As JSON, because its
    # strict mode for Python objects takes no list for a tuple.
    listed: Any = list.__class_getitem__(annotation)
    adapter: TypeAdapter[list[Any]] = TypeAdapter(listed, config=_STRICT)
    try:
        return adapter.validate_json(json.dumps([value]))[0], []
    except ValidationError as error:
        return None, _problems(error, annotation, value, path, document)


def value_at(value: Any, path: DocumentPath) -> Any:
    """The value at a path below a value."""
    for part in path:
        value = value[part]
    return value


def _problems(
    error: ValidationError, annotation: Any, value: Any, path: DocumentPath, document: Document
) -> list[Problem]:
    found: dict[DocumentPath, ErrorDetails] = {}
    for detail in error.errors():
        found.setdefault(_below(value, detail), detail)
    # Each member of a union reports why it does not fit. The one that got deepest into the value is what was meant.
    return [
        _problem(detail, annotation, below, path, document)
        for below, detail in found.items()
        if not any(other[: len(below)] == below and len(other) > len(below) for other in found)
    ]


def _below(value: Any, detail: ErrorDetails) -> DocumentPath:
    """The path of an error in the document: pydantic's, without the names of union members it passes through."""
    path: list[str | int] = []
    for part in detail["loc"][1:]:
        if isinstance(value, dict):
            keys = {str(key): key for key in cast("dict[str | int, Any]", value)}
            if str(part) in keys:
                path.append(keys[str(part)])
                value = cast("dict[str | int, Any]", value)[keys[str(part)]]
            elif detail["type"] in _MISSING_KEY and part == detail["loc"][-1]:
                path.append(part)
        elif isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = cast("list[Any]", value)[part]
    return tuple(path)


def _problem(
    detail: ErrorDetails, annotation: Any, below: DocumentPath, path: DocumentPath, document: Document
) -> Problem:
    full = (*path, *below)
    kind = detail["type"]
    if kind in _UNKNOWN_KEY or kind in _MISSING_KEY:
        key = str(below[-1])
        holder = type_at(annotation, below[:-1])
        known = [name for member in members_of(holder) for name in keys_of(member)]
        if kind in _MISSING_KEY:
            expected = describe(type_at(annotation, below))
            return Problem(document.place_of(full[:-1]), render_path(full), f"missing; expected {expected}")
        return unknown_key(key, known, full, document)
    got = value_at(document.value, full)
    expected = detail["msg"].removeprefix("Value error, ") if "error" in detail.get("ctx", {}) else ""
    expected = expected or f"expected {describe(type_at(annotation, below))}"
    constraint = "" if kind.endswith(("_type", "_error", "_parsing")) else _constraint(detail)
    got_text = "an empty value" if got in ("", [], {}) else kind_of(got)
    text = f"got {got_text}; {expected}{constraint}{_hint(got, type_at(annotation, below))}"
    return Problem(document.place_of(full), render_path(full), text)


def _constraint(detail: ErrorDetails) -> str:
    limits = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "pattern": "of the form"}
    told = [f"{words} {detail.get('ctx', {})[name]}" for name, words in limits.items() if name in detail.get("ctx", {})]
    return f", {' and '.join(told)}" if told else ""


def _hint(got: Any, annotation: Any) -> str:
    if not isinstance(got, str):
        return "; quote it to make it text" if str in members_of(annotation) and _is_scalar(got) else ""
    if bool in members_of(annotation):
        meant = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
        return f"; did you mean {meant[got.lower()]}?" if got.lower() in meant else ""
    return did_you_mean(got, describe(annotation).split('"')[1::2])


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unknown_key(key: str, known: list[str], path: DocumentPath, document: Document) -> Problem:
    """The problem of a key that nothing reads."""
    expected = f"expected {one_of(sorted(known))}" if known else "no keys are known here"
    text = f"unknown key {key!r}; {expected}{did_you_mean(key, known)}"
    return Problem(document.place_of(path, key=True), render_path(path[:-1]), text)
