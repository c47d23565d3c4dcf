"""Scopes of operations that nothing names, from the operations they feed and are fed by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.scope import Frame, Scope, Source, common_frames, scope_of, set_scope


def infer_scopes(nodes: Sequence[ir.Node]) -> int:
    """Give scopes to the nodes of one graph that have none. Returns how many got one.

    Consumers that agree decide, then producers that agree, then the lowest module call that all neighbours share: an
    operation between two modules belongs to the caller of both. Where no neighbour is known, nothing is.
    """
    waiting = [node for node in nodes if scope_of(node) is None]
    total = len(waiting)
    while waiting:
        # Consumers come later in the graph: backwards, a chain of unknown operations resolves in one sweep.
        backward = _sweep(reversed(waiting), unanimous=True)
        left = _sweep(reversed(backward), unanimous=True)
        if len(left) == len(waiting):
            left = _sweep(reversed(waiting), unanimous=False)[::-1]
        if len(left) == len(waiting):
            break
        waiting = left
    return total - len(waiting)


def _sweep(nodes: Iterable[ir.Node], *, unanimous: bool) -> list[ir.Node]:
    left: list[ir.Node] = []
    for node in nodes:
        frames = _from_neighbours(node, unanimous=unanimous)
        if frames:
            set_scope(node, Scope(frames, Source.DATAFLOW))
        else:
            left.append(node)
    return left


def _from_neighbours(node: ir.Node, *, unanimous: bool) -> tuple[Frame, ...] | None:
    consumers = _known(use.node for value in node.outputs for use in value.uses())
    producers = _known(
        producer for value in node.inputs if value is not None and (producer := value.producer()) is not None
    )
    for known, total in ((consumers, _count_consumers(node)), (producers, len(node.predecessors()))):
        if known and (len(set(known)) == 1) and (not unanimous or len(known) >= total):
            return known[0]
    if unanimous or not (consumers or producers):
        return None
    return common_frames(consumers or producers)


def _known(neighbours: Iterable[ir.Node]) -> list[tuple[Frame, ...]]:
    scopes = (scope_of(neighbour) for neighbour in dict.fromkeys(neighbours))
    return [scope.frames for scope in scopes if scope is not None]


def _count_consumers(node: ir.Node) -> int:
    return len({use.node for value in node.outputs for use in value.uses()})
