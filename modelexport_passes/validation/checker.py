"""``onnx.checker`` with strict shape inference, on models of any size."""

from __future__ import annotations

import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir

from modelexport_passes.exporting.saving import to_proto
from modelexport_passes.exporting.weights import initializers
from modelexport_passes.validation.problem import Problem

_SMALL = 1024
"""Larger weights are not needed to infer a shape."""


def run_checker(model: ir.Model) -> list[Problem]:
    """Run the ONNX checker with full type and shape inference, strict: an inference that fails is a problem.

    Large weights take part as inputs of the same type and shape, so the size of the model does not matter and no data
    is read; that their data is there is `modelexport_passes.validation.structure`'s to check.
    """
    # As bytes, which is what the checker makes of it: the protobuf's own memory is free then.
    data = _without_weights(model).SerializeToString()
    try:
        onnx.checker.check_model(data, full_check=True)  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [Problem("onnx-checker", "the model", _in_one_line(error))]
    return []


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    main = list(model.graph.initializers.values())
    placeholders = [(value, _placeholder(value)) for value in main if _is_large(value)]
    in_bodies = [value for value in initializers(model) if value.graph is not model.graph]
    # A body has no inputs to turn weights into. They are rarely large; those on disk are read for the moment.
    loaded = [
        (value, ir.tensor(value.const_value.numpy(), name=value.name))
        for value in in_bodies
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    proto = to_proto(model, [*placeholders, *loaded])
    known = {value.name for value in proto.graph.input}
    kept: list[onnx.TensorProto] = []
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in known:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    if len(kept) < len(proto.graph.initializer):
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")  # inference copies a body for each call: with all that it says
    return proto


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype is ir.DataType.STRING:
        return False
    return isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > _SMALL


def _placeholder(value: ir.Value) -> ir.ExternalTensor:
    tensor = value.const_value
    assert tensor is not None
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("weights", 0, 0, tensor.dtype, shape=shape, name=value.name or "")


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__
