"""Splitting: a module call that others lie between becomes several calls, one for each part that can be cut.

Layout gives such a region up: its operations then lie among those of its caller, in an order that exists. Here they are
gathered again. The order is taken anew, staying with one given-up region as long as something of it is ready, and every
uninterrupted run becomes a region of its own. The runs of an order that exists are convex, each alone and all together.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.layout import Edges, Item, Obstacle, edges_at, lay_out
from modelexport_passes.outlining.placement import place_constants
from modelexport_passes.outlining.regions import Frames, Region

Layout = Mapping[Region, Sequence[Item]]


@dataclass(frozen=True)
class Split:
    """A module call that becomes several calls.

    Attributes:
        parts: the regions, in order.
        between: operations and module calls that lie between them.
    """

    parts: tuple[Region, ...]
    between: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.parts[0].frame} into {len(self.parts)} parts: {', '.join(self.between)} between its operations"


def lay_out_in_parts(ops: list[Op], root: Region) -> tuple[dict[Region, list[Item]], list[Obstacle]]:
    """`lay_out`, with the regions that it gives up made into parts. Clones of constants for these join ``ops``.

    Returns:
        The layout, and why which regions were given up.
    """
    homes: dict[Item, Region | None] = {op: op.region for op in ops if not op.withdrawn}
    homes |= {region: region.parent for region in root.descend()}
    layout, given_up = lay_out(ops, root)
    if not given_up:
        return layout, []
    _Gathering(ops, homes).gather(layout)
    ops += place_constants(ops, root)
    layout, unsplit = lay_out(ops, root)
    assert not unsplit, f"parts can be cut: {unsplit}"
    return layout, given_up


def number_parts(layout: Layout, root: Region, given_up: Iterable[Obstacle]) -> list[Split]:
    """Number the parts of every module call that has several, in the order in which they run."""
    found: dict[Frames, list[Region]] = defaultdict(list)
    stack: list[Item] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, Region):
            found[item.frames].append(item)
            stack.extend(reversed(layout[item]))
    between: dict[Frames, tuple[str, ...]] = {}
    for obstacle in given_up:
        between.setdefault(obstacle.region.frames, obstacle.between)
    splits = [Split(tuple(parts), between[frames]) for frames, parts in found.items() if len(parts) > 1]
    for split in splits:
        for number, region in enumerate(split.parts, 1):
            region.part = number
    return splits


class _Gathering:
    """Makes parts of what was given up.

    Args:
        ops: every operation.
        homes: where operations and regions lay before any was given up.
    """

    def __init__(self, ops: Sequence[Op], homes: Mapping[Item, Region | None]) -> None:
        self._ops = ops
        self._homes = homes
        self._chains: dict[tuple[Region, Region], tuple[Region, ...]] = {}

    def gather(self, layout: Layout) -> None:
        """Make the parts, and those of regions inside of them."""
        # Constants follow their readers: they are placed once all parts are known.
        work = {
            level: {item: self._given_up(item, level) for item in items if not (isinstance(item, Op) and item.constant)}
            for level, items in layout.items()
        }
        work = {level: chains for level, chains in work.items() if any(chains.values())}
        edges = edges_at(work, self._ops)
        for level, chains in work.items():
            _gather(chains, edges[level], level)

    def _given_up(self, item: Item, level: Region) -> tuple[Region, ...]:
        """The regions between this level and an item that were given up, outermost first."""
        home = self._homes.get(item)
        if home is None or home is level:
            return ()
        if (home, level) not in self._chains:
            found: list[Region] = []
            region: Region | None = home
            while region is not level:
                assert region is not None
                found.append(region)
                region = self._homes[region]
            self._chains[home, level] = tuple(reversed(found))
        return self._chains[home, level]


def _gather(chains: Mapping[Item, tuple[Region, ...]], edges: Edges, level: Region, depth: int = 0) -> None:
    """Let the runs of one level be regions, and the runs in each of these.

    Args:
        chains: the items of the level, in order, with the regions that they lay in.
        edges: which item must come before which.
        level: where the items lie.
        depth: how many of the regions in the chains are around the level.
    """
    owners = {item: chain[depth] if len(chain) > depth else None for item, chain in chains.items()}
    for owner, run in _runs(owners, edges):
        if owner is None:
            continue
        part = level.child(owner.frames)
        for item in run:
            if isinstance(item, Op):
                item.region = part
            else:
                item.move(part)
        inner = {item: chains[item] for item in run}
        if any(len(chain) > depth + 1 for chain in inner.values()):
            _gather(inner, edges, part, depth + 1)


def _runs(owners: Mapping[Item, Region | None], edges: Edges) -> list[tuple[Region | None, list[Item]]]:
    """Items in a topological order, in runs of one owner each, as long as they can be.

    What has no owner comes before another owner's turn; and the turn goes to one that can finish, if there is any.
    """
    items = list(owners)
    position = {item: at for at, item in enumerate(items)}
    followers = {item: [after for after in edges.get(item, ()) if after in owners] for item in items}
    waiting = Counter(after for item in items for after in followers[item])
    # For each owner, what it needs of others: it can finish where that is nothing.
    needs = Counter(owners[after] for item in items for after in followers[item] if owners[after] is not owners[item])
    ready: dict[Region | None, list[int]] = defaultdict(list)
    turns: list[tuple[bool, int]] = []

    def offer(item: Item) -> None:
        heapq.heappush(ready[owners[item]], position[item])
        heapq.heappush(turns, (needs[owners[item]] > 0, position[item]))

    for item in items:
        if not waiting[item]:
            offer(item)
    runs: list[tuple[Region | None, list[Item]]] = []
    owner: Region | None = None
    for _ in items:
        if not ready[owner]:
            owner = None
        while not ready[owner]:
            owner = owners[items[heapq.heappop(turns)[1]]]
        if not runs or runs[-1][0] is not owner:
            runs.append((owner, []))
        item = items[heapq.heappop(ready[owner])]
        runs[-1][1].append(item)
        for after in followers[item]:
            waiting[after] -= 1
            other = owners[after]
            if other is not owner:
                needs[other] -= 1
                if not needs[other] and ready[other]:
                    heapq.heappush(turns, (False, ready[other][0]))
            if not waiting[after]:
                offer(after)
    return runs
