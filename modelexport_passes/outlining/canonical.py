"""The canonical form of an operation: equal exactly when two operations do the same to the same kind of inputs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.weights import extent_of
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.scopes.walk import captures_of

Key = Hashable


def operator_key(op: Op, *, constant_value: bool, plain_values: bool = True) -> Key:
    """Operator, attributes, number of outputs.

    Without ``constant_value`` a Constant is its dtype and shape alone; without ``plain_values`` an attribute that is a
    number, a text or a list of these is its type alone.
    """
    node = op.node
    if not node.attributes.data:
        return (node.domain, node.op_type, node.overload, (), len(node.outputs))
    if not constant_value and is_constant(op):
        return ("", "Constant", constant_kind(op))
    if plain_values or op.has_bodies or is_constant(op):
        attributes = attributes_key(node, op.captured)
    else:
        attributes = tuple(
            (name, attribute.type, plain_value(attribute) is not None or _attribute_value(attribute, {}))
            for name, attribute in sorted(node.attributes.items())
        )
    return (node.domain, node.op_type, node.overload, attributes, len(node.outputs))


def is_constant(op: Op) -> bool:
    """A Constant of onnx's own domain."""
    return op.node.op_type == "Constant" and op.node.domain == ""


def constant_kind(op: Op) -> Key:
    """Which attribute holds a Constant, its dtype and shape."""
    name, attribute = _constant_attribute(op)
    if attribute.type == _TENSOR and not attribute.is_ref():
        return (name, *_tensor_kind(attribute.value))
    return (name, len(attribute.value) if attribute.type in _LISTS and not attribute.is_ref() else None)


def constant_content(op: Op) -> Key:
    """What a Constant of some kind holds."""
    _, attribute = _constant_attribute(op)
    if attribute.type == _TENSOR and not attribute.is_ref():
        return _tensor_content(attribute.value)
    return _attribute_value(attribute, {})


def hold_the_same(constants: Sequence[Op]) -> bool:
    """Whether Constants of one kind hold the same."""
    # What a file says of many is one object in all of them (`exporting.reader`).
    distinct = {id(value): op for op in constants for value in op.node.attributes.data.values()}
    return len(distinct) == 1 or len({constant_content(op) for op in distinct.values()}) == 1


def _constant_attribute(op: Op) -> tuple[str, ir.Attr]:
    ((name, attribute),) = op.node.attributes.data.items()
    return name, attribute


Kind = tuple["ir.DataType | None", "int | None"]
"""Dtype and rank of a value, None where unknown."""


def kind_of(wire: Wire) -> Kind:
    """What a shared body may rely on of a value from outside."""
    value = wire.value
    return (value.dtype, None if value.shape is None else value.shape.rank())


class Kinds(dict[Wire, Kind]):
    """`kind_of` each wire: the calls around a module all pass its weights on. Equal ones are one object."""

    def __init__(self) -> None:
        super().__init__()
        self._distinct: dict[Kind, Kind] = {}

    def __missing__(self, wire: Wire) -> Kind:
        kind = kind_of(wire)
        kind = self[wire] = self._distinct.setdefault(kind, kind)
        return kind


def weight_kind(wire: Wire) -> Key:
    """Dtype and shape of a weight; None for what is none."""
    value = wire.value
    return (value.dtype, None if value.shape is None else tuple(value.shape)) if wire.is_weight else None


def common_kinds(first: Sequence[Kind], second: Sequence[Kind]) -> list[Kind] | None:
    """What is known of values that are both; None if two known facts contradict each other."""
    if first == second:
        return [*first]
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
    attributes = node.attributes.data
    captures = {value: at for at, value in enumerate(captures_of(node) if captured is None else captured)}
    return tuple(
        [
            (name, attribute.type, _attribute_value(attribute, captures))
            for name, attribute in sorted(attributes.items())
        ]
    )


def _attribute_value(attribute: ir.Attr, captures: dict[ir.Value, int]) -> Key:
    if attribute.is_ref():
        return ("reference", attribute.ref_attr_name)
    kind, value = attribute.type, attribute.value
    if kind in _AS_THEY_ARE:
        return value
    if kind in _VALUE_KEYS:
        return _VALUE_KEYS[kind](value)
    if kind == ir.AttributeType.GRAPH:
        return _graph_key(value, dict(captures))
    if kind == ir.AttributeType.GRAPHS:
        return tuple(_graph_key(graph, dict(captures)) for graph in value)
    return repr(value)


def plain_value(attribute: ir.Attr) -> Key | None:
    """Type and value of an attribute that is a number, a text or a list of these; None for any other."""
    if attribute.is_ref() or attribute.type not in _PLAIN:
        return None
    return (attribute.type, _attribute_value(attribute, {}))


def _float32(value: float) -> bytes:
    """A float attribute as the file holds it: bits of a 32-bit float, so that -0.0 and NaN compare as themselves."""
    return struct.pack("<f", value)


def tensor_key(tensor: ir.TensorProtocol) -> tuple[Key, ...]:
    """Dtype, shape and content."""
    return (*_tensor_kind(tensor), _tensor_content(tensor))


def _tensor_kind(tensor: ir.TensorProtocol) -> tuple[Key, ...]:
    return extent_of(tensor)


def _tensor_content(tensor: ir.TensorProtocol) -> Key:
    if tensor.dtype is ir.DataType.STRING:  # has no bytes of one length
        return tuple(tensor.numpy().ravel().tolist())
    data = tensor.tobytes()
    return data if len(data) <= 64 else hashlib.sha256(data).digest()


_TENSOR = ir.AttributeType.TENSOR
_LISTS = frozenset({ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS})
_PLAIN = frozenset({*_LISTS, ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING})
_AS_THEY_ARE = frozenset({ir.AttributeType.INT, ir.AttributeType.STRING})
_VALUE_KEYS: dict[ir.AttributeType, Callable[[Any], Key]] = {
    ir.AttributeType.INTS: tuple,
    ir.AttributeType.STRINGS: tuple,
    ir.AttributeType.FLOAT: _float32,
    ir.AttributeType.FLOATS: lambda value: tuple(map(_float32, value)),
    ir.AttributeType.TENSOR: tensor_key,
    ir.AttributeType.TENSORS: lambda value: tuple(map(tensor_key, value)),
}


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
