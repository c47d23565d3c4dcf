"""Nodes and values of a protobuf in onnx's own schema, but that what models repeat is left as bytes.

A model says the same of thousands of nodes: the same attributes, types and metadata. As bytes they are told equal by
one look into a table, without an object of protobuf for each of them, which is most of the time that reading takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, cast

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory


class CoarseNode(Protocol):
    """An ``onnx.NodeProto`` whose attributes and metadata are the bytes of these."""

    input: Sequence[str]
    output: Sequence[str]
    name: str
    op_type: str
    domain: str
    overload: str
    doc_string: str
    attribute: Sequence[bytes]
    metadata_props: Sequence[bytes]

    def HasField(self, field_name: Literal["device_configurations"], /) -> bool:  # noqa: N802 - protobuf's name
        """Whether there is one at least."""
        ...


class CoarseInfo(Protocol):
    """An ``onnx.ValueInfoProto`` likewise. The parts of its type, joined, are the type: there is one as a rule."""

    name: str
    doc_string: str
    type: Sequence[bytes]
    metadata_props: Sequence[bytes]


class CoarseGraph(Protocol):
    """An ``onnx.GraphProto`` with such nodes and values."""

    node: Sequence[CoarseNode]
    value_info: Sequence[CoarseInfo]


def read_graph(data: bytes) -> CoarseGraph:
    """The graph in these bytes.

    Raises:
        DecodeError: they are none.
    """
    return cast(CoarseGraph, _GRAPH.FromString(data))


def coarse_nodes(protos: Iterable[onnx.NodeProto]) -> list[CoarseNode]:
    """Nodes that are in memory."""
    return [cast(CoarseNode, _NODE.FromString(proto.SerializeToString())) for proto in protos]


def coarse_infos(protos: Iterable[onnx.ValueInfoProto]) -> list[CoarseInfo]:
    """Values that are in memory."""
    return [cast(CoarseInfo, _INFO.FromString(proto.SerializeToString())) for proto in protos]


def coarse_entries(protos: Iterable[onnx.StringStringEntryProto]) -> list[bytes]:
    """Metadata that is in memory."""
    return [proto.SerializeToString() for proto in protos]


_REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_AS_BYTES = {
    ("NodeProto", "attribute"): _REPEATED,
    ("NodeProto", "metadata_props"): _REPEATED,
    ("NodeProto", "device_configurations"): _OPTIONAL,  # to be asked for: which is cheaper than a list that is empty
    ("ValueInfoProto", "type"): _REPEATED,
    ("ValueInfoProto", "metadata_props"): _REPEATED,
}


def _classes() -> tuple[type[message.Message], ...]:
    schema = descriptor_pb2.FileDescriptorProto()
    onnx.NodeProto.DESCRIPTOR.file.CopyToProto(schema)
    for kind in schema.message_type:
        for field in kind.field:
            if (kind.name, field.name) in _AS_BYTES:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                field.label = _AS_BYTES[kind.name, field.name]
                field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(cast(Any, schema))  # takes the message itself, declared or not
    names = [f"{schema.package}.{name}" for name in ("GraphProto", "NodeProto", "ValueInfoProto")]
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)


_GRAPH, _NODE, _INFO = _classes()
