"""Where a module's calls begin, by the lines of Python code that its operations were made in."""

from __future__ import annotations

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
        lines: for each operation, the line of the module's own code; None where it is not told.
    """

    callers: list[int]
    anew: list[int]
    lines: Sequence[int | None]

    def contradict(self, cuts: Sequence[int]) -> bool:
        """Whether these are no beginnings of calls: a module of several lines goes on to its next ones there."""
        if None in self.lines or len(set(self.lines)) < 2:
            return False
        return any((self.lines[cut] or 0) >= (self.lines[cut - 1] or 0) for cut in cuts)


_NOTHING = LineCuts([], [], ())


def line_cuts(places: Sequence[Sequence[Place | None]], depth: int) -> LineCuts:
    """Where calls of a module begin.

    Args:
        places: of each operation of a stretch.
        depth: of the module in the stack; the root has 0.
    """
    first = places[0]
    if all(other is first for other in places):
        return _NOTHING
    own = [stood[depth] if len(stood) > depth else None for stood in places]
    told = [(at, stood) for at, stood in enumerate(own) if stood is not None]
    callers = [
        now
        for (_, a), (now, b) in pairwise(told)
        if a is not b and a.caller is not None and b.caller is not None and a.caller != b.caller
    ]
    lines = [None if stood is None else stood.line for stood in own]
    return LineCuts(callers, [] if None in lines else _anew([stood.line for _, stood in told]), lines)


def _anew(lines: Sequence[int]) -> list[int]:
    """Places where the first line runs again after others, if the same lines run between each two of them."""
    start = lines[0]
    cuts = [at for at in range(1, len(lines)) if lines[at] == start and lines[at - 1] > start]
    if not cuts:
        return []
    parts = [set(lines[a:b]) for a, b in pairwise([0, *cuts, len(lines)])]
    return cuts if all(part == parts[0] for part in parts) else []
