"""Calls that left no operation in a file, by the numbers of fx nodes.

Torch numbers the nodes of a program as it traces (``add``, ``add_1``, ``add_2``), and a file keeps the name of the node
that each operation was made from. A call whose results nothing uses is gone from the file, and so is one whose every
operation was merged into an earlier call's; their numbers are missing. Where numbers missing at one spot before a call
would make up another call like it, the call may be a later one than its place says. A module that only its own parent
calls can have been called only while that ran.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from modelexport_passes.scopes.calls import Call

_AGREEING = 0.75
"""Of the kinds of fx nodes in a call; nodes made by torch's decompositions are numbered anew, without gaps."""
_TELLING = 3
"""Kinds that tell the same number of missing calls by more than chance."""
_SPARSE = 1000
"""A kind that has this many numbers more than nodes has its own way of counting."""
_SPOTS = 64
"""Gaps that are looked at for one call, at the most; where there are more, one may fit."""

_Span = tuple[int, int]
"""Spots, first and last: spot ``n`` is behind operation ``n``."""


def dropped_calls(root: Call, names: Sequence[str | None]) -> dict[Call, int]:
    """The calls before which others of the same module may be missing, and how many certainly seem to be.

    A later call of such a module has an entry as well, as its number follows.

    Args:
        root: the calls that are told apart.
        names: of each operation the fx node that it was made from.
    """
    numbered = _numbered(names)
    missing = _missing(numbered)
    found: dict[Call, int] = {}
    if not missing:
        return found
    # How many operations before each are of a kind that has numbers missing: most calls have none, and are passed over.
    lacking = [0, *accumulate(node is not None and node[0] in missing for node in numbered)]
    calls = sorted(root.walk(), key=lambda call: call.events[0])
    callers = _Callers(root, calls)
    before: dict[str, Call] = {}
    for call in calls:
        last = before.get(call.key)
        before[call.key] = call
        if lacking[call.events[-1] + 1] > lacking[call.events[0]]:
            nodes = {node for index in call.events if (node := numbered[index]) is not None}
            kinds = Counter(kind for kind, _ in nodes)
            earlier = [] if last is None else [numbered[index] for index in last.events]
            numbers = _numbers(kinds, nodes, earlier, missing)
            # Other modules' calls may be missing there as well: what most kinds have in common counts.
            shared = int(sorted(numbers)[round((1 - _AGREEING) * len(numbers))] if len(numbers) > 1 else sum(numbers))
            if shared and _fits(kinds, missing, callers.spans(call, last, found)):
                if numbers.count(shared) >= max(_TELLING, len(numbers) / 2):
                    found[call] = shared
                else:  # one that calls what another module holds comes behind that one's own call, if it left a gap
                    found[call] = sum(_fits(kinds, missing, [span]) for span in callers.holding(call, last))
        if call not in found and last in found:
            found[call] = 0
    return found


class _Callers:
    """When a module can have been called."""

    def __init__(self, root: Call, calls: Sequence[Call]) -> None:
        self._of: dict[str, list[Call]] = {root.key: [root]}
        for call in calls:
            self._of.setdefault(call.key, []).append(call)
        pairs = {(call.parent.key, call.key) for call in calls if call.parent is not None}
        self._strange = {key for caller, key in pairs if self._holder(key) != caller}

    def _holder(self, key: str) -> str:
        """The module that holds another: between them are but lists, which have no calls."""
        above = key.rpartition(".")[0]
        while above and above not in self._of:
            above = above.rpartition(".")[0]
        return above

    def spans(self, call: Call, last: Call | None, doubtful: Mapping[Call, int]) -> Iterator[_Span]:
        """Where between the last call of a module and this one there may have been another."""
        start, end = -1 if last is None else last.events[-1], call.events[0] - 1
        parent = call.parent
        assert parent is not None
        if parent in doubtful or call.key in self._strange:
            yield start, end
            return
        yield from self._running(parent.key, start, end)

    def holding(self, call: Call, last: Call | None) -> Iterator[_Span]:
        """Where before a call by another module the one ran that holds what is called."""
        holder = self._holder(call.key)
        if call.parent is not None and call.parent.key != holder:
            yield from self._running(holder, -1 if last is None else last.events[-1], call.events[0] - 1)

    def _running(self, key: str, start: int, end: int) -> Iterator[_Span]:
        calls = self._of[key]
        place = bisect_left(calls, end + 2, key=lambda call: call.events[0]) - 1
        while place >= 0 and calls[place].events[-1] >= start:
            first, last = calls[place].events[0], calls[place].events[-1]
            yield max(start, first - 1), min(end, last)
            place -= 1


@dataclass
class _Gaps:
    """Numbers of one kind that are missing, from first to last.

    Attributes:
        first: of each gap, the first spot where its nodes may have been.
        last: the last one.
        sizes: how many numbers.
        numbers: all of them.
        largest: the largest of the sizes.
    """

    first: list[int] = field(default_factory=list[int])
    last: list[int] = field(default_factory=list[int])
    sizes: list[int] = field(default_factory=list[int])
    numbers: list[int] = field(default_factory=list[int])
    largest: int = 0

    def between(self, first: int, last: int) -> int:
        """How many of the numbers lie between two."""
        return bisect_left(self.numbers, last) - bisect_left(self.numbers, first)

    def within(self, span: _Span) -> range:
        """The gaps that may have been in a span."""
        return range(bisect_left(self.last, span[0]), bisect_right(self.first, span[1]))


def _numbers(
    kinds: Mapping[str, int],
    nodes: Iterable[tuple[str, int]],
    last: Iterable[tuple[str, int] | None],
    missing: Mapping[str, _Gaps],
) -> list[float]:
    """Per kind of fx node in a call, how many such calls the numbers missing since the last call would make up.

    Empty where most kinds have no numbers missing at all.
    """
    if sum(kind in missing for kind in kinds) < _AGREEING * len(kinds):
        return []
    since: dict[str, int] = {}
    for node in last:
        if node is not None:
            since[node[0]] = max(since.get(node[0], -1), node[1])
    first: dict[str, int] = {}
    for kind, number in nodes:
        first[kind] = min(first.get(kind, number), number)
    return [
        missing[kind].between(since.get(kind, -1), first[kind]) / count if kind in missing else 0.0
        for kind, count in kinds.items()
    ]


def _fits(kinds: Mapping[str, int], missing: Mapping[str, _Gaps], spans: Iterable[_Span]) -> bool:
    """Whether a call with such nodes may be missing in one of these spans.

    It would have left all its gaps at one spot: no operation stood between its own.
    """
    enough = _AGREEING * len(kinds)
    fitting = {kind: gaps for kind, count in kinds.items() if (gaps := missing.get(kind)) and gaps.largest >= count}
    if len(fitting) < enough:
        return False
    for span in spans:
        marks: list[tuple[int, int]] = []
        for kind, gaps in fitting.items():
            within = gaps.within(span)
            if len(within) > _SPOTS:
                return True
            for gap in within:
                if gaps.sizes[gap] >= kinds[kind]:
                    marks += (gaps.first[gap], 1), (gaps.last[gap] + 1, -1)
        if max(accumulate((step for _, step in sorted(marks)), initial=0)) >= enough:
            return True
    return False


def _missing(nodes: Sequence[tuple[str, int] | None]) -> dict[str, _Gaps]:
    """Per kind the numbers up to the highest that no node has."""
    present: dict[str, dict[int, _Span]] = {}
    for place, node in enumerate(nodes):
        if node is not None:
            places = present.setdefault(node[0], {})
            places[node[1]] = (places[node[1]][0] if node[1] in places else place, place)
    missing: dict[str, _Gaps] = {}
    for kind, places in present.items():
        highest = max(places)
        if not len(places) <= highest < _SPARSE * len(places):
            continue
        numbers = sorted(places)
        missing[kind] = _between(numbers, [places[number] for number in numbers])
    return missing


def _between(numbers: Sequence[int], places: Sequence[_Span]) -> _Gaps:
    """The gaps between numbers whose operations stand at these places."""
    starts, ends = [-1, *(start for start, _ in places)], [end for _, end in places]
    if starts != sorted(starts) or ends != sorted(ends):
        # Some were moved: a gap is behind what all later ones are behind, and the two before it; so for its end.
        starts = [*accumulate(reversed(starts), min)][::-1]
        starts = [-1, *starts[:-1]]
        ends = [*accumulate(ends, max)]
        ends = [*ends[1:], ends[-1]]
    gaps = _Gaps()
    for place, (before, number) in enumerate(zip([-1, *numbers], numbers, strict=False)):
        if number - before > 1:
            gaps.first.append(starts[place])
            gaps.last.append(ends[place] - 1)
            gaps.sizes.append(number - before - 1)
            gaps.numbers += range(before + 1, number)
    gaps.largest = max(gaps.sizes, default=0)
    return gaps


def _numbered(names: Iterable[str | None]) -> list[tuple[str, int] | None]:
    """Kind and number of each name. Operations of one fx node mostly follow each other: its name is read once."""
    numbered: list[tuple[str, int] | None] = []
    before: str | None = None
    node: tuple[str, int] | None = None
    for name in names:
        if name != before:
            before, node = name, None if name is None else _split(name)
        numbered.append(node)
    return numbered


def _split(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (name, 0)
