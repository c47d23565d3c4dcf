"""Types and shapes that onnx's inference finds, of sequences and optionals too."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from modelexport_passes.scopes.copying import copy_model

_READ_LIMIT = 1024
"""Bytes of the largest initializer that inference is given: shapes and axes are smaller, weights need not be read."""


def infer_types(model: ir.Model) -> None:
    """Give values the types and shapes that inference finds; what it cannot tell stays unknown.

    `onnx_ir.passes.common.ShapeInferencePass` takes the element type alone, and makes a tensor of every sequence.

    Visits: main graph, subgraphs, functions.
    """
    light = copy_model(model)
    for value in list(light.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > _READ_LIMIT:
            if tensor is not None:
                value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            del light.graph.initializers[str(value.name)]
            if not value.is_graph_input():
                light.graph.inputs.append(value)
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(light), data_prop=True)
    except onnx.shape_inference.InferenceError:
        return  # who needs a type says which one is not known
    for graph, inferred in zip(model.graphs(), ir.from_proto(proto).graphs(), strict=True):
        known = {value.name: value for value in _values(inferred)}
        for value in _values(graph):
            found = known.get(value.name)
            if found is not None:
                value.type = found.type or value.type
                value.shape = value.shape if found.shape is None else found.shape.copy()


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
