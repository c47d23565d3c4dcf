"""Making another module the root: dropping the frames of a wrapper, in scopes that already stand."""

from __future__ import annotations

import onnx_ir as ir

from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of, set_scope
from modelexport_passes.scopes.walk import owned_nodes


def drop_wrapper(model: ir.Model, root: str) -> int:
    """Take the module at path ``root`` as the root of all scopes. Returns how many scopes changed.

    Frames above it go, and paths below it lose the prefix. The wrapper's own operations belong to no module below it:
    they are given to the new root, as `Source.INHERITED`.
    """
    changed = 0
    new_root: Frame | None = None
    outside: list[ir.Node] = []
    for node in owned_nodes(model.graph):
        scope = scope_of(node)
        if scope is None:
            continue
        frames = _below(scope.frames, root)
        if frames:
            new_root = new_root or frames[0]._replace(call=0)
            set_scope(node, Scope(frames, scope.source))
            changed += 1
        else:
            outside.append(node)
    for node in outside:
        set_scope(node, Scope((new_root,), Source.INHERITED) if new_root is not None else None)
        changed += 1
    return changed


def _below(frames: tuple[Frame, ...], root: str) -> tuple[Frame, ...]:
    for depth, frame in enumerate(frames):
        if frame.path == root:
            return tuple(
                below._replace(
                    path=below.path.removeprefix(root).removeprefix(".")
                    if _inside(below.path, root)
                    else f"^{below.path}"
                )
                for below in frames[depth:]
            )
    return ()


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root + ".")
