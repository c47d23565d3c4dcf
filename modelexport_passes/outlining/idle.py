"""Moves that do nothing in one module and something in the next, and that an exporter left out where they do nothing.

An Expand to the size that is there already is dropped by an optimizer, and a layer that attends within windows is
written without the Reshape that puts windows together. Such a module may have what the like one has, in a form that
does nothing at its sizes. It is a *stand-in*; inlining takes it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from modelexport_passes.fast_nodes import own_shape, own_type
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.known_values import KnownValues
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.margins import find_margin
from modelexport_passes.outlining.order import Alike, by_work, canonical_form, several_bodies
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.stand_ins import let_read, put_in, stand_in

if TYPE_CHECKING:
    from modelexport_passes.outlining.sharing import Bodies

_INPUTS = {"Cast": 1, "Expand": 2, "Identity": 1, "Reshape": 2, "Tile": 2}
"""Operators that give what they take where that has the dtype or the size that they make, and their inputs: data, and a
size."""


class _Member(NamedTuple):
    """Regions of one plain body.

    Attributes:
        regions: in call order.
        order: positions of what is compared, in canonical order: neither the margins nor the moves.
        moves: positions of what may do nothing in a like module.
    """

    regions: list[Region]
    order: list[int]
    moves: AbstractSet[int]


class _Side(NamedTuple):
    """One body of two that are compared.

    Attributes:
        items: what is compared, in canonical order.
        moves: what a move makes -> the move.
    """

    items: list[Item]
    moves: Mapping[Wire, Op]

    @classmethod
    def of(cls, region: Region, member: _Member, bodies: Bodies) -> _Side:
        """The body of one region of a member."""
        items = bodies.layout[region]
        moves = [item for at in member.moves if isinstance(item := items[at], Op)]
        return cls([items[at] for at in member.order], {move.outs[0]: move for move in moves})

    def made_by(self, wire: Wire) -> list[Op]:
        """The moves that make a value of one that no move makes, first done first."""
        made: list[Op] = []
        while wire in self.moves:
            made.append(self.moves[wire])
            wire = made[-1].reads[0]
        return made[::-1]


class _Lacking(NamedTuple):
    """What one body reads as it is where another reads it moved.

    Attributes:
        reader: whose input it is.
        slot: which.
        wire: what is read.
        moves: what the other body does to it first, each with the sizes for which it does nothing.
    """

    reader: Item
    slot: int
    wire: Wire
    moves: Sequence[tuple[Op, list[list[int]]]]


def stand_idle(alike: Alike, bodies: Bodies, known: KnownValues) -> bool:
    """Let modules have the moves of like ones, where they lack them and all else is equal.

    Args:
        alike: the regions of a level by their plain bodies; not changed.
        bodies: the regions on their way to functions.
        known: tells the size and dtype of what is to be moved.

    Returns:
        Whether some regions have other bodies now.
    """
    changed = False
    of_one_work = [same for keys in several_bodies(alike) for same in by_work(keys, alike, bodies)]
    for members in (found for same in of_one_work for found in _like_members([alike[key] for key in same], bodies)):
        most = max(members, key=lambda member: len(member.moves))
        for member in members:
            for region in member.regions if len(member.moves) < len(most.moves) else ():
                changed = _give(region, member, most, bodies, known) or changed
    return changed


def _like_members(several: Sequence[list[Region]], bodies: Bodies) -> list[list[_Member]]:
    """Put those together that are equal but for margins and moves, if they differ in how many moves they have."""
    if len(several) < 2:
        return []
    margins = [find_margin(regions, bodies).all for regions in several]
    moves = [
        _moves(bodies.layout[regions[0]], margin, bodies) for regions, margin in zip(several, margins, strict=True)
    ]
    if len(set(map(len, moves))) < 2:
        return []
    numbers: dict[Hashable, int] = {}
    found: dict[Hashable, list[_Member]] = defaultdict(list)
    for regions, margin, skipped in zip(several, margins, moves, strict=True):
        items = bodies.layout[regions[0]]
        order, form = canonical_form(items, margin | skipped, bodies, numbers, through=skipped)
        found[form].append(_Member(regions, order, skipped))
    return list(found.values())


def _moves(items: Sequence[Item], margin: AbstractSet[int], bodies: Bodies) -> set[int]:
    """Positions of moves in the midst of a body to a size that is there before the call."""
    made = {wire for at, item in enumerate(items) if at not in margin for wire in bodies.results_of(item)}
    found = [at for at, item in enumerate(items) if at not in margin and isinstance(item, Op) and _may_do_nothing(item)]
    return {at for at in found if made.isdisjoint(bodies.reads_of(items[at])[1:])}


def _may_do_nothing(op: Op) -> bool:
    return len(op.reads) == _INPUTS.get(op.node.op_type) and op.node.domain == ""


def _give(region: Region, member: _Member, most: _Member, bodies: Bodies, known: KnownValues) -> bool:
    """Let a region have the moves that it lacks, if that is all in which it differs."""
    model = most.regions[0]
    lacking = _find_lacking(_Side.of(region, member, bodies), _Side.of(model, most, bodies), bodies, known)
    stand_ins: list[Op] = []
    moved: dict[tuple[Wire, Op], Wire] = {}
    for reader, slot, wire, moves in lacking:
        read = wire
        for move, sizes in moves:
            if (read, move) not in moved:
                made = _idle(move, sizes, model, read, region)
                stand_ins += made
                bodies.idle.add(made[-1])
                moved[read, move] = made[-1].outs[0]
            read = moved[read, move]
        let_read(reader, slot, read, bodies)
    if stand_ins:
        put_in(stand_ins, region, bodies)
    return bool(stand_ins)


def _idle(move: Op, sizes: Sequence[list[int]], model: Region, wire: Wire, region: Region) -> list[Op]:
    """What stands in for a move of another region, doing nothing to this value; before it, the sizes that it takes."""
    constants = [_constant(move, size, region) for size in sizes]
    there = [wire, *(constant.outs[0] for constant in constants)]
    idle = stand_in(move, model, region, dict(zip(move.reads, there, strict=True)))
    result = idle.outs[0].value
    result.type, result.shape = own_type(wire.value.type), own_shape(wire.value.shape)
    for constant in constants:
        constant.scope = idle.scope
    return [*constants, idle]


def _find_lacking(ours: _Side, theirs: _Side, bodies: Bodies, known: KnownValues) -> list[_Lacking]:
    """Walk two bodies at once; nothing if they differ in more than in moves that the first lacks."""
    lacking: list[_Lacking] = []
    for reader, other_reader in zip(ours.items, theirs.items, strict=True):
        reads = zip(bodies.reads_of(reader), bodies.reads_of(other_reader), strict=True)
        for slot, (wire, other) in enumerate(reads):
            if wire is None or other is None:
                continue  # both, as the forms are equal
            made, other_made = ours.made_by(wire), theirs.made_by(other)
            if [bodies.item_key(move) for move in made] == [bodies.item_key(move) for move in other_made]:
                continue
            if made or (isinstance(reader, Op) and slot >= len(reader.ins)):
                return []
            stay = [(move, _sizes_that_stay(wire, move, known)) for move in other_made]
            moves = [(move, sizes) for move, sizes in stay if sizes is not None]
            if len(moves) < len(stay):
                return []
            lacking.append(_Lacking(reader, slot, wire, moves))
    return lacking


def _sizes_that_stay(wire: Wire, move: Op, known: KnownValues) -> list[list[int]] | None:
    """The sizes for which a move gives what it takes: one or, where it takes none, none; None if nothing is known."""
    operator = move.node.op_type
    if operator == "Identity":
        return []
    if operator == "Cast":
        return [] if known.dtype(wire) == move.node.attributes["to"].as_int() else None
    sizes = known.sizes(wire)
    if sizes is None:
        return None
    if operator in ("Expand", "Tile"):
        return [[1] * len(sizes)]
    allowzero = move.node.attributes.get("allowzero")
    if allowzero is None or allowzero.as_int() == 0:
        return [[0] * len(sizes)]
    told = [-1 if size is None else size for size in sizes]
    return [told] if -1 not in told or (told.count(-1) == 1 and 0 not in told) else None


def _constant(move: Op, sizes: Sequence[int], region: Region) -> Op:
    """A constant for a region, for what stands in for a move to take."""
    name = f"{move.outs[0].value.name}_size"
    tensor = ir.tensor(np.array(sizes, np.int64))
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=name)
    value = node.outputs[0]
    value.name, value.type, value.shape = name, ir.TensorType(tensor.dtype), ir.Shape([len(sizes)])
    op = Op(node, move.order, region, None)
    op.stands_in = op.constant = True
    op.outs = [Wire(value, op)]
    return op
