"""Origins: of a fused operation, the scopes of the operations that it was made from.

Kept on the node under `ORIGINS_KEY`, as JSON: the origins relative to the module call that all of them lie in, and how
many frames of the node's own scope lie below that call::

    {"up": 1, "scopes": [".export|m.Conv2d:conv", ".export|m.BatchNorm2d:norm"]}

Relative, so that the entry stays right where an operation moves into the body of a function, and out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.relative import to_absolute, to_relative
from modelexport_passes.scopes.scope import Frame, Scope, common_frames, format_scope, parse_scope, scope_of

ORIGINS_KEY = "pkg.modelexport_passes.origins"
"""Metadata key of the origins of a fused operation."""


def format_origins(scope: Scope, origins: Sequence[Scope]) -> str | None:
    """The text form of the origins of an operation with this scope; None if they are of one module call only.

    ``scope`` must lie in the module call that all origins share.
    """
    stacks = list(dict.fromkeys(origin.frames for origin in origins))
    if len(stacks) < 2:
        return None
    common = common_frames(stacks)
    assert scope.frames[: len(common)] == common, f"{scope} is not inside the module call that its origins share"
    texts: list[str] = []
    for origin in dict.fromkeys(origins):
        frames = to_relative(origin.frames, common, {}) if common else origin.frames
        assert frames is not None
        texts.append(format_scope(Scope(frames, origin.source, relative=True)))
    return as_text({"up": len(scope.frames) - len(common), "scopes": texts})


def parse_origins(scope: Scope, text: str) -> tuple[Scope, ...]:
    """The inverse of `format_origins`.

    In the body of a function that lies below the call that the origins share, they cannot be told: none are returned
    there, and they are again after inlining.
    """
    entry: Mapping[str, Any] = json.loads(text)
    depth = len(scope.frames) - int(entry["up"])
    if depth < 0:
        return ()
    common: tuple[Frame, ...] = scope.frames[:depth]
    found: list[Scope] = []
    for item in entry["scopes"]:
        origin = parse_scope(item)
        frames = to_absolute(origin.frames, common, {}, inside=scope.relative) if common else origin.frames
        found.append(Scope(frames, origin.source, scope.relative))
    return tuple(found)


def origins_of(node: ir.Node) -> tuple[Scope, ...]:
    """The scopes of what a fused operation was made from; empty for one that is not, or that has no scope."""
    scope, text = scope_of(node), node.metadata_props.get(ORIGINS_KEY)
    return () if scope is None or text is None else parse_origins(scope, text)
