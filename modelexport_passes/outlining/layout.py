"""Layout: the order of operations and calls in each region, if there is one. If there is none, a region is not convex.

A region is convex when no path leaves it and comes back. Then the regions and operations directly inside a region,
each region taken as one item, have a topological order. Where they have not, regions on the cycle cannot be cut.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.placement import return_to_original
from modelexport_passes.outlining.regions import Region, lowest_common

Item = Op | Region
Edges = dict[Item, dict[Item, None]]


@dataclass(frozen=True)
class Obstacle:
    """Why a region could not be cut.

    Attributes:
        region: the module call.
        between: operations and module calls that lie between two parts of it.
    """

    region: Region
    between: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.region} is not convex: {', '.join(self.between)} between its operations"


def lay_out(every: Sequence[Op], root: Region) -> tuple[dict[Region, list[Item]], list[Obstacle]]:
    """Order the items of every region, dissolving regions that are not convex.

    Returns:
        Region -> its items in order, empty regions left out; and what was dissolved, with the reason.
    """
    obstacles: list[Obstacle] = []
    while True:
        ops = _by_position(every)
        levels = _items(ops, root)
        edges = edges_at(_out_of_order(ops, levels), ops)
        layout: dict[Region, list[Item]] = {}
        stuck: list[tuple[Edges, list[Item]]] = []
        for region, items in levels.items():
            order = topological_order(items, edges[region]) if region in edges else items
            layout[region] = order if region is root else _constants_before_readers(order)
            if len(order) < len(items):
                placed = set(order)
                stuck.append((edges[region], [item for item in items if item not in placed]))
        if not stuck:
            return layout, obstacles
        found = [
            obstacle for level, items in stuck for cycle in _cycles(items, level) for obstacle in _obstacles(cycle, ops)
        ]
        obstacles += found
        dissolve([obstacle.region for obstacle in found], ops, root)


def _by_position(ops: Iterable[Op]) -> list[Op]:
    """Operations by where they are in the graph; a constant made for a reader that stood there first, before it."""
    return sorted([op for op in ops if not op.withdrawn], key=lambda op: 2 * op.order - op.constant)


def _items(ops: Iterable[Op], root: Region) -> dict[Region, list[Item]]:
    """The items of each region, in the order in which they begin; ``ops`` are in order.

    A call begins with its first operation that is no constant: these may be copies of one that stands anywhere.
    """
    items: dict[Region, list[Item]] = {root: []}
    begun = {root}

    def begin(region: Region) -> None:
        while region not in begun:
            begun.add(region)
            assert region.parent is not None
            items.setdefault(region.parent, []).append(region)
            region = region.parent

    for op in ops:
        items.setdefault(op.region, []).append(op)
        if op.region not in begun and not op.constant:
            begin(op.region)
    for region in list(items):
        begin(region)
    return items


def _out_of_order(ops: Iterable[Op], levels: Mapping[Region, Sequence[Item]]) -> set[Region]:
    """Regions whose items cannot run by position. Where they can, that is the order Kahn's algorithm would find."""
    rank = {item: at for items in levels.values() for at, item in enumerate(items)}
    found: set[Region] = set()
    for op in ops:
        region = op.region
        for wire in op.reads:
            producer = wire.producer
            if producer is None:
                continue
            if producer.region is region:
                # A graph is in order (`read_graph`): only what was made or moved may not be.
                if producer.order >= op.order and rank[producer] > rank[op]:
                    found.add(region)
                continue
            level = lowest_common(producer.region, region)
            before, after = _item_at(producer, level), _item_at(op, level)
            if rank[before] > rank[after]:
                found.add(level)
    return found


def edges_at(levels: Iterable[Region], ops: Iterable[Op]) -> dict[Region, Edges]:
    """For each of these regions, which of its items must come before which."""
    edges: dict[Region, Edges] = {region: defaultdict(dict) for region in levels}
    for op in ops if edges else ():
        for wire in op.reads:
            producer = wire.producer
            if producer is None:
                continue
            level = lowest_common(producer.region, op.region)
            if level in edges:
                before, after = _item_at(producer, level), _item_at(op, level)
                edges[level][before][after] = None
    return edges


def _item_at(op: Op, level: Region) -> Item:
    """The item of ``level`` that an operation in it is, or lies in."""
    if op.region is level:
        return op
    region = op.region
    while region.parent is not level:
        assert region.parent is not None
        region = region.parent
    return region


def topological_order(items: Sequence[Item], edges: Edges) -> list[Item]:
    """Kahn's algorithm, the earliest of ``items`` first; shorter than ``items`` if there is a cycle."""
    waiting: dict[Item, int] = dict.fromkeys(items, 0)
    for followers in edges.values():
        for item in followers:
            waiting[item] += 1
    position = {item: at for at, item in enumerate(items)}
    ready = [at for at, item in enumerate(items) if not waiting[item]]  # in order: a heap already
    order: list[Item] = []
    while ready:
        item = items[heapq.heappop(ready)]
        order.append(item)
        for follower in edges.get(item, ()):
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, position[follower])
    return order


def _constants_before_readers(order: Sequence[Item]) -> list[Item]:
    """Each constant right before what reads it first: where an exporter put it differs between like modules."""
    result: list[Item] = []
    waiting = dict.fromkeys([item for item in order if isinstance(item, Op) and item.constant])
    if not waiting:
        return list(order)

    def emit(op: Op) -> None:
        for wire in op.reads:
            producer = wire.producer
            if producer is not None and producer.constant and producer in waiting:
                del waiting[producer]
                emit(producer)
        result.append(op)

    for item in order:
        if isinstance(item, Region):
            result.append(item)
        elif not item.constant:
            emit(item)
    result.extend(waiting)
    return result


def _cycles(items: Sequence[Item], edges: Edges) -> list[list[Item]]:
    """Strongly connected components of more than one item (Tarjan 1972, without recursion)."""
    index: dict[Item, int] = {}
    low: dict[Item, int] = {}
    path: list[Item] = []
    on_path: set[Item] = set()
    found: list[list[Item]] = []
    for start in items:
        if start in index:
            continue
        work = [(start, iter(edges.get(start, ())))]
        index[start] = low[start] = len(index)
        path.append(start)
        on_path.add(start)
        while work:
            item, followers = work[-1]
            follower = next(followers, None)
            if follower is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[item])
                if low[item] == index[item]:
                    component: list[Item] = []
                    while not component or component[-1] is not item:
                        component.append(path.pop())
                        on_path.discard(component[-1])
                    if len(component) > 1:
                        found.append(component)
            elif follower not in index:
                index[follower] = low[follower] = len(index)
                path.append(follower)
                on_path.add(follower)
                work.append((follower, iter(edges.get(follower, ()))))
            elif follower in on_path:
                low[item] = min(low[item], index[follower])
    return found


def _obstacles(cycle: Sequence[Item], ops: Sequence[Op]) -> list[Obstacle]:
    """Which regions of a cycle to give up: those that are not convex by themselves, else the one that costs least."""
    regions = [item for item in cycle if isinstance(item, Region)]
    member = _membership(cycle, ops)
    broken = [region for region in regions if _comes_back(region, member)]
    if not broken:
        weights: Counter[Region] = Counter()
        for op, item in member.items():
            if isinstance(item, Region):
                weights[item] += op.weight
        broken = [min(regions, key=lambda region: (weights[region], region.frames))]
    return [_obstacle(region, cycle) for region in broken]


def _membership(cycle: Sequence[Item], ops: Sequence[Op]) -> dict[Op, Item]:
    """For the operations in a cycle, which of its items they are, or lie in."""
    items = set(cycle)
    member: dict[Op, Item] = {}
    for op in ops:
        if op in items:
            member[op] = op
            continue
        region: Region | None = op.region
        while region is not None and region not in items:
            region = region.parent
        if region is not None:
            member[op] = region
    return member


def _comes_back(region: Region, member: Mapping[Op, Item]) -> bool:
    """Whether a path of operations leaves the region and comes back."""
    work = [op for op, item in member.items() if item is region]
    seen: set[Op] = set(work)
    while work:
        op = work.pop()
        outside = member[op] is not region
        for reader in (reader for wire in op.outs for reader in wire.readers if reader in member):
            if member[reader] is region:
                if outside:
                    return True
            elif reader not in seen:
                seen.add(reader)
                work.append(reader)
    return False


def _obstacle(region: Region, cycle: Sequence[Item]) -> Obstacle:
    between = sorted(_describe(item) for item in cycle if item is not region)
    return Obstacle(region, tuple(between[:3]))


def _describe(item: Item) -> str:
    return str(item) if isinstance(item, Region) else item.node.name or f"an unnamed {item.node.op_type}"


def dissolve(regions: Iterable[Region], ops: Iterable[Op], root: Region) -> None:
    """Give the operations of these regions to the regions above."""
    gone = set(regions)
    for region in gone:
        region.dissolve()
    for op in ops:
        while op.region in gone:
            assert op.region.parent is not None
            op.region = op.region.parent
            if op.region is root and op.copy_of is not None:
                return_to_original(op, root)
