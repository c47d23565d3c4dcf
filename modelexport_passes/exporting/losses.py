"""What an ONNX file can hold and ``onnx_ir`` cannot: found in the protobuf before it would be lost in silence.

The kinds, as of onnx_ir 1.1: sparse initializers, training info, opaque and map types, initializers without a name,
attributes without a type, and whatever is declared twice under one name with different contents, of which only the last
would survive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import onnx

_GRAPH = onnx.AttributeProto.GRAPH
_GRAPHS = onnx.AttributeProto.GRAPHS
_SPARSE = frozenset({onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS})
_UNTYPED = onnx.AttributeProto.UNDEFINED
_UNREADABLE_TYPES = {"map_type": "Map", "opaque_type": "Opaque"}


def losses(proto: onnx.ModelProto) -> Iterator[str]:
    """One line for each thing in the file that would not survive being loaded.

    Visits the main graph, subgraphs and functions.
    """
    if proto.training_info:
        yield "training info (it belongs to an older stage of ONNX training)"
    yield from _opsets(proto.opset_import, "opset import")
    yield from _metadata(proto.metadata_props, "model metadata key")
    yield from _repeated(
        (f"{f.domain}::{f.name}{':' if f.overload else ''}{f.overload}" for f in proto.functions), "function"
    )
    yield from _graph_losses(proto.graph, f"graph {proto.graph.name!r}")
    for function in proto.functions:
        where = f"function {function.domain}::{function.name}"
        yield from _opsets(function.opset_import, f"opset import of {where}:")
        yield from _metadata(function.metadata_props, f"metadata key of {where}:")
        yield from _types(function.value_info, where)
        yield from _node_losses(function.node, where)
        yield from _redeclared(function.node, function.input, where)


def _graph_losses(graph: onnx.GraphProto, where: str) -> Iterator[str]:
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        yield f"{len(graph.sparse_initializer)} sparse initializers in {where}, first {name!r}"
    names = [tensor.name for tensor in graph.initializer]
    if "" in names:
        yield f"{names.count('')} initializers without a name in {where}"
    yield from _repeated((name for name in names if name), f"initializer in {where}:")
    yield from _metadata(graph.metadata_props, f"metadata key of {where}:")
    for value in chain(graph.input, graph.output, graph.value_info):
        yield from _metadata(value.metadata_props, f"metadata key of value {value.name!r} in {where}:")
    yield from _types(chain(graph.input, graph.output, graph.value_info), where)
    yield from _node_losses(graph.node, where)
    yield from _redeclared(graph.node, chain({value.name for value in graph.input} | set(names)), where)


def _node_losses(nodes: Iterable[onnx.NodeProto], where: str) -> Iterator[str]:
    for node in nodes:
        yield from _metadata(node.metadata_props, f"metadata key of node {node.name!r} in {where}:")
        for attribute in node.attribute:
            kind = attribute.type
            if kind == _GRAPH:
                yield from _graph_losses(attribute.g, f"{attribute.name} of node {node.name!r}")
            elif kind == _GRAPHS:
                for graph in attribute.graphs:
                    yield from _graph_losses(graph, f"{attribute.name} of node {node.name!r}")
            elif kind in _SPARSE:
                yield f"sparse tensor in attribute {attribute.name!r} of node {node.name!r} in {where}"
            elif kind == _UNTYPED and not attribute.ref_attr_name:
                yield f"attribute {attribute.name!r} of node {node.name!r} in {where} has no type (a file before IR 3?)"


def _redeclared(nodes: Iterable[onnx.NodeProto], declared: Iterable[str], where: str) -> Iterator[str]:
    """A name has one value: a second one takes the users of the first."""
    seen = set(declared)
    for node in nodes:
        for name in node.output:
            if name in seen:
                yield f"value {name!r} in {where} is declared again by node {node.name!r} ({node.op_type})"
            elif name:
                seen.add(name)


def _types(values: Iterable[onnx.ValueInfoProto], where: str) -> Iterator[str]:
    for value in values:
        kind = _unreadable(value.type)
        if kind is not None:
            yield f"{kind} type of value {value.name!r} in {where}"


def _unreadable(type_: onnx.TypeProto) -> str | None:
    field = type_.WhichOneof("value")
    if field == "sequence_type":
        return _unreadable(type_.sequence_type.elem_type)
    if field == "optional_type":
        return _unreadable(type_.optional_type.elem_type)
    return _UNREADABLE_TYPES.get(field) if field else None


def _opsets(imports: Iterable[onnx.OperatorSetIdProto], what: str) -> Iterator[str]:
    yield from _contradictions(((entry.domain or "ai.onnx", entry.version) for entry in imports), what)


def _metadata(entries: Sequence[onnx.StringStringEntryProto], what: str) -> Iterator[str]:
    if len(entries) > 1:
        yield from _contradictions(((entry.key, entry.value) for entry in entries), what)


def _contradictions(pairs: Iterable[tuple[str, object]], what: str) -> Iterator[str]:
    """Names that have two values. The same value twice is dropped before (`exporting.repetitions`)."""
    first: dict[str, object] = {}
    for name, value in pairs:
        earlier = first.setdefault(name, value)
        if earlier != value:
            yield f"{what} {name!r} is there twice, as {earlier!r} and as {value!r}"


def _repeated(names: Iterable[str], what: str) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name!r} is there twice"
        seen.add(name)
