"""What nodes and functions say after outlining: relative scopes in bodies, and in the ledger what differs by call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import cast

import onnx_ir as ir

from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.plan import FunctionPlan, OutlinePlan
from modelexport_passes.outlining.regions import Frames, Region
from modelexport_passes.outlining.rewrite import Made
from modelexport_passes.outlining.sharing import Bodies
from modelexport_passes.scopes.ledger import (
    CALLS_KEY,
    MODULE_KEY,
    ORIGIN_KEY,
    PART_KEY,
    STATE_KEY,
    Call,
    Ledger,
    Original,
    call_key,
    read_ledger,
    write_ledger,
)
from modelexport_passes.scopes.relative import Bases, call_bases, to_relative
from modelexport_passes.scopes.scope import (
    SCOPE_KEY,
    Scope,
    Source,
    by_identity,
    format_scope,
    scope_of,
    set_scope,
)
from modelexport_passes.scopes.walk import owned_nodes


def record(model: ir.Model, plan: OutlinePlan, made: Made) -> None:
    """Write scopes, the ledger and the functions' own metadata, after the rewrite."""
    ledger = read_ledger(model)
    for op in plan.ops:
        if op.copy_of is not None and not op.withdrawn:
            _record_original(op, ledger)
    for function in plan.functions:
        _record_function(model, function, plan.bodies, made, ledger)
    for item in plan.bodies.layout[plan.bodies.root]:
        if isinstance(item, Region):
            set_scope(made[item], Scope(item.frames, _source(item, plan.bodies)))
    write_ledger(model, ledger)


def _record_original(op: Op, ledger: Ledger) -> None:
    assert op.copy_of is not None
    original = op.copy_of[0].producer
    name = str(op.origin)
    if original is None:
        ledger.originals[name] = Original(initializer=True)
    else:
        scope = "" if original.scope is None else format_scope(original.scope)
        ledger.originals[name] = Original(scope, original.node.name or "")


def _record_function(model: ir.Model, function: FunctionPlan, bodies: Bodies, made: Made, ledger: Ledger) -> None:
    instances = function.group.instances
    body = function.group.body
    seen = [_Instance(region, bodies) for region in instances]
    for row in zip(*(bodies.layout[region] for region in instances), strict=True):
        node = made[row[0]]
        _record_row(node, row, seen, ledger)
    for instance in seen:
        instance.record_bases(ledger)
    model_function = model.functions[(function.domain, function.name, "")]
    model_function.metadata_props[MODULE_KEY] = body.frame.class_name
    parts = sorted({region.part for region in instances})
    if any(parts):
        model_function.metadata_props[PART_KEY] = ",".join(map(str, parts))
    if function.state:
        model_function.metadata_props[STATE_KEY] = json.dumps(function.state)
    model_function.metadata_props[CALLS_KEY] = json.dumps([str(region.frame) for region in instances])


class _Instance:
    """One call of a body, and how its nodes' scopes read relative to it."""

    def __init__(self, region: Region, bodies: Bodies) -> None:
        self.region = region
        self.key = call_key(region.frames, region.part)
        stacks = by_identity(frames for item in bodies.layout[region] for frames in _stacks(item))
        self.bases: Bases = call_bases(stacks.values(), region.frames)
        self._relative: dict[int, tuple[Frames, Frames | None]] = {}

    def relative(self, frames: Frames) -> Frames | None:
        """Frames below this call; None if they do not go through it."""
        known = self._relative.get(id(frames))
        if known is None:
            known = self._relative[id(frames)] = (frames, to_relative(frames, self.region.frames, self.bases))
        return known[1]

    def entry(self, ledger: Ledger) -> Call:
        """Where the ledger keeps what is particular to this call."""
        return ledger.calls.setdefault(self.key, Call())

    def record_bases(self, ledger: Ledger) -> None:
        """Note the calls that do not count from zero."""
        if self.bases:
            self.entry(ledger).bases = dict(self.bases)


def _stacks(item: Item) -> Iterable[Frames]:
    """The frames that an item and the nodes in its bodies have."""
    if isinstance(item, Region) or not item.has_bodies:
        return (item.frames,)
    inner = (scope_of(node) for node in list(owned_nodes([item.node]))[1:])
    return (item.frames, *(scope.frames for scope in inner if scope is not None))


def _record_row(node: ir.Node, row: Sequence[Item], seen: Sequence[_Instance], ledger: Ledger) -> None:
    """One node of a body, and what it stands for in each instance."""
    first = row[0]
    if isinstance(first, Op):
        ops = cast("Sequence[Op]", row)  # rows are of one kind: the bodies are equal
        scopes = [_scope(op) for op in ops]
        _record_origins(node, ops, seen, ledger)
        if len(row) > 1:
            _drop_differing(node, [op.node for op in ops[1:]])
        inner = [list(owned_nodes([op.node]))[1:] for op in ops] if first.has_bodies else []
        for nodes in zip(*inner, strict=True):
            _relate(nodes[0], [scope_of(inner_node) for inner_node in nodes], seen, ledger)
    else:
        scopes = [Scope(item.frames, Source.EXPORT) for item in row]
    _relate(node, scopes, seen, ledger)


def _scope(op: Op) -> Scope | None:
    if op.local_frames is not None:
        return Scope(op.local_frames, Source.INHERITED)
    return op.scope


def _relate(node: ir.Node, scopes: Sequence[Scope | None], seen: Sequence[_Instance], ledger: Ledger) -> None:
    """Give a node of a body its relative scope; where an instance has another, the ledger says which."""
    relatives = [
        None if scope is None else instance.relative(scope.frames) for scope, instance in zip(scopes, seen, strict=True)
    ]
    common = next((relative for relative in relatives if relative is not None), None)
    sources = {scope.source for scope in scopes if scope is not None}
    weakest = max(sources, key=lambda source: source.rank, default=None)
    if common is None or weakest is None:
        set_scope(node, None)
    else:
        set_scope(node, Scope(common, weakest, relative=True))
    for scope, relative, instance in zip(scopes, relatives, seen, strict=True):
        if scope is None and common is None:
            continue
        if relative is None or relative != common or (scope is not None and scope.source != weakest):
            text = "" if scope is None else format_scope(scope)
            instance.entry(ledger).scopes[str(node.name)] = text


def _record_origins(node: ir.Node, ops: Sequence[Op], seen: Sequence[_Instance], ledger: Ledger) -> None:
    common = ops[0].origin
    if common is None:
        node.metadata_props.pop(ORIGIN_KEY, None)
    else:
        node.metadata_props[ORIGIN_KEY] = common
    for op, instance in zip(ops, seen, strict=True):
        if op.origin != common:
            instance.entry(ledger).origins[str(node.name)] = op.origin or ""


def _drop_differing(node: ir.Node, others: Sequence[ir.Node]) -> None:
    """A shared node keeps of an exporter's metadata what is true of every instance."""
    for key, value in list(node.metadata_props.items()):
        if key not in (SCOPE_KEY, ORIGIN_KEY) and any(other.metadata_props.get(key) != value for other in others):
            del node.metadata_props[key]


def _source(region: Region, bodies: Bodies) -> Source:
    """How a call is known: as its own operations are, at best."""
    found = Source.INHERITED
    stack: list[Item] = [region]
    while stack:
        item = stack.pop()
        if isinstance(item, Region):
            stack.extend(bodies.layout[item])
        elif item.scope is not None and item.scope.source.rank < found.rank:
            found = item.scope.source
        if found is Source.EXPORT:
            break
    return found
