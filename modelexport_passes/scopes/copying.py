"""A node once more, with other inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelexport_passes.fast_nodes import own_type


def copy_node(node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Node:
    """A copy of a node that reads these values; names, metadata and what is known of its outputs are the same.

    Attributes are shared, and so would be the bodies among them: the node may own none.
    """
    copy = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.values(),
        overload=node.overload,
        num_outputs=len(node.outputs),
        version=node.version,
        name=node.name,
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    for value, made in zip(node.outputs, copy.outputs, strict=True):
        copy_facts(value, made)
    return copy


def copy_facts(value: ir.Value, copy: ir.Value) -> None:
    """Let a value have the name of another, and a type and shape of its own that are the same."""
    copy.name, copy.type = value.name, own_type(value.type)
    copy.shape = None if value.shape is None else value.shape.copy()
