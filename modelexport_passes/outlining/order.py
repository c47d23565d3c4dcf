"""Bodies that are equal up to the order of their operations, or up to light operations at their edges.

Two like modules may run independent operations in another order, and an exporter may store one layer's weight
transposed where it transposes the next one's in the graph, or fold a shape in the one that it computes in the other.
Where the plain bodies of a class differ, each is brought into one order that only its structure decides; if they are
equal then, wire by wire, the later ones take the order of the first. The same is tried without the margins
(`margins.py`); what not all bodies have in these moves to the caller.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Hashable, MutableMapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from modelexport_passes.outlining.canonical import Kind, common_kinds, kind_of
from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.margins import (
    OUTSIDE,
    Body,
    Leaving,
    Margin,
    find_margin,
    keep_common,
    read_body,
    work_of,
)

if TYPE_CHECKING:
    from modelexport_passes.outlining.layout import Item
    from modelexport_passes.outlining.regions import Region
    from modelexport_passes.outlining.sharing import Bodies

Alike = MutableMapping[Hashable, "list[Region]"]
"""Key of a body -> the regions that have it."""

Moved = dict["Region", Leaving]
"""Region -> operations that are to lie in its caller."""


def unite_up_to_order(alike: Alike, level: Sequence[Region], bodies: Bodies, *, margins: bool) -> Moved:
    """Put regions of one class together whose bodies are equal up to order and, with ``margins``, up to these.

    Args:
        alike: the regions of a level by their plain bodies; those that are found equal are put under the first's key.
        level: the same regions in call order.
        bodies: the regions on their way to functions; those that are put to others take their order.
        margins: look through what differs at the edges of bodies.

    Returns:
        What is to move to the callers so that the bodies are equal.
    """
    moved: Moved = {}
    united = False
    for keys in several_bodies(alike):
        left = _unite(keys, alike, bodies)
        if margins and len(left) > 1:
            left = _unite_but_for_margins(left, alike, bodies, moved)
        united = united or len(left) < len(keys)
    if united:
        # Those first called come first: their nodes become the bodies.
        position = {region: at for at, region in enumerate(level)}
        for regions in alike.values():
            regions.sort(key=position.__getitem__)
    return moved


def several_bodies(alike: Alike) -> list[list[Hashable]]:
    """The keys of each class that has more than one body."""
    by_class: dict[str, list[Hashable]] = defaultdict(list)
    for key, regions in alike.items():
        by_class[regions[0].frame.class_name].append(key)
    return [keys for keys in by_class.values() if len(keys) > 1]


def by_work(keys: Sequence[Hashable], alike: Alike, bodies: Bodies) -> list[list[Hashable]]:
    """Put the keys of bodies together that do the same work: others are not equal, whatever is light in them."""
    found: dict[Hashable, list[Hashable]] = defaultdict(list)
    for key in keys:
        found[work_of(bodies.layout[alike[key][0]], bodies)].append(key)
    return list(found.values())


class _Member(NamedTuple):
    """The regions of one plain body.

    Attributes:
        key: under which they stand.
        order: positions of the items that are compared, in canonical order.
        margin: what is not compared.
    """

    key: Hashable
    order: list[int]
    margin: Margin = Margin()


def _unite(keys: Sequence[Hashable], alike: Alike, bodies: Bodies) -> list[Hashable]:
    """Unite those of one class that differ in order; returns the keys that are left."""
    numbers: dict[Hashable, int] = {}
    found: dict[Hashable, list[_Member]] = defaultdict(list)
    for key in keys:
        order, form = canonical_form(bodies.layout[alike[key][0]], (), bodies, numbers)
        found[form].append(_Member(key, order))
    for members in found.values():
        if len(members) > 1:
            _take_order_of_first(members, [_numbered(member.order) for member in members], alike, bodies)
    return [members[0].key for members in found.values()]


def _unite_but_for_margins(keys: Sequence[Hashable], alike: Alike, bodies: Bodies, moved: Moved) -> list[Hashable]:
    """Unite those of one class that differ in their margins; returns the keys that are left."""
    of_one_work = by_work(keys, alike, bodies)
    numbers: dict[Hashable, int] = {}
    found: dict[Hashable, list[_Member]] = defaultdict(list)
    left = [same[0] for same in of_one_work if len(same) == 1]
    for key in (key for same in of_one_work if len(same) > 1 for key in same):
        margin = find_margin(alike[key], bodies)
        items = bodies.layout[alike[key][0]]
        order, form = canonical_form(items, margin.all, bodies, numbers)
        if order:
            found[form].append(_Member(key, order, margin))
        else:
            left.append(key)  # all of it is margin
    for members in found.values():
        first, *others = members
        left.append(first.key)
        equal = [first]
        for other in others:
            if _may_share([first, other], alike, bodies):
                equal.append(other)
            else:
                left.append(other.key)
        if len(equal) > 1:
            _take_order_of_first(equal, _common_places(equal, alike, bodies), alike, bodies, moved)
    return left


def _common_places(members: Sequence[_Member], alike: Alike, bodies: Bodies) -> list[dict[int, int]]:
    """For each body, the positions of what stays in it, with numbers that are common to all."""
    found: list[Body] = [
        read_body(bodies.layout[alike[member.key][0]], member.margin, member.order, bodies) for member in members
    ]
    keep_common(found)
    return [body.places for body in found]


def _may_share(members: Sequence[_Member], alike: Alike, bodies: Bodies) -> bool:
    """Whether what comes from outside is of one dtype and rank, and something of what is compared is used outside."""
    known: list[Kind] | None = None
    for member in members:
        for region in alike[member.key]:
            items = bodies.layout[region]
            kept = [items[at] for at in member.order]
            made = {wire for item in kept for wire in bodies.results_of(item)}
            reads = [wire for item in kept for wire in bodies.reads_of(item) if wire is not None]
            kinds = [kind_of(wire) for wire in reads if wire not in made]
            known = kinds if known is None else common_kinds(known, kinds)
            if known is None:
                return False
            behind = {wire for at in member.margin.back for wire in bodies.reads_of(items[at])}
            if made.isdisjoint(bodies.results[region]) and made.isdisjoint(behind):
                return False
    return True


def _numbered(order: Sequence[int]) -> dict[int, int]:
    return {at: place for place, at in enumerate(order)}


def _take_order_of_first(
    members: Sequence[_Member],
    places: Sequence[dict[int, int]],
    alike: Alike,
    bodies: Bodies,
    moved: Moved | None = None,
) -> None:
    """Let all regions have the items in the order of the first; what has no place is noted to move."""
    first = members[0]
    sequence = [places[0][at] for at in sorted(places[0])]
    for member, kept in zip(members, places, strict=True):
        position = {place: at for at, place in kept.items()}
        for region in alike[member.key]:
            items = bodies.layout[region]
            left_out = [(at, item) for at, item in enumerate(items) if at not in kept and isinstance(item, Op)]
            bodies.layout[region] = [items[position[place]] for place in sequence]
            if moved is not None and left_out:
                moved[region] = Leaving(
                    [item for at, item in left_out if at in member.margin.front],
                    [item for at, item in left_out if at in member.margin.back],
                )
    for member in members[1:]:
        alike[first.key] += alike.pop(member.key)


def canonical_form(
    items: Sequence[Item],
    left_out: Collection[int],
    bodies: Bodies,
    numbers: dict[Hashable, int],
    *,
    through: Collection[int] = (),
) -> tuple[list[int], Hashable]:
    """Positions of the items in an order that their structure decides, and the body in that order.

    The result of those of ``left_out`` that are in ``through`` counts as what their first input is.

    Equal forms are equal bodies, whatever the order was good for: keys and wiring are compared as they are.
    """
    kept = [at for at in range(len(items)) if at not in left_out]
    keys = {at: bodies.item_key(items[at]) for at in kept}
    maker = {wire: (at, out) for at in kept for out, wire in enumerate(bodies.results_of(items[at]))}
    for at in sorted(through):
        source = bodies.reads_of(items[at])[0]
        if source in maker:
            maker[bodies.results_of(items[at])[0]] = maker[source]
    reads = {
        at: [None if wire is None else maker.get(wire, OUTSIDE) for wire in bodies.reads_of(items[at])] for at in kept
    }
    order = _order(kept, _colours(kept, keys, reads, numbers), reads)
    place = {at: number for number, at in enumerate(order)}
    place[-1] = -1
    form = tuple(
        (keys[at], tuple([None if read is None else (place[read[0]], read[1]) for read in reads[at]])) for at in order
    )
    return order, form


Reads = dict[int, list[tuple[int, int] | None]]
"""Position of an item -> for each input, the position of the item and the output that it comes from."""


def _colours(
    kept: Sequence[int], keys: dict[int, Hashable], reads: Reads, numbers: dict[Hashable, int]
) -> dict[int, int]:
    """A number for each item, from what it does, what it is made of and what is made of it.

    ``numbers`` is common to the bodies that are compared: equal structure, equal number.
    """
    made_of: dict[int, int] = {-1: -1}
    for at in kept:
        ins = tuple([None if read is None else (made_of[read[0]], read[1]) for read in reads[at]])
        made_of[at] = numbers.setdefault((keys[at], ins), len(numbers))
    colours: dict[int, int] = {}
    uses: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for at in reversed(kept):
        colours[at] = numbers.setdefault((made_of[at], tuple(sorted(uses[at]))), len(numbers))
        for slot, read in enumerate(reads[at]):
            if read is not None:
                uses[read[0]].append((colours[at], slot, read[1]))
    return colours


def _order(kept: Sequence[int], colours: dict[int, int], reads: Reads) -> list[int]:
    """Kahn's algorithm: by colour, then by where the inputs stand, then by position."""
    waiting: dict[int, int] = {}
    readers: dict[int, list[int]] = defaultdict(list)
    for at in kept:
        producers = {read[0] for read in reads[at] if read is not None and read != OUTSIDE}
        waiting[at] = len(producers)
        for producer in producers:
            readers[producer].append(at)
    place: dict[int, int] = {-1: -1}

    def entry(at: int) -> tuple[int, list[int], int]:
        return (colours[at], [-1 if read is None else place[read[0]] for read in reads[at]], at)

    ready = [entry(at) for at in kept if not waiting[at]]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        at = heapq.heappop(ready)[-1]
        place[at] = len(order)
        order.append(at)
        for reader in readers[at]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, entry(reader))
    return order
