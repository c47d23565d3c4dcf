"""The module calls of one traced run, and which of them each call is that a file has operations of.

A call leaves no operation where its results are not used. Names tell the calls that are left, in order, and the ends of
their modules' paths; the run tells all calls, and whole paths. Where the calls that are left fit the run in one way
only, their modules and their numbers are known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelexport_passes.scopes.calls import Call


@dataclass(eq=False)
class TracedCall:
    """One call of a module while a model was traced.

    Attributes:
        path: the first name of the module.
        call: which call of the module it is.
        made: the calls made in it, in order.
        used: the results of the run depend on what it returned, as far as that is known.
    """

    path: str
    call: int = 0
    made: list[TracedCall] = field(default_factory=list["TracedCall"])
    used: bool = True


def paths_by_trace(root: Call, traced: TracedCall, end_of: Callable[[str], str]) -> dict[Call, str]:
    """The module of each call that can be a call of no other module in the run, from the root down.

    Args:
        root: the calls that names tell, each with the end of its module's path as its key.
        traced: the run's call of the root.
        end_of: the end of a path.
    """
    found: dict[Call, str] = {}
    stack = [(root, traced)]
    while stack:
        call, run = stack.pop()
        ends = [end_of(made.path) for made in run.made]
        paths: dict[str, set[str]] = defaultdict(set)
        for end, made in zip(ends, run.made, strict=True):
            paths[end].add(made.path)
        for child, (one, other) in zip(call.children, _fits_used(_keys(call), run.made, ends), strict=False):
            if one is other or len(paths[child.key]) == 1:
                found[child] = one.path
            if one is other:
                stack.append((child, one))
    return found


def _keys(call: Call) -> list[str]:
    return [child.key for child in call.children]


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
        wanted = [paths[child] for child in call.children]
        fits = _fits_used(wanted, run.made, [made.path for made in run.made])
        for child, (one, other) in zip(call.children, fits, strict=False):
            numbers[child] = one.call
            child.concluded |= one is not other
            stack.append((child, one))
    return numbers


_Fits = list[tuple[TracedCall, TracedCall]]


def _fits_used(wanted: Sequence[str], made: Sequence[TracedCall], names: Sequence[str]) -> _Fits:
    """`_fits`, by those calls alone whose results are used, where all of them leave a choice."""
    calls = list(zip(names, made, strict=True))
    fits = _fits(wanted, calls)
    if any(one is not other for one, other in fits):
        fits = _fits(wanted, [named for named in calls if named[1].used]) or fits
    return fits


def _fits(wanted: Sequence[str], made: Sequence[tuple[str, TracedCall]]) -> _Fits:
    """For each name the first call and the last that it may be; empty where calls do not fit."""
    first, last = _fit(wanted, made), _fit(wanted[::-1], made[::-1])
    return list(zip(first, last[::-1], strict=True)) if first is not None and last is not None else []


def _fit(wanted: Sequence[str], made: Sequence[tuple[str, TracedCall]]) -> list[TracedCall] | None:
    """For each name the first call of that name behind those before it; None where there is none left."""
    fitting: list[TracedCall] = []
    left = iter(made)
    for name in wanted:
        one = next((call for other, call in left if other == name), None)
        if one is None:
            return None
        fitting.append(one)
    return fitting
