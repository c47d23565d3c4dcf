"""Scopes from the metadata that onnxscript's graph builder writes (``onnxscript.nn``, ``GraphBuilder.push_module``).

``pkg.onnxscript.name_scopes`` and ``pkg.onnxscript.class_hierarchy`` are Python ``repr`` of two parallel lists, root
first. Unlike torch's they hold modules only, and a name is the attribute in the module before, not the whole path::

    ['', 'layers.0', 'lin']    ['Net', 'Block', 'Linear']

A model that was given a name of its own has it first, as its parameters have (``model.layers.0.lin.weight``); it is
then a module below a root that nobody knows.
"""

from __future__ import annotations

import functools

import onnx_ir as ir

from modelexport_passes.scopes.parameters import literal_list
from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame

NAME_SCOPES = "pkg.onnxscript.name_scopes"
CLASS_HIERARCHY = "pkg.onnxscript.class_hierarchy"


def frames_from_builder(node: ir.Node) -> tuple[Frame, ...]:
    """The modules that the builder's metadata on the node tells, root first, each with call 0. Empty if none are told.

    An operation that was built outside of any module is told none: that is not the root.
    """
    metadata = node.metadata_props
    names, classes = metadata.get(NAME_SCOPES), metadata.get(CLASS_HIERARCHY)
    return () if names is None or classes is None else _frames(names, classes)


@functools.lru_cache(maxsize=16384)
def _frames(names: str, classes: str) -> tuple[Frame, ...]:
    attributes, class_names = literal_list(names), literal_list(classes)
    if len(attributes) != len(class_names) or not attributes:
        return ()
    frames = [] if not attributes[0] else [Frame("")]
    path = ""
    for attribute, class_name in zip(attributes, class_names, strict=True):
        path = f"{path}.{attribute}" if path and attribute else path or attribute
        frames.append(Frame(path, class_name or UNKNOWN_CLASS))
    return tuple(frames)
