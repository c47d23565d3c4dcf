"""Scopes of the operations that a tool put between others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.scope import Scope, Source, common_frames, scope_of, set_scope
from modelexport_passes.scopes.walk import subgraphs_of


def settle(graph: ir.Graph, nodes: Sequence[ir.Node], *, relative: bool) -> int:
    """Give scopes to new nodes by what they serve. Returns how many got one.

    That is the lowest module call that all operations which use a node's values share; if none of these is known, the
    lowest that the operations share whose values it takes. In a body without any known operation it is that of the
    operation that owns the body.

    Args:
        graph: of which the nodes are, or its subgraphs.
        nodes: without a scope, in the order of the graph.
        relative: whether scopes are those of a function body.
    """
    # Users come later in the graph: backwards, a chain of new operations is settled in one sweep.
    waiting = _sweep(nodes[::-1], _users, all_known=True, relative=relative)
    waiting = _sweep(waiting, _users, all_known=False, relative=relative)
    waiting = _sweep(waiting[::-1], _makers, all_known=False, relative=relative)
    left = set(waiting)
    left -= _inherit(graph, left)
    return len(nodes) - len(left)


def _sweep(
    nodes: Iterable[ir.Node],
    neighbours_of: Callable[[ir.Node], Iterable[ir.Node]],
    *,
    all_known: bool,
    relative: bool,
) -> list[ir.Node]:
    """Settle what can be by these neighbours; returns the rest."""
    left: list[ir.Node] = []
    for node in nodes:
        scopes = [scope_of(neighbour) for neighbour in dict.fromkeys(neighbours_of(node))]
        known = [scope.frames for scope in scopes if scope is not None]
        frames = common_frames(known) if known and not (all_known and len(known) < len(scopes)) else None
        if frames is None or not (frames or relative):
            left.append(node)
        else:
            set_scope(node, Scope(frames, Source.DATAFLOW, relative))
    return left


def _users(node: ir.Node) -> Iterator[ir.Node]:
    return (use.node for value in node.outputs for use in value.uses())


def _makers(node: ir.Node) -> Iterator[ir.Node]:
    return (producer for value in node.inputs if value is not None and (producer := value.producer()) is not None)


def _inherit(nodes: Iterable[ir.Node], waiting: set[ir.Node]) -> set[ir.Node]:
    settled: set[ir.Node] = set()
    stack = list(nodes)
    while stack:
        owner = stack.pop()
        scope = scope_of(owner)
        for graph in subgraphs_of(owner):
            for node in graph:
                if scope is not None and node in waiting:
                    set_scope(node, scope.with_source(Source.INHERITED))
                    settled.add(node)
                stack.append(node)
    return settled
