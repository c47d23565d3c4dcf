"""What a function computes anew at each call though it is the same every time: found, and how far out it can go."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

import onnx_ir as ir

from modelexport_passes.outlining.constants import EMBED_LIMIT
from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.walk import has_bodies, owned_nodes

Place = ir.OperatorIdentifier
"""Where operations stand: the function of this identifier, or `MAIN`."""

MAIN: Place = ("", "", "")

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def is_pure(node: ir.Node, functions: Container[Place]) -> bool:
    """Whether an operation gives the same for the same inputs: ONNX's own but random ones, and these functions."""
    if node.op_identifier() in functions:
        return True
    return node.domain == "" and not draws_random_numbers(node)


class Calls:
    """Which functions are called where.

    Attributes:
        sites: function -> its calls, each with the place where it stands.
        order: every function that is called, callers before callees.
        levels: place -> the longest chain of calls that leads there.
        pure: functions that give the same for the same inputs, as far as is known.
        in_bodies: functions that are called in the body of an If, Loop or Scan.
    """

    def __init__(self, model: ir.Model) -> None:
        self.sites: dict[Place, list[tuple[Place, ir.Node]]] = {}
        self.in_bodies: set[Place] = set()
        places: dict[Place, ir.Graph | ir.Function] = {MAIN: model.graph, **model.functions}
        for place, container in places.items():
            direct = set(container)
            for node in owned_nodes(container):
                key = node.op_identifier()
                if key in model.functions:
                    self.sites.setdefault(key, []).append((place, node))
                    if node not in direct:
                        self.in_bodies.add(key)
        callers = {key: list(dict.fromkeys(place for place, _ in sites)) for key, sites in self.sites.items()}
        self.order = [key for key in TopologicalSorter(callers).static_order() if key in callers]
        self.levels = dict.fromkeys(places, 0)
        for key in self.order:
            self.levels[key] = 1 + max(self.levels[place] for place in callers[key])

        self._runs: dict[Place, Mapping[Place, int]] = {}
        impure: set[Place] = set()
        for key in reversed(self.order):
            if any(not is_pure(node, model.functions.keys() - impure) for node in owned_nodes(model.functions[key])):
                impure.add(key)
        self.pure = model.functions.keys() - impure

    def saves(self, home: Place, key: Place) -> bool:
        """Whether work runs less often if it leaves a function, and goes on as long as that saves, towards a place."""
        runs = self.runs(home)
        least: dict[Place, int] = {home: 1}
        for place in (*self.order[: self.order.index(key)], key):
            if place != home:
                outside = sum(least.get(caller, 0) for caller in dict.fromkeys(at for at, _ in self.sites[place]))
                if place == key:
                    return outside < runs[key]
                least[place] = min(runs[place], outside)
        return False

    def below(self, keys: Iterable[Place]) -> set[Place]:
        """The functions among these keys, and all that they call."""
        found = {key for key in keys if key in self.sites}
        for key in self.order:
            if any(place in found for place, _ in self.sites[key]):
                found.add(key)
        return found

    def runs(self, home: Place) -> Mapping[Place, int]:
        """How often each function runs while one place runs once."""
        if home not in self._runs:
            counts: dict[Place, int] = dict.fromkeys((MAIN, *self.order), 0) | {home: 1}
            for key in self.order:
                if key != home:
                    counts[key] = sum(counts.get(place, 0) for place, _ in self.sites[key])
            self._runs[home] = counts
        return self._runs[home]


@dataclass(frozen=True)
class Home:
    """Where an input of a function comes from, if that is one value in every call.

    Attributes:
        place: where the value is.
        value: the value.
    """

    place: Place
    value: ir.Value


def find_homes(model: ir.Model, calls: Calls) -> dict[ir.Value, Home]:
    """Input of a function -> its home, followed outwards as far as it goes; inputs that differ by call are left out."""
    homes: dict[ir.Value, Home] = {}
    for key in calls.order:
        if key in calls.in_bodies:
            continue
        for at, formal in enumerate(model.functions[key].inputs):
            found: set[Home | None] = set()
            for place, node in calls.sites[key]:
                actual = node.inputs[at] if at < len(node.inputs) else None
                found.add(None if actual is None else homes.get(actual, Home(place, actual)))
            (home, *others) = found
            if home is not None and not others:
                homes[formal] = home
    return homes


@dataclass
class Invariants:
    """What can leave one function.

    Attributes:
        moved: operations that leave it, in order.
        along: cheap operations that those need and that go with them as copies, in order.
        results: values of the moved ones that are read by what stays: they become inputs.
        left: operations that nothing in the function reads any more, once these are inputs.
    """

    moved: list[ir.Node] = field(default_factory=list[ir.Node])
    along: list[ir.Node] = field(default_factory=list[ir.Node])
    results: list[ir.Value] = field(default_factory=list[ir.Value])
    left: list[ir.Node] = field(default_factory=list[ir.Node])


def find_invariants(model: ir.Model, key: Place, calls: Calls, homes: Mapping[ir.Value, Home]) -> Invariants:
    """The operations of a function that give the same at each of several calls.

    They read constants, and inputs whose home is one value that is there before all these calls. Constants, small
    shapes and axes are cheap: compilers need them where they are used, so they leave only as copies for what does.
    """
    function = model.functions[key]
    # Every call of the function is within each of these places, so no two of them are on one level.
    places = {calls.levels[homes[formal].place]: homes[formal].place for formal in function.inputs if formal in homes}
    places[0] = MAIN
    saves = {level: calls.saves(place, key) for level, place in places.items()}
    if not any(saves.values()):
        return Invariants()
    depth: dict[ir.Value, int] = {}
    cheap: set[ir.Node] = set()
    moved: set[ir.Node] = set()
    for node in function:
        level = _level(node, depth, calls, homes)
        if level is None:
            continue
        if not saves[level] or not set(function.outputs).isdisjoint(node.outputs):
            continue
        depth.update(dict.fromkeys(node.outputs, level))
        is_call = node.op_identifier() in model.functions
        (cheap if not is_call and _is_cheap(node, cheap) else moved).add(node)
    return _boundary(function, moved, cheap)


def _level(node: ir.Node, depth: Mapping[ir.Value, int], calls: Calls, homes: Mapping[ir.Value, Home]) -> int | None:
    """The level of the innermost place that an operation needs; None if it cannot leave."""
    if not is_pure(node, calls.pure) or has_bodies(node):
        return None
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    level = 0
    for value in node.inputs:
        if value is None:
            continue
        if value in depth:
            level = max(level, depth[value])
        elif value in homes:
            level = max(level, calls.levels[homes[value].place])
        else:
            return None
    return level


def _is_cheap(node: ir.Node, cheap: Container[ir.Node | None]) -> bool:
    """Constants; small integers; and what is made of constants alone, unless it is known to be large."""
    constant = all(value is None or value.producer() in cheap for value in node.inputs)
    if node.op_type == "Constant":
        return True
    if constant:
        return all((_size(value) or 0) <= EMBED_LIMIT for value in node.outputs)
    sizes = [_size(value) for value in node.outputs if value.dtype in _INTEGERS]
    return len(sizes) == len(node.outputs) and all(size is not None and size <= EMBED_LIMIT for size in sizes)


def _size(value: ir.Value) -> int | None:
    """Number of elements; None if unknown."""
    if value.shape is None or not value.shape.is_static():
        return None
    return math.prod(value.shape.numpy())


def _boundary(function: ir.Function, moved: set[ir.Node], cheap: set[ir.Node]) -> Invariants:
    """Which of the operations that could leave do, and which results those that stay read."""
    stays: set[ir.Node] = set()

    def is_read_here(value: ir.Value) -> bool:
        readers = (usage.node for usage in value.uses())
        return any(node in stays or (node not in moved and node not in cheap) for node in readers)

    for node in reversed(function):
        dead = not any(value.uses() for value in node.outputs)
        if dead or (node not in moved and (node not in cheap or any(map(is_read_here, node.outputs)))):
            moved.discard(node)
            stays.add(node)
    found = Invariants(moved=[node for node in function if node in moved])
    found.results = [value for node in found.moved for value in node.outputs if is_read_here(value)]
    along: set[ir.Node] = set()
    waiting = list(found.moved)
    while waiting:
        for value in waiting.pop().inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in cheap and producer not in along:
                along.add(producer)
                waiting.append(producer)
    found.along = [node for node in function if node in along]
    found.left = [node for node in function if node in moved or (node in cheap and node not in stays)]
    return found
