"""Calls that left no operation in a file, by the numbers of fx nodes.

Torch numbers the nodes of a program as it traces (``add``, ``add_1``, ``add_2``), and a file keeps the name of the node
that each operation was made from. A call whose results nothing uses is gone from the file, and so is one whose every
operation was merged into an earlier call's; their numbers are missing. Where the numbers missing before a call would
make up another call like it, the call may be a later one than its place says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from modelexport_passes.scopes.calls import Call

_AGREEING = 0.75
"""Of the kinds of fx nodes in a call; nodes made by torch's decompositions are numbered anew, without gaps."""
_TELLING = 3
"""Kinds that tell the same number of missing calls by more than chance."""
_SPARSE = 1000
"""A kind that has this many numbers more than nodes has its own way of counting."""


def dropped_calls(root: Call, names: Sequence[str | None]) -> dict[Call, int]:
    """The calls before which others of the same module may be missing, and how many certainly seem to be.

    A later call of such a module has an entry as well, as its number follows.

    Args:
        root: the calls that are told apart.
        names: of each operation the fx node that it was made from.
    """
    numbered = [None if name is None else _split(name) for name in names]
    missing = _missing(numbered)
    found: dict[Call, int] = {}
    if not missing:
        return found
    # How many operations before each are of a kind that has numbers missing: most calls have none, and are passed over.
    lacking = [0, *accumulate(node is not None and node[0] in missing for node in numbered)]
    before: dict[str, Call] = {}
    for call in sorted(root.walk(), key=lambda call: call.events[0]):
        last = before.get(call.key)
        before[call.key] = call
        gaps: list[float] = []
        if lacking[call.events[-1] + 1] > lacking[call.events[0]]:
            nodes = {node for index in call.events if (node := numbered[index]) is not None}
            gaps = _gaps(nodes, [] if last is None else [numbered[index] for index in last.events], missing)
        # Other modules' calls may be missing there as well: what most kinds have in common counts.
        shared = sorted(gaps)[round((1 - _AGREEING) * len(gaps))] if len(gaps) > 1 else sum(gaps)
        if shared >= 1:
            found[call] = int(shared) if gaps.count(int(shared)) >= max(_TELLING, len(gaps) / 2) else 0
        elif last in found:
            found[call] = 0
    return found


def _gaps(
    nodes: set[tuple[str, int]],
    last: Sequence[tuple[str, int] | None],
    missing: Mapping[str, Sequence[int]],
) -> list[float]:
    """Per kind of fx node in a call, how many such calls the numbers missing since the last call would make up.

    Empty where most kinds have no numbers missing at all.
    """
    kinds = Counter(kind for kind, _ in nodes)
    if sum(kind in missing for kind in kinds) < _AGREEING * len(kinds):
        return []
    since: dict[str, int] = {}
    for node in last:
        if node is not None:
            since[node[0]] = max(since.get(node[0], -1), node[1])
    first: dict[str, int] = {}
    for kind, number in nodes:
        first[kind] = min(first.get(kind, number), number)
    gaps: list[float] = []
    for kind, count in kinds.items():
        absent = missing.get(kind, ())
        gaps.append((bisect_left(absent, first[kind]) - bisect_left(absent, since.get(kind, -1))) / count)
    return gaps


def _missing(nodes: Sequence[tuple[str, int] | None]) -> dict[str, list[int]]:
    """Per kind the numbers up to the highest that no node has."""
    present: dict[str, set[int]] = {}
    for node in nodes:
        if node is not None:
            present.setdefault(node[0], set()).add(node[1])
    missing: dict[str, list[int]] = {}
    for kind, numbers in present.items():
        highest = max(numbers)
        if len(numbers) <= highest < _SPARSE * len(numbers):
            missing[kind] = [number for number in range(highest) if number not in numbers]
    return missing


def _split(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (name, 0)
