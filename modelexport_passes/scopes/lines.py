"""Where a module's calls begin, by the lines of Python code that its operations were made in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelexport_passes.scopes.traces import Place


@dataclass(frozen=True)
class LineCuts:
    """What lines say of a stretch of operations of one module.

    Attributes:
        callers: where the line of the caller changes.
        anew: where the module's own lines begin anew, if all of them run again each time.
        told: the place of each operation that tells one.
    """

    callers: list[int]
    anew: list[int]
    told: Sequence[tuple[int, Place]]

    def contradict(self, cuts: Sequence[int]) -> bool:
        """Whether these are no beginnings of calls: a module of several lines goes on to its next ones there."""
        lines = [place.line for _, place in self.told]
        if len(set(lines)) < 2:
            return False
        for cut in cuts:
            after = bisect_left(self.told, cut, key=lambda one: one[0])
            if not 0 < after < len(lines) or lines[after] >= lines[after - 1]:
                return True
        return False


NOTHING = LineCuts([], [], ())
"""What lines say where none is told."""


def line_cuts(places: Sequence[Sequence[Place | None]], chains: Sequence[tuple[str, ...]], depth: int) -> LineCuts:
    """Where calls of a module begin.

    Args:
        places: of each operation of a stretch.
        chains: the modules below the root that each was made in.
        depth: of the module in the stack; the root has 0.
    """
    told: list[tuple[int, Place]] = []
    for at, stood in enumerate(places):
        place = stood[depth] if len(stood) > depth else None
        if place is not None:
            told.append((at, place))
    callers: list[int] = []
    for (last, a), (_, b) in pairwise(told):
        if a is not b and a.caller is not None and b.caller is not None and a.caller != b.caller and b.line <= a.line:
            # A line further on is mostly of another module: exporters label an operation with the next module, and what
            # stands between and tells nothing mostly prepares what the next call takes.
            callers.append(last + 1)
    anew = _anew([place.line for _, place in told], [chains[at][depth:] for at, _ in told])
    return LineCuts(callers, [told[at - 1][0] + 1 for at in anew], told)


def _anew(lines: Sequence[int], below: Sequence[tuple[str, ...]]) -> list[int]:
    """Places where the first line runs again after others, if the same runs between each two of them.

    That is the same lines, and in them the same modules: a loop over a module's children calls another one each time.
    """
    start = lines[0] if lines else 0
    cuts = [at for at in range(1, len(lines)) if lines[at] == start and lines[at - 1] > start]
    if not cuts:
        return []
    parts = [set(zip(lines[a:b], below[a:b], strict=True)) for a, b in pairwise([0, *cuts, len(lines)])]
    return cuts if all(part == parts[0] for part in parts) else []
