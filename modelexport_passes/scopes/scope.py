"""`Frame` and `Scope`: which module calls were running when an operation was made, as values and as text.

The text form is what a node carries in its metadata under `SCOPE_KEY`, so it survives saving and other tools::

    export|m.Net:/m.Block:layers.0/torch.nn.modules.linear.Linear:layers.0.query@1

source, ``|``, then one ``class:path@call`` per frame, root first. Inside a function body a scope is relative to the
function's module: it starts with ``.|``, and paths below the module are written without the module's own path. A path
that does not lie below the module keeps its full form behind ``^``.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import onnx_ir as ir

from modelexport_passes.fast_nodes import metadata_of

_T = TypeVar("_T")

SCOPE_KEY = "pkg.modelexport_passes.scope"
"""Metadata key of a node's scope."""

UNKNOWN_CLASS = "?"
"""Class name of a frame whose path is known and whose class is not (names alone tell no classes)."""


class Source(enum.StrEnum):
    """How a scope is known, strongest first."""

    EXPORT = "export"
    METADATA = "metadata"
    NAME = "name"
    PARAMETER = "parameter"
    DATAFLOW = "dataflow"
    INHERITED = "inherited"

    @property
    def exact(self) -> bool:
        """Told by the exporter itself, not concluded."""
        return self in _EXACT

    @property
    def rank(self) -> int:
        """0 is the strongest."""
        return _RANK[self]


_EXACT = frozenset({Source.EXPORT, Source.METADATA, Source.NAME})
_RANK = {source: rank for rank, source in enumerate(Source)}


class Frame(NamedTuple):
    """One module call: the module's path, its class, and which call of that module it is.

    Attributes:
        path: dotted path from the root, ``""`` for the root itself.
        class_name: qualified (``torch.nn.modules.linear.Linear``), or `UNKNOWN_CLASS`.
        call: 0 for the first call of this module instance, 1 for the second, ...
    """

    path: str
    class_name: str = UNKNOWN_CLASS
    call: int = 0

    @property
    def short_class(self) -> str:
        """The class without its Python module."""
        return self.class_name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.path}@{self.call}" if self.call else self.path


@dataclass(frozen=True, slots=True)
class Scope:
    """The stack of module calls an operation was made in.

    Attributes:
        frames: root first. Dynamic (who called whom): a path need not extend the one before it.
        source: how we know. Two scopes with the same frames are equal whatever their source.
        relative: inside a function body the frames start below the function's module; empty for its own operations.
    """

    frames: tuple[Frame, ...]
    source: Source = field(default=Source.EXPORT, compare=False)
    relative: bool = False

    @property
    def path(self) -> str:
        """Path of the innermost module."""
        return self.frames[-1].path if self.frames else ""

    @property
    def call(self) -> int:
        """Call index of the innermost module."""
        return self.frames[-1].call if self.frames else 0

    @property
    def class_name(self) -> str:
        """Qualified class of the innermost module."""
        return self.frames[-1].class_name if self.frames else UNKNOWN_CLASS

    def __str__(self) -> str:
        return format_scope(self)

    def with_source(self, source: Source) -> Scope:
        """The same frames, known in another way."""
        return Scope(self.frames, source, self.relative)


def common_frames(stacks: Sequence[tuple[Frame, ...]]) -> tuple[Frame, ...]:
    """The longest common prefix: the lowest module call that all the stacks went through."""
    low, high = min(stacks), max(stacks)
    for depth, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return low[:depth]
    return low if len(low) <= len(high) else high


# --- text ----------------------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"[%/:@|^\s\x00-\x1f]")


def escape(text: str) -> str:
    """Percent-encode the characters that the text form gives a meaning to."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    return unquote(text)


def format_scope(scope: Scope) -> str:
    """The text form of a scope; `parse_scope` is its inverse."""
    head = f".{scope.source.value}" if scope.relative else scope.source.value
    return f"{head}|{format_frames(scope.frames)}"


def format_frames(frames: tuple[Frame, ...]) -> str:
    """The text form of a stack, without how it is known."""
    return "/".join(map(_format_frame, frames))


def by_identity(shared: Iterable[_T]) -> dict[int, _T]:
    """Identity -> object. Operations of a module call share its frames: to hash these for each would cost most of all.

    The identities are good for as long as the objects are held.
    """
    return {id(one): one for one in shared}


@functools.lru_cache(maxsize=16384)
def _format_frame(frame: Frame) -> str:
    path = f"^{escape(frame.path[1:])}" if frame.path.startswith("^") else escape(frame.path)
    text = f"{escape(frame.class_name)}:{path}"
    return f"{text}@{frame.call}" if frame.call else text


@functools.lru_cache(maxsize=65536)
def parse_scope(text: str) -> Scope:
    """Read the text form.

    Raises:
        ValueError: the text is not the form that `format_scope` writes.
    """
    head, bar, tail = text.partition("|")
    relative = head.startswith(".")
    try:
        source = Source(head.removeprefix("."))
        frames = _parse_frames(tail) if tail else ()
    except ValueError as error:
        raise ValueError(f"not a scope: {text!r} (expected source|class:path@call/...): {error}") from error
    if not bar or not (frames or relative):
        raise ValueError(f"not a scope: {text!r} (expected source|class:path@call/...)")
    return Scope(frames, source, relative)


def parse_source(text: str) -> Source:
    """How the scope of this text form is known; the rest of it is not looked at.

    Raises:
        ValueError: there is no such source.
    """
    return Source(text.partition("|")[0].removeprefix("."))


@functools.lru_cache(maxsize=65536)
def _parse_frames(text: str) -> tuple[Frame, ...]:
    # The calls in one have its frames: these are read once for all.
    above, slash, last = text.rpartition("/")
    frame = _parse_frame(last)
    return (*_parse_frames(above), frame) if slash else (frame,)


@functools.lru_cache(maxsize=16384)
def _parse_frame(text: str) -> Frame:
    class_name, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"frame {text!r} has no ':'")
    path, _, call = rest.partition("@")
    return Frame(unescape(path), unescape(class_name), int(call) if call else 0)


# --- on nodes ------------------------------------------------------------------------------------------------------


def scope_of(node: ir.Node) -> Scope | None:
    """The scope that a node carries, or None where it is unknown.

    A node inside a function body carries a relative scope (`Scope.relative`).
    """
    text = node.metadata_props.get(SCOPE_KEY)
    return None if text is None else parse_scope(text)


def scopes_of(nodes: Iterable[ir.Node]) -> list[Scope | None]:
    """`scope_of` each, in half of the time."""
    known: dict[str | None, Scope | None] = {None: None}
    scopes: list[Scope | None] = []
    before: str | None = None  # operations of a call stand together, and most share the text
    scope: Scope | None = None
    for metadata in map(metadata_of, nodes):
        text = None if metadata is None else metadata.get(SCOPE_KEY)
        if text is not before:
            before = text
            if text not in known:
                known[text] = parse_scope(str(text))
            scope = known[text]
        scopes.append(scope)
    return scopes


def set_scope(node: ir.Node, scope: Scope | None) -> None:
    """Write a node's scope; None removes it."""
    if scope is None:
        node.metadata_props.pop(SCOPE_KEY, None)
    else:
        node.metadata_props[SCOPE_KEY] = format_scope(scope)
