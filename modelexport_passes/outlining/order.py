"""Bodies that are equal up to the order of their operations, or up to where a weight is copied or transposed.

Two like modules may run independent operations in another order, and an exporter may store one layer's weight
transposed where it transposes the next one's in the graph, or make it a copy of an equal one. Where the plain bodies of
a class differ, each is brought into one order that only its structure decides; if they are equal then, wire by wire,
the later ones take the order of the first. What else they differ in are views of weights (`_VIEWS`): these move to the
caller, and the call passes them as it passes a weight.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING

from modelexport_passes.outlining.flow import Op, Wire

if TYPE_CHECKING:
    from modelexport_passes.outlining.layout import Item
    from modelexport_passes.outlining.regions import Region
    from modelexport_passes.outlining.sharing import Bodies

Alike = MutableMapping[Hashable, "list[Region]"]
"""Key of a body -> the regions that have it."""

Moved = dict["Region", list[Op]]
"""Region -> operations that are to lie in its caller."""

_VIEWS = frozenset({"Identity", "Transpose"})
_OUTSIDE = (-1, 0)


def unite_up_to_order(alike: Alike, level: Sequence[Region], bodies: Bodies, *, views: bool) -> Moved:
    """Put regions of one class together whose bodies are equal up to order and, with ``views``, views of weights.

    Args:
        alike: the regions of a level by their plain bodies; those that are found equal are put under the first's key.
        level: the same regions in call order.
        bodies: the regions on their way to functions; those that are put to others take their order.
        views: look through views of weights.

    Returns:
        The views that are to move to the callers so that the bodies are equal.
    """
    by_class: dict[str, list[Hashable]] = defaultdict(list)
    for key, regions in alike.items():
        by_class[regions[0].frame.class_name].append(key)
    moved: Moved = {}
    several = [keys for keys in by_class.values() if len(keys) > 1]
    united = False
    for keys in several:
        left = _unite(keys, alike, bodies, None)
        if views and len(left) > 1:
            left = _unite(left, alike, bodies, moved)
        united = united or len(left) < len(keys)
    if united:
        # Those first called come first: their nodes become the bodies.
        position = {region: at for at, region in enumerate(level)}
        for regions in alike.values():
            regions.sort(key=position.__getitem__)
    return moved


def _unite(keys: Sequence[Hashable], alike: Alike, bodies: Bodies, moved: Moved | None) -> list[Hashable]:
    """Unite those of one class; returns the keys that are left. Views move if there is where to note them."""
    numbers: dict[Hashable, int] = {}
    found: dict[Hashable, list[tuple[Hashable, list[int]]]] = defaultdict(list)
    for key in keys:
        regions = alike[key]
        left_out = set[int]() if moved is None else _views(regions, bodies)
        order, form = _canonical_form(bodies.layout[regions[0]], left_out, bodies, numbers)
        found[form].append((key, order))
    for members in found.values():
        if len(members) > 1:
            _take_order_of_first(members, alike, bodies, moved)
    return [members[0][0] for members in found.values()]


def _take_order_of_first(
    members: Sequence[tuple[Hashable, list[int]]], alike: Alike, bodies: Bodies, moved: Moved | None
) -> None:
    (first, canonical), *others = members
    rank = {at: place for place, at in enumerate(canonical)}
    places = [rank[at] for at in sorted(rank)]
    for key, order in members:
        kept = set(order)
        for region in alike[key]:
            items = bodies.layout[region]
            left_out = [item for at, item in enumerate(items) if at not in kept and isinstance(item, Op)]
            if moved is not None and left_out:
                moved[region] = left_out
            # What is left out stays in front until it moves: it needs nothing but weights.
            bodies.layout[region] = [*left_out, *(items[order[place]] for place in places)]
    for key, _ in others:
        alike[first] += alike.pop(key)


def _views(regions: Iterable[Region], bodies: Bodies) -> set[int]:
    """Positions of items that, in all regions of one body, are a view of a weight which nothing outside reads."""
    common: set[int] | None = None
    for region in regions:
        results = set(bodies.results[region])
        made: set[Wire] = set()
        found: set[int] = set()
        for at, item in enumerate(bodies.layout[region]):
            if isinstance(item, Op) and _is_view(item, made) and results.isdisjoint(item.outs):
                made.update(item.outs)
                found.add(at)
        common = found if common is None else common & found
        if not common:
            break
    return common or set()


def _is_view(op: Op, views: Collection[Wire]) -> bool:
    if op.node.op_type not in _VIEWS or op.node.domain not in ("", "ai.onnx") or len(op.ins) != 1:
        return False
    wire = op.ins[0]
    return wire is not None and (wire.is_weight or wire in views)


def is_view_of_weight(wire: Wire) -> bool:
    """A copy or a transposition of a weight."""
    while (op := wire.producer) is not None:
        if op.node.op_type not in _VIEWS or op.node.domain not in ("", "ai.onnx") or op.ins[0] is None:
            return False
        wire = op.ins[0]
    return wire.is_weight


def _canonical_form(
    items: Sequence[Item], left_out: Collection[int], bodies: Bodies, numbers: dict[Hashable, int]
) -> tuple[list[int], Hashable]:
    """Positions of the items in an order that their structure decides, and the body in that order.

    Equal forms are equal bodies, whatever the order was good for: keys and wiring are compared as they are.
    """
    kept = [at for at in range(len(items)) if at not in left_out]
    keys = {at: bodies.item_key(items[at]) for at in kept}
    maker = {wire: (at, out) for at in kept for out, wire in enumerate(bodies.results_of(items[at]))}
    reads = {
        at: [None if wire is None else maker.get(wire, _OUTSIDE) for wire in bodies.reads_of(items[at])] for at in kept
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
        producers = {read[0] for read in reads[at] if read is not None and read != _OUTSIDE}
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
