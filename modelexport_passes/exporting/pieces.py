"""A model file as protobuf, a piece at a time: that of all its nodes at once takes as much room as the model.

Protobuf's own rule makes it simple: a message is the sum of its fields, in any order and split anywhere between two of
them. So a stretch of the bytes of a graph that begins and ends between two fields is a graph with these fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import onnx
from google.protobuf.message import DecodeError

from modelexport_passes.exporting.coarse import CoarseGraph, CoarseInfo, CoarseNode, read_graph

_PIECE = 1 << 16
"""Bytes of a file to take at a time, about."""

_VARINT_BITS = 70
"""Seven bits in each of ten bytes: the longest number that protobuf writes."""

_MODEL_GRAPH = 7
_GRAPH_NODE = 1
_GRAPH_VALUE_INFO = 13
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_Span = tuple[int, int]


class Pieces(NamedTuple):
    """A model file.

    Attributes:
        rest: the model without the nodes of its main graph and without what is known of their results.
        nodes: the nodes, coarsely, each time parsed anew.
        infos: what is known of their results, likewise.
    """

    rest: onnx.ModelProto
    nodes: Iterable[CoarseNode]
    infos: Iterable[CoarseInfo]


def split(data: bytes) -> Pieces | None:
    """A model file in pieces; None if it cannot be taken apart: it is no model, cut short, or its graph is in parts."""
    try:
        fields = list(_fields(data, 0, len(data)))
        graphs = [field for field in fields if field[0] == _MODEL_GRAPH]
        if len(graphs) != 1:
            return None
        _, start, end = graphs[0]
        begin = _behind_varint(data, start)  # behind the tag
        length, begin = _varint(data, begin)
        if begin + length != end:
            return None
        spans: dict[int, list[_Span]] = {_GRAPH_NODE: [], _GRAPH_VALUE_INFO: []}
        others: list[_Span] = []
        for number, first, last in _fields(data, begin, end):
            _extend(spans.get(number, others), first, last)
        rest = onnx.ModelProto.FromString(data[:start] + data[end:])
        whole = memoryview(data)
        for first, last in others:
            rest.graph.MergeFromString(cast(bytes, whole[first:last]))  # weights may be among them: not copied
    except (IndexError, ValueError, DecodeError):
        return None
    return Pieces(rest, _Nodes(data, spans[_GRAPH_NODE]), _Infos(data, spans[_GRAPH_VALUE_INFO]))


def _extend(spans: list[_Span], first: int, last: int) -> None:
    """Add a field to the last span if it stands right behind it and that is not large already."""
    if spans and spans[-1][1] == first and first - spans[-1][0] < _PIECE:
        spans[-1] = (spans[-1][0], last)
    else:
        spans.append((first, last))


class _Repeated:
    def __init__(self, data: bytes, spans: list[_Span]) -> None:
        self._data = data
        self._spans = spans

    def _graphs(self) -> Iterator[CoarseGraph]:
        return (read_graph(self._data[first:last]) for first, last in self._spans)


class _Nodes(_Repeated):
    def __iter__(self) -> Iterator[CoarseNode]:
        for graph in self._graphs():
            yield from graph.node


class _Infos(_Repeated):
    def __iter__(self) -> Iterator[CoarseInfo]:
        for graph in self._graphs():
            yield from graph.value_info


# --- the encoding (https://protobuf.dev/programming-guides/encoding) -------------------------------------------------


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, beginning and end of each field.

    Raises:
        ValueError: these bytes are no message.
        IndexError: as ValueError.
    """
    while position < end:
        start = position
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, start)
        kind = tag & 7
        if kind == _LENGTH:
            length = data[position]
            position += 1
            if length > 127:
                more = data[position]
                if more < 128:  # two bytes, as for nearly every node: not worth a call
                    position += 1
                    length += (more - 1) << 7
                else:
                    length, position = _varint(data, position - 1)
            position += length
        elif kind == _VARINT:
            position = _behind_varint(data, position)
        elif kind == _FIXED32:
            position += 4
        elif kind == _FIXED64:
            position += 8
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, start, position
    if position != end:
        raise ValueError("cut short")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, and where it ends.

    Raises:
        ValueError: it does not end where protobuf's longest does.
        IndexError: the bytes end before it.
    """
    byte = data[position]
    number = byte & 127
    shift = 7
    while byte > 127:
        position += 1
        byte = data[position]
        number |= (byte & 127) << shift
        shift += 7
        if shift > _VARINT_BITS:
            raise ValueError("a number of more than ten bytes")
    return number, position + 1


def _behind_varint(data: bytes, position: int) -> int:
    return _varint(data, position)[1]
