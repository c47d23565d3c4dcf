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
        used: the results of the run depend on what it returned, as far as that is known.
    """

    path: str
    call: int = 0
    made: list[TracedCall] = field(default_factory=list["TracedCall"])
    used: bool = True


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
        fits = _fits(wanted, run.made)
        if any(one is not other for one, other in fits):
            fits = _fits(wanted, [made for made in run.made if made.used]) or fits
        for child, (one, other) in zip(call.children, fits, strict=False):
            numbers[child] = one.call
            child.concluded |= one is not other
            stack.append((child, one))
    return numbers


def _fits(paths: Sequence[str], made: Sequence[TracedCall]) -> list[tuple[TracedCall, TracedCall]]:
    """For each path the first call and the last that it may be; empty where calls do not fit."""
    first, last = _fit(paths, made), _fit(paths[::-1], made[::-1])
    return list(zip(first, last[::-1], strict=True)) if first is not None and last is not None else []


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
