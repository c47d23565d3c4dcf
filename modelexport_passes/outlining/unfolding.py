"""Shapes that an exporter folded in one module, and computes in the next from what that has itself made.

Such a shape is not there before the call, so it cannot be passed in (`margins.py`). But where it is proven that
computing gives the constant, the module that has the constant may compute as well: it takes *stand-ins* for the
operations that it lacks, and their result instead of its constant. The ledger says what stands in at which call;
inlining brings the constants back, and what only stood in goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelexport_passes.outlining.canonical import is_constant
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.known_values import KnownValues
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.margins import Margin, computes_shapes, find_margin, is_move
from modelexport_passes.outlining.order import Alike, canonical_form, several_bodies
from modelexport_passes.outlining.regions import Region, kind_of_call
from modelexport_passes.outlining.stand_ins import let_read, put_in, stand_in

if TYPE_CHECKING:
    from modelexport_passes.outlining.sharing import Bodies


class Folded(NamedTuple):
    """A constant that a stand-in takes the place of, for one who read it.

    Attributes:
        slot: which input of the reader.
        constant: the constant.
    """

    slot: int
    constant: Op


class _Member(NamedTuple):
    """Regions of one plain body.

    Attributes:
        regions: in call order.
        order: positions of what is compared, in canonical order: all but the light work at the front, as if shapes of
            what the body itself has made were known there, and what is moved for its shape alone.
        inner: positions of what computes such shapes.
    """

    regions: list[Region]
    order: list[int]
    inner: AbstractSet[int]


class _Side(NamedTuple):
    """One body of two that are compared.

    Attributes:
        region: whose body.
        items: what is compared, in canonical order.
        inner: what computes shapes of what the body itself has made.
        own: what the body makes.
    """

    region: Region
    items: list[Item]
    inner: set[Item]
    own: set[Wire]

    @classmethod
    def of(cls, region: Region, member: _Member, bodies: Bodies) -> _Side:
        """The body of one region of a member."""
        items = bodies.layout[region]
        own = {wire for item in items for wire in bodies.results_of(item)}
        return cls(region, [items[at] for at in member.order], {items[at] for at in member.inner}, own)


def unfold(alike: Alike, bodies: Bodies, known: KnownValues) -> bool:
    """Let modules compute what like ones compute and they have as constants.

    Args:
        alike: the regions of a level by their plain bodies; not changed.
        bodies: the regions on their way to functions.
        known: proves that what is computed is the constant.

    Returns:
        Whether some regions have other bodies now.
    """
    changed = False
    for keys in several_bodies(alike):
        for members in _like_members([alike[key] for key in keys], bodies):
            most = max(members, key=lambda member: len(member.inner))
            # Of the same place in another layer, the constants that shapes are made of are the same, too.
            models = {kind_of_call(region.frame): region for region in reversed(most.regions)}
            for member in members if most.inner else ():
                for region in member.regions if member is not most else ():
                    model = _Side.of(models.get(kind_of_call(region.frame), most.regions[0]), most, bodies)
                    pairing = _Pairing(model, _Side.of(region, member, bodies), bodies)
                    changed = pairing.settle(known) or changed
    return changed


def _like_members(several: Sequence[list[Region]], bodies: Bodies) -> list[list[_Member]]:
    """Put those together that are equal in what is compared, if any of them computes shapes inside."""
    if not any(computes_shapes(bodies.layout[regions[0]]) for regions in several):
        return []
    fronts = [_front_through_shapes(regions, bodies) for regions in several]
    inner = [front - find_margin(regions, bodies).front for regions, front in zip(several, fronts, strict=True)]
    numbers: dict[Hashable, int] = {}
    found: dict[Hashable, list[_Member]] = defaultdict(list)
    for regions, front, computing in zip(several, fronts, inner, strict=True) if any(inner) else ():
        order, form = canonical_form(bodies.layout[regions[0]], front, bodies, numbers)
        found[form].append(_Member(regions, order, computing))
    return list(found.values())


def _front_through_shapes(regions: Sequence[Region], bodies: Bodies) -> AbstractSet[int]:
    """Positions of the light work at the front if shapes were known there, and of what is moved for its shape alone."""
    margin = find_margin(regions, bodies, through_shapes=True)
    first, *others = [_moved_for_shapes(region, margin, bodies) for region in regions]
    return margin.front | first.intersection(*others)


def _moved_for_shapes(region: Region, margin: Margin, bodies: Bodies) -> set[int]:
    """Positions of what moves data that only shapes are taken of: the exporter fused the move into another."""
    needed = set(bodies.results[region])
    found: set[int] = set()
    for at, item in reversed(list(enumerate(bodies.layout[region]))):
        if at in margin.front:
            continue
        if is_move(item) and needed.isdisjoint(bodies.results_of(item)):
            found.add(at)
        else:
            needed.update(wire for wire in bodies.reads_of(item) if wire is not None)
    return found


class _Pairing:
    """Which values of one body are which in another.

    Args:
        model: the body that computes.
        other: the one that has constants.
        bodies: the regions on their way to functions.
    """

    def __init__(self, model: _Side, other: _Side, bodies: Bodies) -> None:
        self._model = model
        self._other = other
        self._bodies = bodies
        self._there: dict[Wire, Wire] = {}
        self._partner: dict[Op, Op] = {}
        self._folded: list[tuple[Item, Folded, Wire]] = []

    def settle(self, known: KnownValues) -> bool:
        """Let the other body compute its constants, if that is all in which they differ and it is proven."""
        if not self._find():
            return False
        stand_ins = self._stand_ins()
        if stand_ins is None or not self._is_proven(known):
            return False
        self._put_in(stand_ins)
        return True

    def _find(self) -> bool:
        """Walk both bodies at once; whether folded constants are all in which they differ."""
        for item, other in zip(self._model.items, self._other.items, strict=True):
            self._there.update(zip(self._bodies.results_of(item), self._bodies.results_of(other), strict=False))
            if not self._pair_reads(item, other):
                return False
        return bool(self._folded) and self._are_read_by_none_else()

    def _pair_reads(self, item: Item, other: Item) -> bool:
        waiting = [(item, other)]
        while waiting:
            item, other = waiting.pop()
            reads, other_reads = self._bodies.reads_of(item), self._bodies.reads_of(other)
            if len(reads) != len(other_reads):
                return False
            for slot, (wire, other_wire) in enumerate(zip(reads, other_reads, strict=True)):
                if wire is None or other_wire is None:
                    if wire is not other_wire:
                        return False
                    continue
                more = self._pair(wire, other_wire, other, slot)
                if more is None:
                    return False
                waiting += more
        return True

    def _pair(self, wire: Wire, other_wire: Wire, reader: Item, slot: int) -> list[tuple[Op, Op]] | None:
        """Operations to pair next; None if the values are not alike."""
        op, other = wire.producer, other_wire.producer
        if op is None or op not in self._model.inner:
            self._there.setdefault(wire, other_wire)
            return None if other is not None and other in self._other.inner else []
        if other is None or other_wire not in self._other.own:
            return None
        if is_constant(other) and "value" in other.node.attributes:
            self._folded.append((reader, Folded(slot, other), wire))
            return []
        if self._partner.setdefault(other, op) is not op:
            return None
        keys = [self._bodies.item_key(one) for one in (op, other)]
        if keys[0] != keys[1] or op.outs.index(wire) != other.outs.index(other_wire):
            return None
        known = wire in self._there
        self._there[wire] = other_wire
        return [] if known else [(op, other)]

    def _are_read_by_none_else(self) -> bool:
        """The constants are no longer needed then."""
        folded = {(reader, folded.slot) for reader, folded, _ in self._folded}
        constants = {folded.constant.outs[0] for _, folded, _ in self._folded}
        if not constants.isdisjoint(self._bodies.results[self._other.region]):
            return False
        return all(
            wire not in constants or ((item, slot) in folded and (not isinstance(item, Op) or slot < len(item.ins)))
            for item in self._bodies.layout[self._other.region]
            for slot, wire in enumerate(self._bodies.reads_of(item))
        )

    def _stand_ins(self) -> list[Op] | None:
        """The operations that are to stand in, in order; None if one needs what is not there."""
        made: list[Op] = []
        waiting = [wire for _, _, wire in reversed(self._folded)]
        while waiting:
            wire = waiting[-1]
            if wire in self._there:
                waiting.pop()
            elif wire.producer is None:
                self._there[wire] = wire  # the whole graph has it
            elif wire not in self._model.own:
                return None
            elif missing := [read for read in wire.producer.reads if read not in self._there]:
                waiting += missing
            else:
                made.append(stand_in(wire.producer, self._model.region, self._other.region, self._there))
                self._there.update(zip(wire.producer.outs, made[-1].outs, strict=True))
        return made

    def _is_proven(self, known: KnownValues) -> bool:
        """Whether what is computed is what the constants hold."""
        for _, folded, wire in self._folded:
            computed = known.content(self._there[wire])
            held = folded.constant.node.attributes["value"].as_tensor().numpy()
            if computed is None or computed.dtype != held.dtype or not np.array_equal(computed, held):
                return False
        return True

    def _put_in(self, stand_ins: Sequence[Op]) -> None:
        """Let the region compute."""
        bodies = self._bodies
        for reader, folded, wire in self._folded:
            let_read(reader, folded.slot, self._there[wire], bodies)
            bodies.folded.setdefault(reader, []).append(folded)
        constants = {folded.constant for _, folded, _ in self._folded}
        put_in(stand_ins, self._other.region, bodies, instead_of=constants)
