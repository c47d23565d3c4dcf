"""Telling the calls of a module apart, from the order of operations alone.

Exporters write operations in the order in which the model ran, so one module call is one stretch of them, and the
stretches nest as the calls did. What a file says of an operation is its chain of modules; which call of each is read
off the stretch it lies in. A stretch ends where

- an operation outside of the module follows,
- the exporter numbered the calls and the number changes,
- a stack trace tells another line of the caller,
- parameters of another module of the same name are read,
- the same parameters are read again in the same order: the module ran again, nothing in between, or
- the lines of the module's own code begin anew and all of them run again.

The last two are conclusions. A repetition that the module's own lines speak against is a loop inside of one call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from modelexport_passes.scopes.lines import NOTHING, line_cuts
from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame
from modelexport_passes.scopes.traces import Place


@dataclass(eq=False, slots=True)
class Event:
    """One operation, in the order of the graph.

    Attributes:
        chain: a key for each module below the root that was running, innermost last; empty for the root's own.
        number: which call of the innermost module, counted over all calls of one chain; None if not told.
        kind: what repeats when a module runs again: the op type.
        reads: the parameters that it reads.
        ends: it shows that the calls before it have ended; a constant does not, it may stand anywhere.
        hints: for each key of the chain, the module that the parameters read belong to, where keys do not tell it.
        places: where the root and each module of the chain stood in its code; empty where that is not told.
    """

    chain: tuple[str, ...]
    number: int | None = None
    kind: str = ""
    reads: tuple[Hashable, ...] = ()
    ends: bool = True
    hints: tuple[str | None, ...] = ()
    places: Sequence[Place | None] = ()

    @property
    def tells(self) -> bool:
        """Whether it says anything of calls but by where it stands."""
        return bool(self.reads or self.hints or self.places) or self.number is not None


@dataclass(eq=False, slots=True)
class Call:
    """One call of a module.

    Attributes:
        key: the last key of the chains of its operations; "" for the root.
        parent: the call it was made in; None for the root.
        concluded: told apart from its neighbour by repetition, not by order or number.
        events: its own operations and those of the calls below it, in order.
        children: calls made in it, in order.
    """

    key: str
    parent: Call | None
    concluded: bool = False
    events: list[int] = field(default_factory=list[int])
    children: list[Call] = field(default_factory=list["Call"])

    def walk(self) -> Iterator[Call]:
        """The calls below, each before those made in it."""
        left = self.children[::-1]
        while left:
            call = left.pop()
            yield call
            left += reversed(call.children)


def call_tree(events: Sequence[Event], *, by_reads: bool = False) -> tuple[Call, list[Call]]:
    """The calls that these operations were made in: the root, and for each operation the innermost call.

    Args:
        events: all operations, in order.
        by_reads: chains are the paths of what was read, not of what was running: the child of a module that is not
            running may be called, and then only a parameter that is read again shows another call.
    """
    root = Call("", None, events=list(range(len(events))))
    innermost: list[Call] = [root] * len(events)
    telling = [event.tells for event in events]
    stack: list[tuple[Call, int]] = [(root, 0)]
    while stack:
        call, depth = stack.pop()
        for child in _children(events, telling, call, depth, by_reads=by_reads):
            call.children.append(child)
            first, end = child.events[0], child.events[-1] + 1
            if end - first == len(child.events):  # one stretch, as nearly all are
                innermost[first:end] = [child] * (end - first)
            else:
                for index in child.events:
                    innermost[index] = child
            stack.append((child, depth + 1))
        call.children.sort(key=lambda child: child.events[0])
    return root, innermost


def _children(
    events: Sequence[Event], telling: Sequence[bool], call: Call, depth: int, *, by_reads: bool
) -> Iterator[Call]:
    for key, runs in _runs(events, call.events, depth).items():
        children: list[Call] = []
        for run in _joined_by_reads(events, runs) if by_reads else _joined(events, runs):
            cuts, concluded = _cuts(events, telling, run, depth + 1)
            if not cuts:  # one call, as nearly all stretches are
                children.append(Call(key, call, events=run))
                continue
            for start, end in zip([0, *cuts], [*cuts, len(run)], strict=True):
                children.append(Call(key, call, concluded=concluded, events=run[start:end]))
        _return_constants(events, children, depth + 1)
        yield from children


def _return_constants(events: Sequence[Event], calls: Sequence[Call], depth: int) -> None:
    """A numbered constant that stands in another call goes to the call of its number."""
    if len(calls) < 2:
        return
    numbered = [
        (index, number, call)
        for call in calls
        for index in call.events
        if (number := events[index].number) is not None and len(events[index].chain) == depth
    ]
    of_number = {number: call for index, number, call in reversed(numbered) if events[index].ends}
    for index, number, call in numbered:
        owner = of_number.get(number, call)
        if owner is not call and not events[index].ends and len(call.events) > 1:
            call.events.remove(index)
            owner.events = sorted([*owner.events, index])


def _runs(events: Sequence[Event], indices: Sequence[int], depth: int) -> dict[str, list[list[int]]]:
    """Per key at this depth, its stretches: uninterrupted by operations of other keys."""
    runs: dict[str, list[list[int]]] = {}
    early: dict[str, list[int]] = {}  # constants met outside of a stretch: they belong to the next one
    current: str | None = None
    run: list[int] = []  # of the current key
    for index in indices:
        event = events[index]
        chain = event.chain
        key = chain[depth] if len(chain) > depth else None
        if key is None:
            current = None if event.ends else current
        elif key == current:
            run.append(index)
        elif event.ends:
            run = [*early.pop(key, ()), index]
            runs.setdefault(key, []).append(run)
            current = key
        else:
            early.setdefault(key, []).append(index)
    for key, rest in early.items():
        if key in runs:
            runs[key][-1] = sorted(runs[key][-1] + rest)
        else:
            runs[key] = [rest]
    return runs


def _joined(events: Sequence[Event], runs: Sequence[list[int]]) -> list[list[int]]:
    """Stretches with operations of one numbered call are of one call, and so is what stands between them.

    Exporters move an operation now and then, and a moved one interrupts the stretch that it comes to stand in.
    """
    if len(runs) == 1:
        return [*runs]
    last_run: dict[tuple[tuple[str, ...], int], int] = {}
    for place, run in enumerate(runs):
        for index in run:
            event = events[index]
            if event.number is not None:
                last_run[event.chain, event.number] = place
    joined: list[list[int]] = []
    reach = -1
    for place, run in enumerate(runs):
        if place <= reach:
            joined[-1] = joined[-1] + run
        else:
            joined.append(run)
        numbered = ((events[index].chain, events[index].number) for index in run)
        reach = max([reach, *(last_run[chain, number] for chain, number in numbered if number is not None)])
    return joined


def _joined_by_reads(events: Sequence[Event], runs: Sequence[list[int]]) -> list[list[int]]:
    """Stretches that read different parameters are of one call."""
    joined: list[list[int]] = []
    seen: set[tuple[Hashable, ...]] = set()
    for run in runs:
        reads = {events[index].reads for index in run} - {()}
        if joined and seen.isdisjoint(reads):
            joined[-1] = joined[-1] + run
            seen |= reads
        else:
            joined.append(run)
            seen = reads
    return joined


def _cuts(events: Sequence[Event], tells: Sequence[bool], run: Sequence[int], depth: int) -> tuple[list[int], bool]:
    """Where in a stretch the next call begins, and whether that is concluded from repetition."""
    if len(run) < 2:
        return [], False
    # Most operations tell nothing that shows a call: those that do are found once for all that follows.
    telling = [(place, events[index]) for place, index in enumerate(run) if tells[index]]
    if not telling:
        return [], False
    numbered = [
        (place, event.number, event.ends)
        for place, event in telling
        if event.number is not None and len(event.chain) == depth
    ]
    told = [(place, number) for place, number, ends in numbered if ends] or [mark[:2] for mark in numbered]
    if told:
        firsts = [now for (_, a), (now, b) in pairwise(told) if b > a]
        return _between(events, run, [place for place, _ in told], firsts, depth) if firsts else [], False
    by_line = NOTHING
    if any(event.places for _, event in telling) and _placed(events, run):
        by_line = line_cuts([events[index].places for index in run], [events[index].chain for index in run], depth)
    if by_line.callers:
        return by_line.callers, False
    hinted = [
        (place, hint)
        for place, event in telling
        if (hints := event.hints) and len(hints) >= depth and (hint := hints[depth - 1]) is not None
    ]
    others = [now for (_, a), (now, b) in pairwise(hinted) if a != b]
    if others:
        return _between(events, run, [place for place, _ in hinted], others, depth), False
    if by_line.anew:
        return by_line.anew, True
    marks = [place for place, event in telling if event.reads]
    firsts = _repeated(events, run, marks, depth)
    cuts = _between(events, run, marks, firsts, depth)
    return ([], False) if by_line.contradict(cuts) else (cuts, bool(cuts))


def _placed(events: Sequence[Event], run: Sequence[int]) -> bool:
    """Whether lines may tell calls apart in a stretch: one with a single place is the usual, and none at all."""
    first = events[run[0]].places
    for index in run:  # noqa: SIM110 - a loop is faster than any(), and this is asked of every stretch
        if events[index].places is not first:
            return True
    return False


def _repeated(events: Sequence[Event], run: Sequence[int], marks: Sequence[int], depth: int) -> list[int]:
    """Places where the parameters read begin anew; ``marks`` are all places where parameters are read."""
    tokens = [(events[run[place]].chain[depth:], events[run[place]].kind, events[run[place]].reads) for place in marks]
    period = _period(tokens)
    return [marks[at] for at in range(period, len(marks), period)] if period else []


def _period(tokens: Sequence[Hashable]) -> int:
    """The shortest part that the sequence is a repetition of; 0 if it is none."""
    # The failure function of Knuth, Morris and Pratt: the longest proper prefix that is also a suffix.
    border = [0] * len(tokens)
    for place in range(1, len(tokens)):
        length = border[place - 1]
        while length and tokens[place] != tokens[length]:
            length = border[length - 1]
        border[place] = length + (tokens[place] == tokens[length])
    period = len(tokens) - (border[-1] if border else 0)
    return period if tokens and period < len(tokens) and len(tokens) % period == 0 else 0


def _between(
    events: Sequence[Event], run: Sequence[int], marks: Sequence[int], firsts: Sequence[int], depth: int
) -> list[int]:
    """For each first marked operation of a call, where the call begins: between it and the last mark before it.

    What the first call has before its first mark, the others have as well; what the last call has after its last mark,
    so have the others. The longer agreement decides; where there is none, what stands between is of the call before.
    """
    if not firsts:
        return []
    tokens = [(events[index].chain[depth:], events[index].kind) for index in run]
    head, end = tokens[: marks[0]], tokens[marks[-1] + 1 :]
    cuts: list[int] = []
    for first in firsts:
        last = marks[bisect_left(marks, first) - 1]
        between = tokens[last + 1 : first]
        as_head, as_end = _common(head[::-1], between[::-1]), _common(end, between)
        cuts.append(first - as_head if as_head >= as_end or as_head + as_end >= len(between) else last + 1 + as_end)
    return cuts


def _common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def call_frames(
    root: Call,
    innermost: Sequence[Call],
    path_of: Mapping[Call, str],
    classes: Mapping[str, str],
    dropped: Mapping[Call, int] | None = None,
    numbers: Mapping[Call, int] | None = None,
) -> list[tuple[tuple[Frame, ...], bool]]:
    """The frames of each operation, root first, calls numbered per path in order; and whether a call was concluded.

    Args:
        root: all calls.
        innermost: of each operation, its call.
        path_of: the module that each call is of.
        classes: of the modules that are known.
        dropped: calls before which others of their module are missing, and how many: their numbers are concluded.
        numbers: calls whose number is known otherwise.
    """
    dropped, numbers = dropped or {}, numbers or {}
    calls = list(root.walk())
    counts: defaultdict[str, int] = defaultdict(int)
    frames: dict[Call, tuple[tuple[Frame, ...], bool]] = {
        root: ((Frame("", classes.get("", UNKNOWN_CLASS)),), root.concluded)
    }
    index: dict[Call, int] = {}
    for call in sorted(calls, key=lambda call: call.events[0]):
        path = path_of[call]
        index[call] = numbers.get(call, counts[path] + dropped.get(call, 0))
        counts[path] = index[call] + 1
    for call in calls:
        assert call.parent is not None
        above, concluded = frames[call.parent]
        path = path_of[call]
        frame = Frame(path, classes.get(path, UNKNOWN_CLASS), index[call])
        frames[call] = ((*above, frame), concluded or call.concluded or call in dropped)
    return [frames[call] for call in innermost]
