"""The canonical form of an operation: equal exactly when two operations do the same to the same kind of inputs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable, Sequence

import onnx_ir as ir

from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.scopes.walk import captures_of

Key = Hashable


def operator_key(op: Op, *, constant_value: bool) -> Key:
    """Operator, attributes, number of outputs. Without ``constant_value`` a Constant is its dtype and shape alone."""
    node = op.node
    if not constant_value and is_constant(op):
        return ("", "Constant", *constant_key(op)[:-1])
    return (*node.op_identifier(), attributes_key(node, op.captured), len(node.outputs))


def is_constant(op: Op) -> bool:
    """A Constant of onnx's own domain."""
    return op.node.op_type == "Constant" and op.node.domain in ("", "ai.onnx")


def constant_key(op: Op) -> tuple[Key, ...]:
    """Which attribute holds a Constant, its dtype and shape, and last its content."""
    ((name, attribute),) = op.node.attributes.items()
    if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        many = attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)
        length = len(attribute.value) if many and not attribute.is_ref() else None
        return (name, length, _attribute_value(attribute, {}))
    # Not as_tensor(): it checks a runtime protocol, which costs more than all the rest here.
    return (name, *tensor_key(attribute.value))


Kind = tuple["ir.DataType | None", "int | None"]
"""Dtype and rank of a value, None where unknown."""


def kind_of(wire: Wire) -> Kind:
    """What a shared body may rely on of a value from outside."""
    value = wire.value
    return (value.dtype, None if value.shape is None else value.shape.rank())


def common_kinds(first: Sequence[Kind], second: Sequence[Kind]) -> list[Kind] | None:
    """What is known of values that are both; None if two known facts contradict each other."""
    common: list[Kind] = []
    for (dtype, rank), (other_dtype, other_rank) in zip(first, second, strict=True):
        if None not in (dtype, other_dtype) and dtype != other_dtype:
            return None
        if None not in (rank, other_rank) and rank != other_rank:
            return None
        common.append((dtype if other_dtype is None else other_dtype, rank if other_rank is None else other_rank))
    return common


def attributes_key(node: ir.Node, captured: Sequence[ir.Value] | None = None) -> Key:
    """Attributes by name, whatever their order; ``captured`` is `captures_of` the node, if known."""
    attributes = node.attributes
    if not attributes:
        return ()
    captures = {value: at for at, value in enumerate(captures_of(node) if captured is None else captured)}
    return tuple(
        (name, attribute.type, _attribute_value(attribute, captures)) for name, attribute in sorted(attributes.items())
    )


def _attribute_value(attribute: ir.Attr, captures: dict[ir.Value, int]) -> Key:
    if attribute.is_ref():
        return ("reference", attribute.ref_attr_name)
    value = attribute.value
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return tensor_key(value)
        case ir.AttributeType.TENSORS:
            return tuple(tensor_key(tensor) for tensor in value)
        case ir.AttributeType.GRAPH:
            return _graph_key(value, dict(captures))
        case ir.AttributeType.GRAPHS:
            return tuple(_graph_key(graph, dict(captures)) for graph in value)
        case ir.AttributeType.FLOAT:
            return _float32(value)
        case ir.AttributeType.FLOATS:
            return tuple(_float32(item) for item in value)
        case ir.AttributeType.INTS | ir.AttributeType.STRINGS:
            return tuple(value)
        case ir.AttributeType.INT | ir.AttributeType.STRING:
            return value
        case _:
            return repr(value)


def _float32(value: float) -> bytes:
    """A float attribute as the file holds it: bits of a 32-bit float, so that -0.0 and NaN compare as themselves."""
    return struct.pack("<f", value)


def tensor_key(tensor: ir.TensorProtocol) -> tuple[Key, ...]:
    """Dtype, shape and content."""
    data = tensor.tobytes()
    content = data if len(data) <= 64 else hashlib.sha256(data).digest()
    return (tensor.dtype, tuple(tensor.shape.numpy()), content)


def _graph_key(graph: ir.Graph, numbers: dict[ir.Value, int]) -> Key:
    """A body: its values numbered in order, values from outside by their place among the captures."""
    inputs = [_number(value, numbers) for value in graph.inputs]
    initializers = [
        (_number(value, numbers), None if value.const_value is None else tensor_key(value.const_value))
        for value in graph.initializers.values()
    ]
    nodes: list[Key] = []
    for node in graph:
        ins = tuple(None if value is None else _number(value, numbers) for value in node.inputs)
        attributes = tuple(
            (name, attribute.type, _attribute_value(attribute, numbers))
            for name, attribute in sorted(node.attributes.items())
        )
        outs = tuple(_number(value, numbers) for value in node.outputs)
        nodes.append((*node.op_identifier(), attributes, ins, outs))
    outputs = _numbers(graph.outputs, numbers)
    types = tuple((value.dtype, None if value.shape is None else value.shape.rank()) for value in graph.inputs)
    return (tuple(inputs), types, tuple(initializers), tuple(nodes), outputs)


def _number(value: ir.Value, numbers: dict[ir.Value, int]) -> int:
    return numbers.setdefault(value, len(numbers))


def _numbers(values: Sequence[ir.Value], numbers: dict[ir.Value, int]) -> tuple[int, ...]:
    return tuple(_number(value, numbers) for value in values)
