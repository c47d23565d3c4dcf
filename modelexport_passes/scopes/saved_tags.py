"""How many tags a saved file really holds: read again from the file, not from the model in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from modelexport_passes.scopes.walk import all_nodes

_GRAPH = onnx.AttributeProto.GRAPH
_GRAPHS = onnx.AttributeProto.GRAPHS


@dataclass(frozen=True)
class TagCounts:
    """Tags of a model. Nodes of main graph, subgraphs and functions; each function body counts once.

    Attributes:
        nodes: how many there are.
        tags: metadata key -> how many of them carry it.
    """

    nodes: int
    tags: dict[str, int]


def count_tags(model: ir.Model, keys: Iterable[str]) -> TagCounts:
    """Count in a model in memory."""
    tags = dict.fromkeys(keys, 0)
    nodes = 0
    for node in all_nodes(model):
        nodes += 1
        for key in tags:
            tags[key] += key in node.metadata_props
    return TagCounts(nodes, tags)


def count_saved_tags(path: Path, keys: Iterable[str]) -> TagCounts:
    """Count in a file, without its weights."""
    proto = onnx.load(path, load_external_data=False)  # pyright: ignore[reportUnknownMemberType]
    tags = dict.fromkeys(keys, 0)
    nodes = 0
    for holder in (proto.graph, *proto.functions):
        for node in _nodes(holder.node):
            nodes += 1
            for key in tags.keys() & {entry.key for entry in node.metadata_props}:
                tags[key] += 1
    return TagCounts(nodes, tags)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == _GRAPH:
                yield from _nodes(attribute.g.node)
            elif attribute.type == _GRAPHS:
                for graph in attribute.graphs:
                    yield from _nodes(graph.node)
