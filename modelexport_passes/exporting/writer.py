"""``onnx_ir`` to the bytes of a file: in a third of the time that it takes by way of protobuf's objects.

Only the nodes of the main graph and what is known of their results are written here, which is nearly all of a large
file. Everything else (attributes, types, initializers, functions, the model itself) is onnx_ir's own serialization, put
in its place; each attribute and each type that several share is serialized once. What is out of the common is not
written here at all: `Uncommon` is raised, and the model is left to ``onnx_ir.to_proto``.

Fields stand in the order of their numbers, as protobuf writes them, so the bytes are those of ``onnx_ir.to_proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir import serde

from modelexport_passes.exporting.reader import Uncommon

_FUNCTION_TYPES_VERSION = 10
"""Before this IR version the types of values in functions are written, by custom, into the main graph."""

# One call for all that is read of an object. What nobody has looked at is None here, where the properties would make an
# empty one for each of a million values.
_of_node = attrgetter(
    "_inputs", "_outputs", "_name", "_op_type", "_attributes", "doc_string", "_domain", "_overload", "_metadata_props",
    "device_configurations",
)  # fmt: skip
_of_value = attrgetter("_name", "_type", "_shape", "doc_string", "_metadata_props", "_metadata", "_is_graph_output")

_NAME = b"\x0a"  # field 1: an input of a node, the name of a value
_NODE_OUTPUT, _NODE_NAME, _OP_TYPE, _ATTRIBUTE, _NODE_DOC, _DOMAIN, _OVERLOAD, _NODE_METADATA = (
    bytes([number << 3 | 2]) for number in range(2, 10)
)
_VALUE_TYPE, _VALUE_DOC, _VALUE_METADATA = (bytes([number << 3 | 2]) for number in range(2, 5))
_KEY, _VALUE = (bytes([number << 3 | 2]) for number in range(1, 3))
_GRAPH_NODE, _GRAPH_VALUE = bytes([1 << 3 | 2]), bytes([13 << 3 | 2])
_MODEL_GRAPH = bytes([7 << 3 | 2])


def model_bytes(model: ir.Model) -> list[bytes]:
    """What ``onnx_ir.to_proto(model).SerializeToString(deterministic=True)`` gives, in pieces.

    Raises:
        Uncommon: the model holds something that only onnx_ir writes, or is not valid.
    """
    if model.ir_version < _FUNCTION_TYPES_VERSION and model.functions:
        raise Uncommon
    graph = model.graph
    rest = serde.serialize_model(_without_nodes(model))
    if rest.graph.quantization_annotation:
        raise Uncommon
    nodes, infos = _Writer().nodes(graph)
    tail = onnx.GraphProto(metadata_props=rest.graph.metadata_props)
    rest.graph.ClearField("metadata_props")
    behind = onnx.ModelProto(
        opset_import=rest.opset_import,
        metadata_props=rest.metadata_props,
        functions=rest.functions,
        configuration=rest.configuration,
    )
    parts = [*nodes, _bytes(rest.graph), *infos, _bytes(tail)]
    for field in ("graph", "opset_import", "metadata_props", "functions", "configuration"):
        rest.ClearField(field)
    length = sum(map(len, parts))
    return [_bytes(rest), _MODEL_GRAPH, _varint(length), *parts, _bytes(behind)]


def _without_nodes(model: ir.Model) -> ir.Model:
    """The model's all, but for the nodes of its main graph."""
    graph = model.graph
    view = ir.GraphView(
        graph.inputs,
        graph.outputs,
        nodes=(),
        initializers=tuple(graph.initializers.values()),
        doc_string=graph.doc_string,
        opset_imports=graph.opset_imports,
        name=graph.name,
        metadata_props=graph.metadata_props,
    )
    return ir.Model(
        view,  # pyright: ignore[reportArgumentType] - onnx_ir documents that a view can be a model's graph
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=tuple(model.functions.values()),
        metadata_props=model.metadata_props,
        device_configurations=model.device_configurations,
    )


class _Writer:
    """Writes nodes and values; what it has written once it knows."""

    def __init__(self) -> None:
        self._names: dict[str, bytes] = {"": _NAME + b"\0"}
        self._texts: dict[str, bytes] = {}
        self._attributes: dict[int, bytes] = {}
        self._types: dict[tuple[ir.DataType, int], bytes] = {}
        self._metadata: dict[tuple[bytes, tuple[tuple[str, str], ...]], bytes] = {}

    def nodes(self, graph: ir.Graph) -> tuple[list[bytes], list[bytes]]:
        """The fields of a graph that hold its nodes, and those that hold what is known of their outputs."""
        nodes: list[bytes] = []
        infos: list[bytes] = []
        try:
            for node in graph:
                data = self._node(node)
                nodes += (_GRAPH_NODE, _varint(len(data)), data)
                for value in node.outputs:
                    data = self._info(value)
                    if data:
                        infos += (_GRAPH_VALUE, _varint(len(data)), data)
        except (AttributeError, TypeError, ValueError, serde.SerdeError) as error:
            raise Uncommon from error  # not a valid model: onnx_ir says why
        return nodes, infos

    def _node(self, node: ir.Node) -> bytes:
        inputs, outputs, name, op_type, attributes, doc_string, domain, overload, metadata, devices = _of_node(node)
        if devices:
            raise Uncommon
        names = self._names
        parts: list[bytes] = []
        for value in inputs:
            read = "" if value is None else value.name
            parts.append(names.get(read) or self._named(read))
        made = [value.name for value in outputs]
        while made and not made[-1]:
            made.pop()  # outputs at the end that are left out
        for output in made:
            parts += (_NODE_OUTPUT, (names.get(output) or self._named(output))[1:])
        if name:
            parts += (_NODE_NAME, _with_length(name.encode()))
        parts += (_OP_TYPE, self._text(op_type))
        for attribute in attributes.data.values():
            parts += (_ATTRIBUTE, self._attribute(attribute))
        if doc_string:
            parts += (_NODE_DOC, self._text(doc_string))
        if domain:
            parts += (_DOMAIN, self._text(domain))
        if overload:
            parts += (_OVERLOAD, self._text(overload))
        if metadata:
            parts.append(self._metadata_fields(metadata, _NODE_METADATA))
        return b"".join(parts)

    def _info(self, value: ir.Value) -> bytes:
        """What the graph says of a value that a node makes; empty if nothing."""
        name, kind, shape, doc_string, metadata, notes, is_graph_output = _of_value(value)
        if notes:
            raise Uncommon  # a quantization annotation may be among them
        if is_graph_output or not name or (kind is None and shape is None and not metadata and not doc_string):
            return b""
        parts = [self._names[name]]
        if kind is not None:
            parts += (_VALUE_TYPE, self._type(value, kind, shape))
        if doc_string:
            parts += (_VALUE_DOC, self._text(doc_string))
        if metadata:
            parts.append(self._metadata_fields(metadata, _VALUE_METADATA))
        return b"".join(parts)

    def _named(self, name: str) -> bytes:
        self._names[name] = field = _NAME + _with_length(name.encode())
        return field

    def _type(self, value: ir.Value, kind: ir.TypeProtocol, shape: ir.Shape | None) -> bytes:
        if type(kind) is not ir.TensorType or kind.denotation:
            return _with_length(_bytes(serde.serialize_value(value).type))
        key = kind.dtype, id(shape)  # by identity: it is alive and does not change meanwhile
        known = self._types.get(key)
        if known is None:
            known = self._types[key] = _with_length(_bytes(serde.serialize_value(value).type))
        return known

    def _attribute(self, attribute: ir.Attr) -> bytes:
        key = id(attribute)  # as with shapes
        known = self._attributes.get(key)
        if known is None:
            known = self._attributes[key] = _with_length(_bytes(ir.to_proto(attribute)))
        return known

    def _metadata_fields(self, entries: Mapping[str, str], field: bytes) -> bytes:
        key = field, tuple(entries.items())
        known = self._metadata.get(key)
        if known is None:
            written = [_with_length(_KEY + self._text(k) + _VALUE + self._text(v)) for k, v in sorted(key[1])]
            known = self._metadata[key] = b"".join([field + entry for entry in written])
        return known

    def _text(self, text: str) -> bytes:
        known = self._texts.get(text)
        if known is None:
            known = self._texts[text] = _with_length(text.encode())
        return known


def _bytes(proto: Any) -> bytes:
    return proto.SerializeToString(deterministic=True)


def _with_length(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    if number < 128:
        return _SMALL[number]
    groups: list[int] = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


_SMALL = [bytes([number]) for number in range(128)]
