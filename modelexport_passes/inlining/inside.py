"""Calls written out inside of functions that stay: what was particular to them now is to the calls around them.

A body in which a call was written out is still shared, and its relative scopes are those of one kind of call. What they
were at each call before, they shall be after: where the body alone does not say so, the ledger does. So it is with what
only stands in at a call, and with its constants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import Call, Ledger, call_key, part_of
from modelexport_passes.scopes.scope import Scope, format_scope, scope_of
from modelexport_passes.scopes.walk import owned_nodes

Identifiers = Collection[ir.OperatorIdentifier]
Origins = Mapping[ir.Value, str]


class _Run(NamedTuple):
    """An operation at one call of the function that it is in.

    Attributes:
        scope: its absolute scope.
        stands_in: the original has a constant for what it computes at this call.
        idle: it does nothing at this call, and the original has it not.
        constants: number of an input -> origin of the constant that it is at this call.
    """

    scope: Scope | None
    stands_in: bool
    idle: bool
    constants: dict[str, str]


Runs = dict[str, list[_Run]]


@dataclass(frozen=True)
class _Place:
    """A body at one of its calls.

    Attributes:
        body: the nodes.
        function: whose body it is; None for the main graph.
        call: scope of the call; None if unknown.
        differs: what the ledger says of the call.
        key: the call around in the ledger's words; "" in the main graph and where it is unknown.
        constants: input of the function -> origin of the constant that the call passes for it.
    """

    body: ir.Graph | ir.Function
    function: ir.Function | None
    call: Scope | None
    differs: Call
    key: str
    constants: Origins = field(default_factory=dict[ir.Value, str])


def scopes_at_calls(model: ir.Model, ledger: Ledger, through: Identifiers) -> Runs:
    """For each call of a function, its operations in order with their absolute scopes.

    Args:
        model: not changed.
        ledger: the model's.
        through: functions that are looked through: their operations count as those of the function around them.
    """
    runs: Runs = defaultdict(list)
    for key, run in _walk(model, _Place(model.graph, None, None, Call(), ""), ledger, through):
        if key:
            runs[key].append(run)
    return runs


def _walk(model: ir.Model, place: _Place, ledger: Ledger, through: Identifiers) -> Iterator[tuple[str, _Run]]:
    stand_ins, idle = set(place.differs.stand_ins), set(place.differs.idle)
    for node in owned_nodes(place.body):
        scope = scope_of(node)
        if place.function is not None:
            scope = scope_in_call(node, place.function, place.call, place.differs)
        callee = model.functions.get(node.op_identifier())
        seen_through = callee is not None and callee.identifier() in through
        constants = dict(place.differs.constants.get(str(node.name), {}))
        for at, value in enumerate(node.inputs) if place.constants else ():
            if value is not None and value in place.constants:
                constants[str(at)] = place.constants[value]
        if not seen_through:
            yield place.key, _Run(scope, node.name in stand_ins, node.name in idle, constants)
        if callee is not None:
            inner = _entered(callee, node, scope, ledger)
            if seen_through:
                passed = {callee.inputs[int(at)]: origin for at, origin in constants.items()}
                inner = replace(inner, key=place.key, constants=passed)
            yield from _walk(model, inner, ledger, through)


def _entered(callee: ir.Function, call: ir.Node, scope: Scope | None, ledger: Ledger) -> _Place:
    """The body of a function at a call of this absolute scope."""
    if scope is None:
        return _Place(callee, callee, None, Call(), "")
    return _Place(callee, callee, scope, ledger.call(scope.frames, call), call_key(scope.frames, part_of(call)))


def record_differences(model: ir.Model, ledger: Ledger, before: Runs) -> None:
    """Note in the ledger every scope that a body would now give otherwise than before; drop calls that are gone."""
    reached: set[str] = set()
    places = [_Place(model.graph, None, None, Call(), "")]
    while places:
        place = places.pop()
        nodes = list(owned_nodes(place.body))
        # Not a call that was not there before: of a function that was inside of what is gone.
        known = before.get(place.key, ()) if place.key not in reached else ()
        reached.add(place.key)
        if len(known) == len(nodes) and any(run.stands_in or run.idle or run.constants for run in known):
            _record_constants(nodes, known, ledger.calls.setdefault(place.key, Call()))
        for at, node in enumerate(nodes):
            scope = scope_of(node)
            if place.function is not None:
                scope = scope_in_call(node, place.function, place.call, place.differs)
            if len(known) == len(nodes) and not _same(known[at].scope, scope):
                scope = known[at].scope
                ledger.calls.setdefault(place.key, Call()).scopes[str(node.name)] = (
                    "" if scope is None else format_scope(scope)
                )
            callee = model.functions.get(node.op_identifier())
            if callee is not None:
                # What the call is in the ledger's words depends on what was noted of those around it.
                places.append(_entered(callee, node, scope, ledger))
    for key in ledger.calls.keys() - reached:
        del ledger.calls[key]


def _record_constants(nodes: Sequence[ir.Node], runs: Sequence[_Run], call: Call) -> None:
    """Note what only stands in at one call of a body, and its constants; calls that had them may be gone from it."""
    named = [(str(node.name), run) for node, run in zip(nodes, runs, strict=True)]
    call.stand_ins = [name for name, run in named if run.stands_in]
    call.idle = [name for name, run in named if run.idle]
    call.constants = {name: run.constants for name, run in named if run.constants}


def _same(scope: Scope | None, other: Scope | None) -> bool:
    return scope == other and (scope is None or other is None or scope.source == other.source)
