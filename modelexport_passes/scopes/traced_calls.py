"""The module calls of one traced run, and which of them each call is that a file has operations of.

A call leaves no operation where its results are not used. Names tell the calls that are left, in order; the run tells
all of them. Where the calls that are left fit the run in one way only, their numbers are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelexport_passes.scopes.calls import Call


@dataclass(eq=False)
class TracedCall:
    """One call of a module while a model was traced.

    Attributes:
        path: the first name of the module.
        call: which call of the module it is.
        made: the calls made in it, in order.
    """

    path: str
    call: int = 0
    made: list[TracedCall] = field(default_factory=list["TracedCall"])


def numbers_by_trace(root: Call, paths: Mapping[Call, str], traced: TracedCall) -> dict[Call, int]:
    """The number of each call that is one certain call of the run, from the root down.

    A call that could be several of them is marked as concluded, and what it made with it.

    Args:
        root: the calls that names tell.
        paths: the module that each is of.
        traced: the run's call of the root.
    """
    numbers: dict[Call, int] = {}
    stack = [(root, traced)]
    while stack:
        call, run = stack.pop()
        first = _fit([paths[child] for child in call.children], run.made)
        last = _fit([paths[child] for child in reversed(call.children)], run.made[::-1])
        if first is None or last is None:
            continue
        for child, one, other in zip(call.children, first, reversed(last), strict=True):
            numbers[child] = one.call
            child.concluded |= one is not other
            stack.append((child, one))
    return numbers


def _fit(paths: Sequence[str], made: Sequence[TracedCall]) -> list[TracedCall] | None:
    """For each path the first call of that module behind those before it; None where there is none left."""
    fitting: list[TracedCall] = []
    left = iter(made)
    for path in paths:
        one = next((call for call in left if call.path == path), None)
        if one is None:
            return None
        fitting.append(one)
    return fitting
