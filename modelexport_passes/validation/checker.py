"""``onnx.checker`` with strict shape inference, on models of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference
import onnx_ir as ir

from modelexport_passes.exporting.saving import to_proto
from modelexport_passes.exporting.weights import bytes_of, extent_of, initializers, is_external
from modelexport_passes.fast_nodes import initializers_of
from modelexport_passes.inlining.inline import inline
from modelexport_passes.scopes.copying import copy_model
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.problem import Problem

_SMALL = 1024
"""Larger weights are not needed to infer a shape."""


def run_checker(model: ir.Model) -> list[Problem]:
    """Run the ONNX checker with full type and shape inference, strict: an inference that fails is a problem.

    Large weights take part as inputs of the same type and shape, so the size of the model does not matter and no data
    is read; that their data is there is `modelexport_passes.validation.structure`'s to check.

    Of operators without a schema, those of vendors, inference learns the types from what values say themselves, and it
    does not ask the values in functions. Where there are such operators, the model that it refuses is tried once more
    with all functions written out: if that is sound, what inference could not see through is told, and is no fault.
    """
    fault = _fault(model)
    if fault is None:
        return []
    opaque = _without_schema(model)
    # Structure alone is asked of the model as it is: a function that nothing calls is gone when all are written out.
    if opaque and _fault(model, full=False) is None and _fault(_written_out(model)) is None:
        return [Problem("onnx-checker", "the model", f"onnx knows no types behind {', '.join(opaque)}", fatal=False)]
    return [Problem("onnx-checker", "the model", fault)]


def _fault(model: ir.Model, *, full: bool = True) -> str | None:
    # As bytes, which is what the checker makes of it: the protobuf's own memory is free then.
    data = _without_weights(model).SerializeToString()
    try:
        onnx.checker.check_model(data, full_check=full)  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return _in_one_line(error)
    return None


def _without_schema(model: ir.Model) -> list[str]:
    """The operators in functions that onnx has no schema for."""
    found = {
        f"{node.domain}::{node.op_type}"
        for function in model.functions.values()
        for node in owned_nodes(function)
        if node.op_identifier() not in model.functions and not onnx.defs.has(node.op_type, node.domain)
    }
    return sorted(found)


def _written_out(model: ir.Model) -> ir.Model:
    flat = copy_model(model)
    inline(flat, lambda _: True)
    # Beside an operator without a schema onnx overlooks faults of shape: what is known of its outputs stands for it.
    for node in list(flat.graph):
        known = all(value.type is not None for value in node.outputs)
        if known and not onnx.defs.has(node.op_type, node.domain):
            for value in node.outputs:
                given = ir.Value(name=value.name, type=value.type, shape=value.shape)
                flat.graph.inputs.append(given)
                value.replace_all_uses_with(given, replace_graph_outputs=True)
            flat.graph.remove(node)
    return flat


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    large = [value for value in initializers_of(model.graph) if _is_large(value)]
    placeholders = list(zip(large, _placeholders(large), strict=True))
    in_bodies = [value for value in initializers(model) if value.graph is not model.graph]
    # A body has no inputs to turn weights into. They are rarely large; those on disk are read for the moment.
    loaded = [
        (value, ir.tensor(value.const_value.numpy(), name=value.name))
        for value in in_bodies
        if is_external(value.const_value)
    ]
    proto = to_proto(model, [*placeholders, *loaded])
    _make_inputs(proto.graph)
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")  # inference copies a body for each call: with all that it says
    return proto


def _make_inputs(graph: onnx.GraphProto) -> None:
    """Turn initializers whose data is elsewhere into inputs, but for those that are inputs already."""
    declared = {value.name for value in graph.input}
    types: dict[tuple[int, ...], onnx.TypeProto] = {}
    kept: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in declared:
            kind, *sizes = key = (tensor.data_type, *tensor.dims)
            if key not in types:  # models have few different ones
                types[key] = onnx.helper.make_tensor_type_proto(kind, sizes)
            graph.input.add(name=tensor.name, type=types[key])
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None:
        return False
    return bytes_of(tensor) > _SMALL or (is_external(tensor) and tensor.dtype is not ir.DataType.STRING)


def _placeholders(values: Iterable[ir.Value]) -> Iterator[ir.ExternalTensor]:
    """For each of these initializers a tensor without data; one of all that are of one type and shape."""
    known: dict[object, ir.ExternalTensor] = {}
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        extent = extent_of(tensor)
        if extent not in known:
            shape = ir.Shape(tensor.shape.numpy())
            known[extent] = ir.ExternalTensor("weights", 0, 0, tensor.dtype, shape=shape, name="")
        yield known[extent]


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__
