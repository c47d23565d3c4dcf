"""Scopes from the metadata that torch's dynamo exporter writes on nodes.

``pkg.torch.onnx.name_scopes`` and ``pkg.torch.onnx.class_hierarchy`` are Python ``repr`` of two parallel lists, root
first. Their last entry is the fx node and its operator, not a module. Fewer than two names mean "no module stack",
which is not the root: the root is ``['', 'add']``. The file does not tell calls of one module apart.
"""

from __future__ import annotations

import ast
import functools
from typing import cast

import onnx_ir as ir

from modelexport_passes.scopes.scope import Frame, Scope, Source

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
CLASS_HIERARCHY = "pkg.torch.onnx.class_hierarchy"
_STRICT_ROOT = "_export_root"


def module_path(path: str) -> str:
    """A path without the prefix that ``torch.export(strict=True)`` puts before the model."""
    if path == _STRICT_ROOT:
        return ""
    return path.removeprefix(_STRICT_ROOT + ".")


def fx_node_name(node: ir.Node) -> str | None:
    """The fx node that this node was translated from, if the exporter says so."""
    text = node.metadata_props.get(NAME_SCOPES)
    return None if text is None else _split_last(text)[1]


def scope_from_metadata(node: ir.Node) -> Scope | None:
    """What torch's metadata on the node tells, or None. Every frame gets call 0: the file has no call index."""
    names = node.metadata_props.get(NAME_SCOPES)
    classes = node.metadata_props.get(CLASS_HIERARCHY)
    if names is None or classes is None:
        return None
    frames = _frames(_split_last(names)[0], _split_last(classes)[0])
    return Scope(frames, Source.METADATA) if frames else None


@functools.lru_cache(maxsize=16384)
def _frames(names: str, classes: str) -> tuple[Frame, ...]:
    paths = _read_list(names)
    class_names = _read_list(classes)
    if len(paths) != len(class_names):
        return ()
    return tuple(Frame(module_path(path), name) for path, name in zip(paths, class_names, strict=True))


def _split_last(text: str) -> tuple[str, str | None]:
    """The list's text without its last item, and that item. The head is shared by all operations of a module call."""
    if text.startswith("['") and text.endswith("']") and '"' not in text and "\\" not in text:
        head, comma, last = text[2:-2].rpartition("', '")
        return (f"['{head}']" if comma else "[]"), last
    items = _literal(text)
    return repr(items[:-1]), items[-1] if items else None


def _read_list(text: str) -> list[str]:
    return [] if text == "[]" else _literal(text)


def _literal(text: str) -> list[str]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else []
