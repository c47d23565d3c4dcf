"""A node once more, with other inputs, and a whole model once more."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import own_shape, own_type


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
    copy.shape = own_shape(value.shape)


def copy_model(model: ir.Model) -> ir.Model:
    """A copy of a model with the same tensors.

    onnx_ir copies only graphs that are in order, and onnxruntime takes others: such a model is put in order first.

    Raises:
        ModelExportError: there is no order.
    """
    try:
        return model.clone()
    except RuntimeError:  # whatever went wrong; this may be why
        try:
            for graph in (model.graph, *(function.graph for function in model.functions.values())):
                graph.sort()
        except ValueError as circle:
            raise ModelExportError("operations of the model depend on each other in a circle") from circle
        return model.clone()
