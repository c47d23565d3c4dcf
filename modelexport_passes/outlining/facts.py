"""What nodes and functions say after outlining: relative scopes in bodies, and in the ledger what differs by call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from modelexport_passes.fast_nodes import metadata_of
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.plan import FunctionPlan, OutlinePlan
from modelexport_passes.outlining.regions import Frames, Region
from modelexport_passes.outlining.rewrite import Made
from modelexport_passes.outlining.sharing import Bodies
from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.ledger import (
    CALLS_KEY,
    MODULE_KEY,
    ORIGIN_KEY,
    PART_KEY,
    STANDS_IN_KEY,
    STATE_KEY,
    Call,
    Ledger,
    Original,
    call_key,
    format_tensor,
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
    for wire in {op.copy_of[0]: None for op in plan.ops if op.copy_of is not None and not op.withdrawn}:
        name = str(wire.value.name)
        known = ledger.originals.get(name)
        ledger.originals[name] = _original(wire, "" if known is None else known.value)
    for function in plan.functions:
        _record_function(model, function, plan.bodies, made, ledger)
    if plan.bodies.folded or plan.bodies.idle:
        _record_stand_ins(plan, made, ledger)
    for item in plan.bodies.layout[plan.bodies.root]:
        if isinstance(item, Region):
            set_scope(made[item], Scope(item.frames, _source(item, plan.bodies)))
        elif item.stands_in:
            made[item].metadata_props[STANDS_IN_KEY] = "1"
    write_ledger(model, ledger)


def _original(wire: Wire, value: str) -> Original:
    op = wire.producer
    if op is None:
        return Original(initializer=True, value=value)
    return Original("" if op.scope is None else format_scope(op.scope), op.node.name or "", value=value)


def _record_function(model: ir.Model, function: FunctionPlan, bodies: Bodies, made: Made, ledger: Ledger) -> None:
    instances = function.group.instances
    body = function.group.body
    alike: dict[Frames, Frames] = {}
    seen = [_Instance(region, bodies, alike) for region in instances]
    differing = _differing(seen)
    for at, row in enumerate(zip(*(bodies.layout[region] for region in instances), strict=True)):
        node = made[row[0]]
        _record_row(node, row, seen, ledger)
        if at in differing:
            _relate(node, [_scope(item) for item in row], seen, ledger)
        else:
            _relate_all(node, seen[0].relatives[at], seen[0].sources[at])
    for instance in seen:
        instance.record_bases(ledger)
    model_function = model.functions[(function.domain, function.name, "")]
    model_function.metadata_props[MODULE_KEY] = body.frame.class_name
    parts = sorted({region.part for region in instances})
    if any(parts):
        model_function.metadata_props[PART_KEY] = ",".join(map(str, parts))
    if function.state:
        model_function.metadata_props[STATE_KEY] = as_text(function.state)
    model_function.metadata_props[CALLS_KEY] = as_text([str(region.frame) for region in instances])


def _record_stand_ins(plan: OutlinePlan, made: Made, ledger: Ledger) -> None:
    """Note for each call the operations that only stand in, and the constants that it has instead."""
    bodies = plan.bodies
    order = {function.group: function.order for function in plan.functions}
    for group in bodies.groups:
        for region in group.instances:
            for item, first in zip(bodies.layout[region], bodies.layout[group.body], strict=True):
                stands_in = isinstance(item, Op) and item.stands_in
                if not stands_in and item not in bodies.folded:
                    continue
                name = str(made[first].name)
                call = ledger.calls.setdefault(call_key(region.frames, region.part), Call())
                if stands_in:
                    (call.idle if item in bodies.idle else call.stand_ins).append(name)
                slots = range(len(item.ins)) if isinstance(item, Op) else order[bodies.group_of[item]]
                for folded in bodies.folded.get(item, ()):
                    origin = _record_folded(folded.constant, ledger)
                    inputs = call.constants.setdefault(name, {})
                    inputs.update((str(at), origin) for at, slot in enumerate(slots) if slot == folded.slot)


def _record_folded(constant: Op, ledger: Ledger) -> str:
    """Note a constant that is in no body; returns its name."""
    wire = (constant.copy_of or constant.outs)[0]
    name = str(wire.value.name)
    ledger.originals[name] = _original(wire, format_tensor(constant.node.attributes["value"].as_tensor()))
    return name


class _Instance:
    """One call of a body, and how its nodes' scopes read relative to it.

    Args:
        region: the call.
        bodies: the plan.
        alike: frames that were found below the calls of this body: equal ones are made one object.

    Attributes:
        relatives: of each item of the body the frames below this call; None if they do not go through it.
        sources: how the scope of each is known; None for one that is not.
    """

    def __init__(self, region: Region, bodies: Bodies, alike: dict[Frames, Frames]) -> None:
        self.region = region
        items = bodies.layout[region]
        stacks: list[Frames | None] = []
        self.sources: list[Source | None] = []
        for item in items:
            frames, source = _told(item)
            stacks.append(frames)
            self.sources.append(source)
        # Operations share their frames: what follows is asked of each once.
        distinct = [frames for frames in by_identity(stacks).values() if frames is not None]
        inside = [node for item in items if isinstance(item, Op) and item.has_bodies for node in _inside(item)]
        below = [scope.frames for node in inside if (scope := scope_of(node)) is not None]
        self.bases: Bases = call_bases([*distinct, *below], region.frames)
        self._alike = alike
        self._relative: dict[int, tuple[Frames, Frames | None]] = {}
        self.relatives = [None if frames is None else self.relative(frames) for frames in stacks]

    def relative(self, frames: Frames) -> Frames | None:
        """Frames below this call; None if they do not go through it."""
        known = self._relative.get(id(frames))
        if known is None:
            relative = to_relative(frames, self.region.frames, self.bases)
            if relative is not None:
                relative = self._alike.setdefault(relative, relative)
            known = self._relative[id(frames)] = (frames, relative)
        return known[1]

    def entry(self, ledger: Ledger) -> Call:
        """Where the ledger keeps what is particular to this call."""
        return ledger.calls.setdefault(call_key(self.region.frames, self.region.part), Call())

    def record_bases(self, ledger: Ledger) -> None:
        """Note the calls that do not count from zero."""
        if self.bases:
            self.entry(ledger).bases = dict(self.bases)


def _inside(op: Op) -> list[ir.Node]:
    """The nodes in the bodies of an operation."""
    return list(owned_nodes([op.node]))[1:]


def _differing(seen: Sequence[_Instance]) -> set[int]:
    """The items whose scope relative to the call, or its source, is not the same in all calls, or lies elsewhere."""
    first = seen[0]
    found = {at for at, source in enumerate(first.sources) if source is not None and first.relatives[at] is None}
    for other in seen[1:]:
        # As lists: what is one object in all calls, as nearly all is, is not looked at one by one.
        for ours, theirs in ((first.relatives, other.relatives), (first.sources, other.sources)):
            if ours != theirs:
                found.update(at for at, (one, two) in enumerate(zip(ours, theirs, strict=True)) if one != two)
    return found


def _record_row(node: ir.Node, row: Sequence[Item], seen: Sequence[_Instance], ledger: Ledger) -> None:
    """One node of a body, and what it stands for in each instance, but for its own scope."""
    first = row[0]
    if not isinstance(first, Op):
        return
    ops = cast("Sequence[Op]", row)  # rows are of one kind: the bodies are equal
    _record_origins(node, ops, seen, ledger)
    if len(row) > 1:
        _drop_differing(node, [op.node for op in ops[1:]])
    for nodes in zip(*map(_inside, ops), strict=True) if first.has_bodies else ():
        _relate(nodes[0], [scope_of(inner_node) for inner_node in nodes], seen, ledger)


def _scope(item: Item) -> Scope | None:
    if isinstance(item, Op) and item.local_frames is None:
        return item.scope
    frames, source = _told(item)
    return None if frames is None or source is None else Scope(frames, source)


def _told(item: Item) -> tuple[Frames | None, Source | None]:
    """The frames of an item, and how they are known."""
    if isinstance(item, Region):
        return item.frames, Source.EXPORT
    if item.local_frames is not None:
        return item.local_frames, Source.INHERITED
    return (None, None) if item.scope is None else (item.scope.frames, item.scope.source)


def _relate_all(node: ir.Node, relative: Frames | None, source: Source | None) -> None:
    """`_relate`, where all instances have the same."""
    set_scope(node, None if relative is None or source is None else Scope(relative, source, relative=True))


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
    copies = [op.copy_of for op in ops]
    if copies.count(None) == len(copies):
        node.metadata_props.pop(ORIGIN_KEY, None)
        return
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
    metadata = node.metadata_props
    held = [found for found in map(metadata_of, others) if found is not None]
    for key, value in list(metadata.items()):
        if key in (SCOPE_KEY, ORIGIN_KEY):
            continue
        if len(held) < len(others) or any(other.get(key) != value for other in held):
            del metadata[key]


def _source(region: Region, bodies: Bodies) -> Source:
    """How a call is known: as its own operations are, at best."""
    strongest = Source.INHERITED
    stack = [region]
    while stack:
        for item in bodies.layout[stack.pop()]:
            if isinstance(item, Region):
                stack.append(item)
            elif item.scope is not None and item.scope.source is not strongest:
                strongest = min(strongest, item.scope.source, key=lambda source: source.rank)
    return strongest
