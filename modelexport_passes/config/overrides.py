"""Values given beside the file: ``overrides={"steps.tags.with.key": "x"}``, ``--set steps.tags.with.key=x``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelexport_passes.config.document import Document, Marks, as_list, as_mapping
from modelexport_passes.config.problems import (
    ConfigFileError,
    DocumentPath,
    Place,
    Problem,
    did_you_mean,
    one_of,
    render_path,
)


def apply_overrides(document: Document, overrides: Mapping[str, Any]) -> None:
    """Write values into a document, before it is checked.

    An address is the keys from the top with dots between; a step is addressed by its id (the pass's name where it has
    none) or by its index. Mappings on the way that are not there yet are made.

    Raises:
        ConfigFileError: an address leads nowhere.
    """
    problems: list[Problem] = []
    for address, value in overrides.items():
        place = Place(f"override {address}")
        try:
            path = _write(document, address, value)
        except LookupError as error:
            problems.append(Problem(place, "", str(error.args[0])))
            continue
        for old in [mark for mark in document.marks if mark[: len(path)] == path]:
            del document.marks[old]
        _mark(document, path, value, place)
    if problems:
        raise ConfigFileError(problems)


def _write(document: Document, address: str, value: Any) -> DocumentPath:
    parts = address.split(".")
    if not all(parts):
        raise LookupError("an empty key; expected keys with dots between, such as steps.outline.with.modules")
    holder: Any = document.value
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        key: str | int = part
        items = as_list(holder)
        if items is not None:
            key = _index(items, part, path)
        elif as_mapping(holder) is None:
            raise LookupError(f"{render_path(tuple(path))} is not a mapping; nothing below it can be set")
        path.append(key)
        if depth == len(parts) - 1:
            holder[key] = value
        else:
            holder = _enter(holder, key)
    return tuple(path)


def _enter(holder: Any, key: str | int) -> Any:
    if isinstance(key, str) and holder.get(key) is None:
        holder[key] = {}
    return holder[key]


def _index(items: list[Any], part: str, path: list[str | int]) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = step_ids(items) if path == ["steps"] else []
    if part in names:
        return names.index(part)
    expected = one_of([*names, f"an index below {len(items)}"])
    raise LookupError(f"no {part!r} in {render_path(tuple(path))}; expected {expected}{did_you_mean(part, names)}")


def step_ids(steps: list[Any]) -> list[str]:
    """The id of each step of a document: its own, or its pass's name, numbered where that name is taken (``-2``)."""
    mappings = [as_mapping(step) or {} for step in steps]
    taken = {str(step["id"]) for step in mappings if step.get("id") is not None}
    ids: list[str] = []
    for step in mappings:
        if step.get("id") is not None:
            ids.append(str(step["id"]))
            continue
        name = candidate = str(step.get("pass", "?"))
        number = 1
        while candidate in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate)
        ids.append(candidate)
    return ids


def _mark(document: Document, path: DocumentPath, value: Any, place: Place) -> None:
    """Give a value and all that is in it the override as their place, and its new holders too."""
    document.marks[path] = Marks(place, place)
    for depth in range(len(path)):
        document.marks.setdefault(path[:depth], Marks(place, place))
    for key, item in (as_mapping(value) or dict(enumerate(as_list(value) or []))).items():
        _mark(document, (*path, key), item, place)
