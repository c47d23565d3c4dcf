"""A model's operations as if all functions were inlined, each with its absolute scope; nothing is copied or changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import Call, Ledger, read_ledger
from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of
from modelexport_passes.scopes.walk import owned_nodes

Frames = tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One node, at one place where it runs.

    Attributes:
        node: the node; that of a shared body comes once for each call.
        frames: the module calls it runs in, root first; None if unknown.
        source: how that is known; None if unknown.
        callee: the function it calls; None for an operation.
        weights: the initializers it reads, directly or as an actual of the call it stands in.
    """

    node: ir.Node
    frames: Frames | None
    source: Source | None
    callee: ir.Function | None
    weights: tuple[ir.Value, ...]


def operations(model: ir.Model) -> Iterator[Operation]:
    """All operations of a model, each call before the operations of its body.

    Visits: main graph, subgraphs, functions at each call. Functions that call themselves are not entered.
    """
    yield from _in_container(model, model.graph, _Place((), {}, Call(), read_ledger(model), entered=()))


@dataclass(frozen=True)
class _Place:
    """Where a body runs.

    Attributes:
        frames: scope of the call; None if unknown.
        actuals: what the formals stand for, down to the main graph.
        differs: how this call differs from the shared body.
        ledger: how calls differ.
        entered: the functions that are running.
    """

    frames: Frames | None
    actuals: Mapping[ir.Value, ir.Value | None]
    differs: Call
    ledger: Ledger
    entered: tuple[ir.Function, ...]


def _in_container(model: ir.Model, container: ir.Graph | ir.Function, place: _Place) -> Iterator[Operation]:
    for node in owned_nodes(container):
        scope = _scope_at(node, place)
        inputs = [place.actuals.get(value, value) if value is not None else None for value in node.inputs]
        weights = tuple(value for value in inputs if value is not None and value.is_initializer())
        callee = model.functions.get(node.op_identifier())
        frames = scope.frames if scope else None
        yield Operation(node, frames, scope.source if scope else None, callee, weights)
        if callee is not None and callee not in place.entered:
            yield from _in_container(model, callee, _entered(node, callee, inputs, scope, place))


def _entered(
    call: ir.Node, callee: ir.Function, inputs: list[ir.Value | None], scope: Scope | None, place: _Place
) -> _Place:
    return _Place(
        frames=scope.frames if scope else None,
        actuals=dict(zip(callee.inputs, inputs, strict=False)),
        differs=place.ledger.call(scope.frames, call) if scope else Call(),
        ledger=place.ledger,
        entered=(*place.entered, callee),
    )


def _scope_at(node: ir.Node, place: _Place) -> Scope | None:
    if not place.entered:
        return scope_of(node)
    call = Scope(place.frames) if place.frames else None
    return scope_in_call(node, place.entered[-1], call, place.differs)
