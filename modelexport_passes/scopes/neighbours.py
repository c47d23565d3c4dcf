"""Scopes of the operations that a tool put between others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.scope import Scope, Source, common_frames, scope_of, set_scope
from modelexport_passes.scopes.walk import subgraphs_of


def settle(graph: ir.Graph, nodes: Sequence[ir.Node], *, relative: bool) -> int:
    """Give scopes to new nodes by what they serve. Returns how many got one.

    The module call of the operations that use its values, where these agree; else that of the operations that made
    what it takes, where those agree; else the lowest that its users share. In a body without any known operation, that
    of the operation that owns the body.

    Args:
        graph: of which the nodes are, or its subgraphs.
        nodes: without a scope, in the order of the graph.
        relative: whether scopes are those of a function body.
    """
    waiting = list(nodes)
    for unanimous in (True, False):
        before = -1
        while waiting and before != len(waiting):
            before = len(waiting)
            # Users come later in the graph: backwards, a chain of new operations is settled in one sweep.
            waiting = _sweep(waiting[::-1], relative=relative, unanimous=unanimous)[::-1]
            waiting = _sweep(waiting, relative=relative, unanimous=unanimous)
    left = set(waiting)
    left -= _inherit(graph, left)
    return len(nodes) - len(left)


def _sweep(nodes: Iterable[ir.Node], *, relative: bool, unanimous: bool) -> list[ir.Node]:
    left: list[ir.Node] = []
    for node in nodes:
        users = _scopes(use.node for value in node.outputs for use in value.uses())
        makers = _scopes(
            producer for value in node.inputs if value is not None and (producer := value.producer()) is not None
        )
        scope = _agreed(users, unanimous=unanimous) or _agreed(makers, unanimous=unanimous)
        if scope is None and not unanimous:
            frames = common_frames([scope.frames for scope in (users or makers) if scope is not None] or [()])
            scope = Scope(frames, Source.DATAFLOW, relative) if frames else None
        if scope is None:
            left.append(node)
        else:
            set_scope(node, Scope(scope.frames, Source.DATAFLOW, relative))
    return left


def _scopes(nodes: Iterable[ir.Node]) -> list[Scope | None]:
    return [scope_of(node) for node in dict.fromkeys(nodes)]


def _agreed(scopes: Sequence[Scope | None], *, unanimous: bool) -> Scope | None:
    """The one scope of all of these; if not ``unanimous``, of those that are known."""
    known = [scope for scope in scopes if scope is not None]
    if not known or any(scope.frames != known[0].frames for scope in known):
        return None
    return None if unanimous and len(known) < len(scopes) else known[0]


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
