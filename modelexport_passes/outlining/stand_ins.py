"""Operations that the model has not, put in so that one module does what a like one does. Inlining takes them out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.layout import Edges, Item, topological_order
from modelexport_passes.outlining.regions import Region
from modelexport_passes.scopes.copying import copy_node
from modelexport_passes.scopes.scope import Scope, Source

if TYPE_CHECKING:
    from modelexport_passes.outlining.sharing import Bodies


def stand_in(op: Op, model: Region, region: Region, there: Mapping[Wire, Wire]) -> Op:
    """An operation for one region that does what one of another does.

    Args:
        op: what it does.
        model: whose that is.
        region: where it shall be.
        there: what ``op`` reads -> what that is in the region.
    """
    scope = op.scope
    if op.frames[: len(model.frames)] == model.frames:
        source = Source.INHERITED if scope is None else scope.source
        scope = Scope((*region.frames, *op.frames[len(model.frames) :]), source)
    copy = Op(copy_node(op.node, [None] * len(op.ins)), op.order, region, scope)
    copy.stands_in = True
    copy.take([None if wire is None else there[wire] for wire in op.ins])
    copy.outs = [Wire(value, copy) for value in copy.node.outputs]
    return copy


def let_read(reader: Item, slot: int, wire: Wire, bodies: Bodies) -> None:
    """Let one input of an operation or call be another value."""
    if isinstance(reader, Op):
        reader.ins[slot] = wire
        reader.take(reader.ins, reader.captures)
        wire.readers.append(reader)
    else:
        bodies.actuals[reader][slot] = wire


def put_in(stand_ins: Sequence[Op], region: Region, bodies: Bodies, *, instead_of: Collection[Item] = ()) -> None:
    """Let a region have these operations, whose results some of it reads already."""
    for op in stand_ins:
        for wire in op.reads:
            wire.readers.append(op)
    items: list[Item] = [*stand_ins, *(item for item in bodies.layout[region] if item not in instead_of)]
    maker = {wire: item for item in items for wire in bodies.results_of(item)}
    edges: Edges = {}
    for item in items:
        for wire in bodies.reads_of(item):
            if wire in maker:
                edges.setdefault(maker[wire], {})[item] = None
    order = topological_order(items, edges)
    assert len(order) == len(items)  # what is put in hangs together as in the model
    bodies.layout[region] = order
