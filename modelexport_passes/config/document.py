"""YAML text -> plain values and the place of each, read strictly.

PyYAML reads YAML 1.1, where ``on`` is a bool, ``12:30`` is 750, ``1e-3`` is text and the second of two equal keys wins
in silence. Here plain scalars follow the core schema of YAML 1.2 (section 10.3.2), and what a configuration has no use
for is an error: equal keys, tags, keys that are neither text nor whole numbers, more than one document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from modelexport_passes.config.problems import ConfigFileError, DocumentPath, Place, Problem, render_path

_PLAIN = "?"
_TEXT = "tag:yaml.org,2002:str"
_MAX_VALUES = 100_000

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Marks:
    """Where a value stands, and where the key that holds it does (the same place for items of a list)."""

    value: Place
    key: Place


@dataclass
class Document:
    """A configuration as plain values (dict, list, text, numbers, bool, None), with the place of every value.

    Attributes:
        file: the path as the user gave it.
        value: the top value.
        marks: path -> places; has an entry for every value.
    """

    file: str
    value: Any
    marks: dict[DocumentPath, Marks]

    def place_of(self, path: DocumentPath, *, key: bool = False) -> Place:
        """The place of a value (or of its key); of the nearest value above where there is none at this path."""
        while path not in self.marks and path:
            path = path[:-1]
        marks = self.marks.get(path)
        if marks is None:
            return Place(self.file, 1, 1)
        return marks.key if key else marks.value


def load_document(path: Path, file: str | None = None) -> Document:
    """Read a YAML file.

    Args:
        path: where it lies.
        file: how to name it in errors; the path by default.

    Raises:
        ConfigFileError: it cannot be read, is not YAML, or holds what is not allowed here.
    """
    file = file or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigFileError([Problem(Place(file), "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = Problem(Place(file, line, 1), "", f"byte {error.start} is not UTF-8; save the file as UTF-8")
        raise ConfigFileError([problem]) from error
    return parse_document(text, file)


def parse_document(text: str, file: str) -> Document:
    """Read YAML text; ``file`` names it in errors.

    Raises:
        ConfigFileError: as `load_document`.
    """
    try:
        node = _StrictLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigFileError([Problem(place, "", f"not YAML: {what}")]) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ConfigFileError([Problem(Place(file), "", f"not YAML: {str(error).splitlines()[0]}")]) from error
    except RecursionError as error:
        raise ConfigFileError([Problem(Place(file), "", "nested too deeply to be a configuration")]) from error
    reader = _Reader(file)
    value: Any = {} if node is None else reader.read(node, (), None)
    if reader.problems:
        raise ConfigFileError(reader.problems)
    return Document(file, value, reader.marks)


def parse_value(text: str) -> Any:
    """One YAML value, such as the right side of ``--set key=value``.

    Raises:
        ConfigFileError: as `load_document`.
    """
    return parse_document(text, "value").value if text.strip() else None


def as_mapping(value: Any) -> dict[str | int, Any] | None:
    """The value, if it is a mapping."""
    return cast("dict[str | int, Any]", value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """The value, if it is a list."""
    return cast("list[Any]", value) if isinstance(value, list) else None


class _StrictLoader(yaml.BaseLoader):
    """Leaves every plain scalar unresolved, so that `read_scalar` decides."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ARG002
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return "tag:yaml.org,2002:seq" if kind is yaml.SequenceNode else "tag:yaml.org,2002:map"


def read_scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


class _Reader:
    """Turns composed nodes into values, collecting marks and problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[DocumentPath, Marks] = {}
        self.problems: list[Problem] = []
        self._open: list[yaml.Node] = []

    def read(self, node: yaml.Node, path: DocumentPath, key: Place | None) -> Any:
        place = self._place(node)
        self.marks[path] = Marks(place, key or place)
        # An anchor may hold itself, and anchors of anchors multiply.
        if any(node is outer for outer in self._open) or len(self.marks) > _MAX_VALUES:
            self._problem(node, path, "an alias that repeats itself or too much; write the values out")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                self._refuse_tag(node, path, "tag:yaml.org,2002:seq")
                return [self.read(item, (*path, index), None) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: DocumentPath) -> dict[str | int, Any]:
        self._refuse_tag(node, path, "tag:yaml.org,2002:map")
        values: dict[str | int, Any] = {}
        first: dict[str | int, Place] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(key, bool) or not isinstance(key, str | int):
                shown = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a collection"
                self._problem(key_node, path, f"key {shown!r}; expected text or a whole number (quote it)")
            elif key in values:
                above = f"line {first[key].line}"
                self._problem(key_node, (*path, key), f"key {str(key)!r} is already given in {above}; remove one")
            else:
                first[key] = self._place(key_node)
                values[key] = self.read(value_node, (*path, key), first[key])
        return values

    def _scalar(self, node: yaml.Node, path: DocumentPath) -> str | int | float | bool | None:
        if node.tag == _PLAIN:
            return read_scalar(node.value)
        self._refuse_tag(node, path, _TEXT)
        return str(node.value)

    def _refuse_tag(self, node: yaml.Node, path: DocumentPath, allowed: str) -> None:
        if node.tag != allowed:
            self._problem(node, path, f"tag {node.tag!r}; tags are not used here, remove it")

    def _place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _problem(self, node: yaml.Node, path: DocumentPath, text: str) -> None:
        self.problems.append(Problem(self._place(node), render_path(path), text))
