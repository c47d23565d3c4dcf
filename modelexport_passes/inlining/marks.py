"""Scope and tags of the operations of a body at a call, as texts put together.

At each call they are the same texts but for two things: what the call's own scope is, and the path of its module, which
the paths of all modules below begin with. So they are looked up once, at a call of a module with a path that nothing
else is like, and cut there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, escape, format_frames, format_scope
from modelexport_passes.scopes.tags import DEFAULT_TEMPLATE, render_tag, tags_of_scope

_PATH = "\ue000"  # no name of a module: a character that is nobody's
SAMPLE = Scope((Frame(_PATH),))
"""The scope of a call, as an example."""


class Around(NamedTuple):
    """What is particular to a call: the texts of its frames, its tag and its module's path."""

    frames: str
    tag: str
    path: str


def around(call: Scope | None) -> Around | None:
    """The texts of a call; None if those of its operations are not like those of the example.

    The example has a path, of which nothing that begins with it needs a mark.
    """
    if call is None or call.relative or not call.path or call.path.startswith("^"):
        return None
    return Around(format_frames(call.frames), render_tag(call), escape(call.path))


class Marks(NamedTuple):
    """The metadata that tells scope and tags: for each key what is before the call's text, and the parts behind that.

    Between the parts stands the path of the call's module.
    """

    scope: tuple[str, tuple[str, ...]]
    tags: tuple[tuple[str, tuple[str, ...]], ...]

    def at(self, call: Around) -> dict[str, str]:
        """The metadata at a call."""
        before, parts = self.scope
        found = {SCOPE_KEY: f"{before}{call.frames}{call.path.join(parts)}"}
        for key, parts in self.tags:
            found[key] = f"{call.tag}{call.path.join(parts)}"
        return found


def told_by(scope: Scope, tags: Mapping[str, str]) -> dict[str, str]:
    """The metadata that tells a scope and its tags; ``tags`` are the templates by key."""
    return {SCOPE_KEY: format_scope(scope), **tags_of_scope(scope, tags)}


def marks_of(scope: Scope | None, tags: Mapping[str, str]) -> Marks | None:
    """The marks of operations which have this scope at the example; None if they may not be so at other calls.

    Args:
        scope: the scope.
        tags: key -> template of the tags that operations carry.
    """
    if scope is None or scope.frames[:1] != SAMPLE.frames or set(tags.values()) - {DEFAULT_TEMPLATE}:
        return None
    if not all(frame.path.startswith(_PATH) for frame in scope.frames):
        return None  # the path of a module elsewhere: what it looks like may depend on where the call is
    source, tag = scope.source.value, render_tag(scope)
    head, first = f"{source}|", format_frames(SAMPLE.frames)
    text = format_scope(scope)[len(head) + len(first) :]
    parts = tuple(tag[len(render_tag(SAMPLE)) :].split(_PATH))
    return Marks((head, tuple(text.split(_PATH))), tuple((key, parts) for key in tags))
