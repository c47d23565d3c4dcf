"""Boundary repair: where each operation is placed, so that regions can be cut.

Attribution is not placement. What exporters and optimizers share between modules (a constant, a mask computed in layer
0 and used by all) keeps its scope, but a region that holds it would feed its siblings from within. So

* a small constant, and what is computed from constants alone, is cloned into each region that reads it;
* an operation that does no layer's work and needs nothing computed inside the module, whose result is used both inside
  and outside of it, is hoisted to the lowest region that holds all its readers.

Nothing is recomputed that costs: only constants are cloned, only moved operations are hoisted.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.outlining.constants import folded_from, is_parameter
from modelexport_passes.outlining.flow import OF_ITS_OWN, Flow, Op, Wire
from modelexport_passes.outlining.margins import may_be_light
from modelexport_passes.outlining.regions import Region, kind_of_call, lowest_common
from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.copying import copy_facts

_SHAPE_ONLY = frozenset({"Shape", "Size"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub", "Where"})


def repair(flow: Flow, root: Region) -> list[Op]:
    """Place every operation; returns the clones, which are further operations to place."""
    ops = flow.ops
    # Asked for seldom: in most models nothing is used both inside and outside of a module.
    free = functools.cache(lambda: _freedoms(ops))
    demanded: dict[Op, Region] = {}
    clones: list[Op] = []
    # All others are read where they lie alone, and stay there: until one of their readers moves. Last ones first.
    waiting = [-op.order for op in reversed(flow.unsettled)]  # in order: a heap already
    seen = set(waiting)
    while waiting:
        op = ops[-heapq.heappop(waiting)]
        home = op.region
        if op.constant:
            copies = _clone_to_readers(op, root)
            clones += copies
            if not copies and op.region is home:
                continue
        elif _stays_inside(op):
            continue
        elif op.node.op_type == "Identity" and all(wire.is_output and not wire.readers for wire in op.outs):
            op.region = root  # it only names an output of the graph
        else:
            op.region = _hoist_target(op, root, free, demanded)
            if op.region is home:
                continue
            _demand(op, _step_down(op.region, home), demanded)
        for wire in op.reads:
            producer = wire.producer
            if producer is not None and -producer.order not in seen:
                seen.add(-producer.order)
                heapq.heappush(waiting, -producer.order)
    clones += _embed_initializers([*flow.folding, *clones], root)
    return clones


def _demand(op: Op, left: Region, demanded: dict[Op, Region]) -> None:
    """What an operation needs from inside of the region that it left must leave as well."""
    for wire in op.reads:
        producer = wire.producer
        if producer is not None and not producer.constant and _lies_in(producer.region, left):
            before = demanded.get(producer)
            demanded[producer] = op.region if before is None else lowest_common(before, op.region)


def place_constants(ops: Sequence[Op], root: Region) -> list[Op]:
    """Clone constants into regions that were made after `repair`, for those who read them there; returns the clones."""
    constants = [op for op in ops if op.constant and not op.withdrawn]
    clones: list[Op] = []
    for op in sorted(constants, key=lambda op: op.order, reverse=True):
        clones += _clone_to_readers(op, root if op.copy_of is None else op.region)
    return clones + _embed_initializers([*ops, *clones], root)


# --- constants -------------------------------------------------------------------------------------------------------


def _clone_to_readers(op: Op, root: Region) -> list[Op]:
    """One copy of a constant in each region that reads it; the operation itself serves the main graph, or no one."""
    for wire in op.outs:
        wire.readers = [reader for reader in wire.readers if not reader.withdrawn]
    readers = [_by_region(wire) for wire in op.outs]
    regions = dict.fromkeys(region for found in readers for region in found)
    if any(wire.is_output for wire in op.outs):
        regions[root] = None
    if not regions or list(regions) == [op.region]:
        return []
    clones = [
        _clone(op, region, [found.get(region, []) for found in readers]) for region in regions if region is not root
    ]
    for wire, found in zip(op.outs, readers, strict=True):
        wire.readers = found.get(root, [])
    op.region = root
    op.withdrawn = root not in regions
    return clones


def _by_region(wire: Wire) -> dict[Region, list[Op]]:
    """Who reads a wire, by where they lie."""
    found: dict[Region, list[Op]] = {}
    for reader in wire.readers:
        found.setdefault(reader.region, []).append(reader)
    return found


def _clone(op: Op, region: Region, readers: Sequence[list[Op]]) -> Op:
    """A copy of a constant operation in a region, for those who read its outputs there."""
    copy = Op(op.node, op.order, region, op.scope)
    copy.constant = True
    copy.kind = op.kind
    copy.take(list(op.ins))
    for wire in copy.reads:
        wire.readers.append(copy)
    for wire, there in zip(op.outs, readers, strict=True):
        own = Wire(wire.value, copy)
        own.readers = there
        for reader in dict.fromkeys(there):
            reader.reroute(wire, own)
        copy.outs.append(own)
    copy.copy_of = op.outs if op.copy_of is None else op.copy_of
    _localise(copy)
    return copy


def return_to_original(op: Op, root: Region) -> None:
    """Let a copy that has come to lie in the main graph give its readers back to what it is a copy of."""
    assert op.copy_of is not None
    for own, wire in zip(op.outs, op.copy_of, strict=True):
        for reader in dict.fromkeys(own.readers):
            reader.reroute(own, wire)
        wire.readers.extend(own.readers)
        own.readers = []
    op.withdrawn = True
    for wire in op.copy_of:
        if wire.producer is not None:
            _reinstate(wire.producer, root)


def _reinstate(op: Op, root: Region) -> None:
    if not op.withdrawn:
        return
    op.withdrawn = False
    op.region = root
    for wire in op.reads:
        wire.readers.append(op)
        if wire.producer is not None:
            _reinstate(wire.producer, root)


def _localise(op: Op) -> None:
    """A shared constant takes the frames of its first reader: the same ones in every like region."""
    reader = min((reader for wire in op.outs for reader in wire.readers), key=lambda reader: reader.order, default=None)
    if reader is not None:
        op.local_frames = reader.local_frames or (reader.scope.frames if reader.scope else None)


def _embed_initializers(ops: Iterable[Op], root: Region) -> list[Op]:
    """Make small folded initializers constants of the regions that read them."""
    wires: dict[Wire, None] = {}
    for op in ops:
        if op.region is root or op.withdrawn:
            continue
        for wire in op.reads:
            if wire.is_embeddable:
                wires[wire] = None
    embedded: list[Op] = []
    for number, wire in enumerate(wires):
        tensor = wire.value.const_value
        assert tensor is not None  # is_embeddable
        node = _constant_node(wire.value, ir.AttrTensor("value", tensor))  # of which each region gets a copy
        by_region: dict[Region, list[Op]] = {}
        for reader in wire.readers:
            if reader.withdrawn:
                continue
            by_region.setdefault(reader.region, []).append(reader)
        for region, readers in by_region.items():
            if region is root:
                continue
            op = Op(node, min([reader.order for reader in readers]), region, None)
            op.constant = True
            op.kind = OF_ITS_OWN - 1 - number  # those of operations that the graph has are above
            own = Wire(op.node.outputs[0], op)
            own.readers = readers
            for reader in dict.fromkeys(readers):
                reader.reroute(wire, own)
            op.outs = [own]
            op.copy_of = [wire]
            _localise(op)
            embedded.append(op)
        wire.readers = by_region.get(root, [])
    return embedded


def _constant_node(value: ir.Value, attribute: ir.Attr) -> ir.Node:
    node = ir.Node("", "Constant", [], [attribute], name=f"Constant_{value.name}")
    copy_facts(value, node.outputs[0])
    return node


# --- hoisting --------------------------------------------------------------------------------------------------------


class _Freedom(NamedTuple):
    """How far an operation may move.

    Attributes:
        depth: the least depth of a region where all that it needs is there.
        weight_free: nothing that it needs was computed with a weight: it is about shapes, masks and positions.
    """

    depth: int
    weight_free: bool


def _freedoms(ops: Iterable[Op]) -> dict[Op, _Freedom]:
    """How far up each operation can go.

    One that is missing stays: it draws random numbers, owns a body, or does a layer's work, a weight on an activation.
    What an optimizer folded (positions, a bias of distances) and is added to an activation is no layer's weight.
    """
    found: dict[Op, _Freedom] = {}
    for op in ops:
        operator, home = op.node.op_type, op.region
        if op.constant or op.has_bodies or draws_random_numbers(op.node):
            continue
        depth, weight, activation = 0, False, False
        for wire in op.reads:
            producer = wire.producer
            if producer is None:
                if wire.is_weight and not wire.is_embeddable:
                    maker = _maker_of_table(wire, op)
                    weight, activation = weight or maker is None, activation or maker is not None
                    depth = depth if maker is None else max(depth, maker.depth)
                continue
            if producer.constant:
                continue
            there = home.depth if producer.region is home else lowest_common(producer.region, home).depth
            known = found.get(producer)
            if known is not None and known.depth < there:
                there = known.depth
            depth = max(depth, there)
            if not activation and operator not in _SHAPE_ONLY:
                activation = known is None or not known.weight_free
        if not (weight and activation):
            found[op] = _Freedom(min(depth, home.depth), not (weight or activation))
    return found


def _maker_of_table(wire: Wire, op: Op) -> Region | None:
    """The module around that has a table, if a weight is one: what an optimizer folded for operations that only add it.

    That is where the parameters are of which it was folded (relative positions, for all layers); of what it was folded
    is not always told. None for a weight of the operation's own module, and for one that layers work with.
    """
    if not may_be_light(op) or is_parameter(wire.value):
        return None
    parameters = [name for name in folded_from(wire.value) if "." in name]
    if not parameters and op.node.op_type not in _ELEMENTWISE:
        return None
    region = op.region
    while region.parent is not None and not any(_lies_below(name, region.frame.path) for name in parameters):
        region = region.parent
    return None if region is op.region else region


def _lies_below(name: str, path: str) -> bool:
    """Whether a parameter is one of the module at ``path``, or of a module in it, behind whatever prefix names have."""
    return f".{path}." in f".{name}"


def _hoist_target(
    op: Op, root: Region, free: Callable[[], Mapping[Op, _Freedom]], demanded: Mapping[Op, Region]
) -> Region:
    """Where an operation goes: up to its readers if it may and must, else it stays."""
    home = op.region
    readers = [reader.region for wire in op.outs for reader in wire.readers]
    if any(wire.is_output for wire in op.outs):
        readers.append(root)
    if home is root or not readers:
        return home
    target = home
    for region in readers:
        target = lowest_common(target, region)
    if target is home:
        return home
    forced = op in demanded and lowest_common(demanded[op], target) is target
    module = _step_down(target, home)
    outside = [region for region in readers if not _lies_in(region, module)]
    if not forced and len(outside) == len(readers):
        return home  # what is read outside alone is returned
    freedom = free().get(op)
    if freedom is None or not (forced or freedom.weight_free or _is_work_of_likes(outside, module)):
        return home
    while target.depth < freedom.depth:
        target = _step_down(target, home)
    return target


def _is_work_of_likes(outside: Sequence[Region], module: Region) -> bool:
    """Whether like modules read a value outside of its module, which reads it too, and their caller does not.

    An exporter merged what each of them computed from the same input, and with it what other modules did (the
    activation of one embedding, in all blocks and the last layer). A value that is weight-free is shared work in any
    case; what a caller reads may be what the module returns.
    """
    return module.parent not in outside and any(_is_in_like_module(region, module) for region in outside)


def _is_in_like_module(region: Region, module: Region) -> bool:
    """Whether a region lies in a sibling of ``module``: an item of the same list, or another call."""
    assert module.parent is not None
    if region is module.parent or not _lies_in(region, module.parent):
        return False
    other = _step_down(module.parent, region)
    return other.frames[:-1] == module.frames[:-1] and kind_of_call(other.frame) == kind_of_call(module.frame)


def _stays_inside(op: Op) -> bool:
    """The common case, found fast: all readers lie where the operation does."""
    home = op.region
    for wire in op.outs:
        if wire.is_output:
            return False
        for reader in wire.readers:
            if reader.region is not home:
                return False
    return True


def _lies_in(region: Region, outer: Region) -> bool:
    return lowest_common(region, outer) is outer


def _step_down(target: Region, home: Region) -> Region:
    """The region one below ``target`` on the way to ``home``."""
    region = home
    while region.parent is not target:
        assert region.parent is not None
        region = region.parent
    return region
