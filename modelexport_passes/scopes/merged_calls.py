"""Calls that are gone because an equal call of another module came first: seen by who reads that one's results.

All blocks of a U-Net apply their own activation to the one embedding of time. An exporter that merges what is computed
twice keeps the first block's call, and the others read its result: their later calls of the activation are numbered too
low by one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.calls import Call


def merged_calls(
    nodes: Sequence[ir.Node], innermost: Sequence[Call], root: Call, paths: Mapping[Call, str]
) -> dict[Call, int]:
    """The calls before which others of their module were merged into another module's, and how many; 0 behind those.

    A call is missing where its caller reads what an earlier caller like it, a module of the same name but for numbers,
    has its own such module make; and where the calls that are left are all others of the earlier caller's.

    Args:
        nodes: in the order of the graph.
        innermost: of each operation, its call.
        root: all calls.
        paths: the module that each is of.
    """
    made = _made_by_repeated(root, paths)
    if not made:
        return {}
    places = {node: place for place, node in enumerate(nodes)}
    missing: dict[tuple[Call, str], set[Call]] = defaultdict(set)
    for place, call in made.items():
        for node in dict.fromkeys(use.node for value in nodes[place].outputs for use in value.uses()):
            reader = places.get(node)
            if reader is not None and reader > call.events[-1]:
                for caller, path in _like_callers(call, innermost[reader], paths):
                    missing[caller, path].add(call)
    found: dict[Call, int] = {}
    for (caller, path), calls in missing.items():
        found.update(_counted(caller, path, calls, paths))
    return found


def _made_by_repeated(root: Call, paths: Mapping[Call, str]) -> dict[int, Call]:
    """Operation -> its call, of modules that their caller calls several times."""
    made: dict[int, Call] = {}
    for caller in (root, *root.walk()):
        if len(caller.children) < 2:
            continue
        counts = Counter([paths[child] for child in caller.children])
        for child in caller.children:
            if counts[paths[child]] > 1:
                made.update(dict.fromkeys(child.events, child))
    return made


def _like_callers(call: Call, reader: Call, paths: Mapping[Call, str]) -> Iterator[tuple[Call, str]]:
    """The calls around a reader that are of a module like this call's caller, with the path of their like module."""
    assert call.parent is not None
    caller = paths[call.parent]
    if not caller or not paths[call].startswith(f"{caller}."):
        return
    own, name = paths[call][len(caller) :], _numberless(caller)
    around: Call | None = reader
    while around is not None:
        path = paths[around]
        if path != caller and _numberless(path) == name:
            yield around, path + own
        around = around.parent


def _numberless(path: str) -> str:
    """The last name in a path, with how many numbers are behind it."""
    atoms = path.split(".")
    numbers = 0
    while numbers < len(atoms) - 1 and atoms[-1 - numbers].isdecimal():
        numbers += 1
    return f"{atoms[-1 - numbers]}{'.*' * numbers}"


def _counted(caller: Call, path: str, missing: set[Call], paths: Mapping[Call, str]) -> dict[Call, int]:
    """Per call of a module that is left, how many before it are missing; empty where what is left does not fit."""
    one = next(iter(missing))
    earlier, module = one.parent, paths[one]
    if earlier is None or any(call.parent is not earlier or paths[call] != module for call in missing):
        return {}
    there = [call for call in earlier.children if paths[call] == module]
    left = [call for call in caller.children if paths[call] == path]
    ordinals = [ordinal for ordinal, call in enumerate(there) if call not in missing]
    if len(ordinals) != len(left):
        return {}
    counted: dict[Call, int] = {}
    before = 0
    for place, (ordinal, call) in enumerate(zip(ordinals, left, strict=True)):
        gone = ordinal - place
        if gone:
            counted[call] = gone - before
        before = gone
    return counted
