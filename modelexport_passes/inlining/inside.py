"""Calls written out inside of functions that stay: what was particular to them now is to the calls around them.

A body in which a call was written out is still shared, and its relative scopes are those of one kind of call. What they
were at each call before, they shall be after: where the body alone does not say so, the ledger does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import Call, Ledger
from modelexport_passes.scopes.scope import Scope, format_frames, format_scope, scope_of
from modelexport_passes.scopes.walk import owned_nodes

Identifiers = Collection[ir.OperatorIdentifier]
Runs = dict[str, list[tuple[ir.Node, Scope | None]]]


@dataclass(frozen=True)
class _Place:
    """A body at one of its calls.

    Attributes:
        body: the nodes.
        function: whose body it is; None for the main graph.
        call: scope of the call; None if unknown.
        key: the call in the ledger's words; "" in the main graph and where it is unknown.
    """

    body: ir.Graph | ir.Function
    function: ir.Function | None
    call: Scope | None
    key: str


def scopes_at_calls(model: ir.Model, ledger: Ledger, through: Identifiers) -> Runs:
    """For each call of a function, its operations in order with their absolute scopes.

    Args:
        model: not changed.
        ledger: the model's.
        through: functions that are looked through: their operations count as those of the function around them.
    """
    runs: Runs = defaultdict(list)
    for key, node, scope in _walk(model, _Place(model.graph, None, None, ""), ledger, through):
        if key:
            runs[key].append((node, scope))
    return runs


def _walk(
    model: ir.Model, place: _Place, ledger: Ledger, through: Identifiers
) -> Iterator[tuple[str, ir.Node, Scope | None]]:
    differs = ledger.call(format_frames(place.call.frames)) if place.call is not None else Call()
    for node in owned_nodes(place.body):
        scope = scope_of(node)
        if place.function is not None:
            scope = scope_in_call(node, place.function, place.call, differs)
        callee = model.functions.get(node.op_identifier())
        seen_through = callee is not None and callee.identifier() in through
        if not seen_through:
            yield place.key, node, scope
        if callee is not None:
            own = format_frames(scope.frames) if scope is not None else ""
            inner = _Place(callee, callee, scope, place.key if seen_through else own)
            yield from _walk(model, inner, ledger, through)


def record_differences(ledger: Ledger, before: Runs, after: Runs) -> None:
    """Note in the ledger every scope that a body would now give otherwise than before; drop calls that are gone."""
    for key, runs in after.items():
        known = before.get(key, [])
        if len(known) != len(runs):
            continue  # a call that was not there before: of a function that was inside of what is gone
        for (_, scope), (node, now) in zip(known, runs, strict=True):
            if scope != now or (scope is not None and now is not None and scope.source != now.source):
                entry = ledger.calls.setdefault(key, Call())
                entry.scopes[str(node.name)] = "" if scope is None else format_scope(scope)
    for key in ledger.calls.keys() - after.keys():
        del ledger.calls[key]
