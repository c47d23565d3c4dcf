"""Walking over nodes: with the bodies they own, and over every place where a model keeps nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from modelexport_passes.fast_nodes import attributes_of, nodes_of


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies that a node owns (If, Loop, Scan, ...), one level."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


_GRAPH = ir.AttributeType.GRAPH
_GRAPHS = ir.AttributeType.GRAPHS


def has_bodies(node: ir.Node) -> bool:
    """Whether a node owns graphs."""
    # The dictionary itself: a UserDict's own values() costs more than all the rest of a walk.
    attributes = node.attributes.data
    if attributes:
        for attribute in attributes.values():
            kind = attribute.type
            if kind is _GRAPH or kind is _GRAPHS:
                return True
    return False


def owned_nodes(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """These nodes and all nodes in the bodies they own, at any depth, each before its bodies."""
    for node in nodes:
        yield node
        if node.attributes.data and has_bodies(node):
            for graph in subgraphs_of(node):
                yield from owned_nodes(graph)


def all_owned_nodes(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """`owned_nodes` as a list: faster, for of most models no node owns a body."""
    found = nodes_of(graph)
    for node in found:
        if attributes_of(node) and has_bodies(node):
            return list(owned_nodes(found))
    return found


def all_nodes(model: ir.Model) -> list[ir.Node]:
    """Every node of the model: main graph, subgraphs, functions."""
    nodes = all_owned_nodes(model.graph)
    for function in model.functions.values():
        nodes += all_owned_nodes(function)
    return nodes


def values_read(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of a node, and what its bodies use from outside."""
    return [*node.inputs, *captures_of(node)] if has_bodies(node) else node.inputs


def captures_of(node: ir.Node) -> list[ir.Value]:
    """Values from outside that the bodies of a node use, in order of first use."""
    inside: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    graphs = list(subgraphs_of(node))
    while graphs:
        graph = graphs.pop()
        inside.update(graph.inputs)
        inside.update(graph.initializers.values())
        for inner in graph:
            inside.update(inner.outputs)
            used.update(dict.fromkeys(value for value in inner.inputs if value is not None))
            graphs.extend(subgraphs_of(inner))
        used.update(dict.fromkeys(graph.outputs))
    return [value for value in used if value not in inside]


def in_order(graph: ir.Graph) -> bool:
    """Whether every node stands behind those of the same graph whose results it reads."""
    made: set[ir.Node] = set()
    for node in graph:
        made.add(node)
        if any(producer.graph is graph and producer not in made for producer in node.predecessors()):
            return False
    return True
