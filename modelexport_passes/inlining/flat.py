"""A function body with the calls in it written out once: then a call of it is copied in one go, however deep it is.

Only what nearly all bodies of modules are is made flat: nodes without bodies of their own and without attributes that
the call passes. All others are written out call by call (`instantiate`), and so is a call that the ledger knows
something of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.fast_copies import Template, template_of
from modelexport_passes.inlining.body import Body, Part
from modelexport_passes.scopes.scope import SCOPE_KEY

_MOST = 4096
"""Nodes of the largest flat body. What calls more brings nothing by being flat, and would be in memory once more."""


class Inner(NamedTuple):
    """A call inside of a flat body.

    Attributes:
        node: the call.
        function: in whose body it stands.
        around: the number of the call of that: 0 is the call of the flat body itself.
    """

    node: ir.Node
    function: ir.Function
    around: int


class Place(NamedTuple):
    """Where some nodes of a flat body are.

    Attributes:
        node: one of them.
        function: in whose body it stands.
        call: the number of the call of that.
        metadata: what they have beside scope and tags.
        inherits: they have the metadata of the call of the flat body, too.
    """

    node: ir.Node
    function: ir.Function
    call: int
    metadata: dict[str, str]
    inherits: bool


class Flat(NamedTuple):
    """A body without calls. Its values have numbers: 0 is none, then come inputs, originals, and what the nodes make.

    Attributes:
        templates: its nodes.
        inputs: how many the function has.
        originals: values of the original graph that it has copies of.
        outputs: numbers of what the function returns.
        node_names: names of the nodes, each behind those of the calls that they are in.
        value_names: of what they make, likewise.
        calls: the calls inside, by number; None for that of the body itself.
        places: where its nodes are, by number.
    """

    templates: list[Template]
    inputs: int
    originals: list[str]
    outputs: list[int]
    node_names: list[str]
    value_names: list[str]
    calls: list[Inner | None]
    places: list[Place]


def flatten(body: Body, flats: Mapping[ir.OperatorIdentifier, Flat | None], tags: Collection[str]) -> Flat | None:
    """The flat form of a body; None if it has none.

    Args:
        body: of a function.
        flats: those of the functions that it calls.
        tags: keys of the tags that nodes carry.
    """
    builder = _Builder(body, flats, tags)
    if not all(builder.add(part) for part in body.parts):
        return None
    return builder.flat()


def inherited(call: ir.Node, tags: Collection[str]) -> dict[str, str]:
    """Metadata on the call of a function by others (torch's, of an operator): it is true of what is in it."""
    return {key: text for key, text in call.metadata_props.items() if key != SCOPE_KEY and key not in tags}


class _Builder:
    """Puts a flat body together. Until it is known how many originals there are, these have numbers below 0."""

    def __init__(self, body: Body, flats: Mapping[ir.OperatorIdentifier, Flat | None], tags: Collection[str]) -> None:
        self._body = body
        self._flats = flats
        self._tags = tags
        self._first = 1 + len(body.inputs)
        self._numbers: dict[ir.Value | None, int] = {None: 0}
        self._numbers.update({value: 1 + at for at, value in enumerate(body.inputs)})
        self._originals: dict[str, int] = {}
        self._nodes: list[tuple[Template, list[int]]] = []
        self._node_names: list[str] = []
        self._value_names: list[str] = []
        self._calls: list[Inner | None] = [None]
        self._places: dict[int, int] = {}
        self._all_places: list[Place] = []

    def add(self, part: Part) -> bool:
        """Add a node of the body, or all that a call of it does. Returns whether it can be in a flat body."""
        if any(value not in self._numbers for value in part.inputs) or not all(name for _, name in part.outputs):
            return False
        if len(self._nodes) > _MOST:
            return False
        reads = [self._numbers[value] for value in part.inputs]
        if part.callee is not None:
            return self._add_call(part, reads, self._flats.get(part.callee))
        if part.origin:
            self._numbers[part.outputs[0][0]] = self._original(part.origin)
            return len(part.outputs) == 1
        if part.attributes is None:
            return False
        self._nodes.append((template_of(part.node, part.attributes, self._place(part)), reads))
        self._node_names.append(part.name)
        for value, name in part.outputs:
            self._numbers[value] = self._made(str(name))
        return True

    def _original(self, origin: str) -> int:
        return -1 - self._originals.setdefault(origin, len(self._originals))

    def _made(self, name: str) -> int:
        self._value_names.append(name)
        return self._first + len(self._value_names) - 1

    def _place(self, part: Part) -> int:
        known = self._places.get(id(part.description))
        if known is None:
            known = self._places[id(part.description)] = len(self._all_places)
            metadata = {key: text for key, text in part.description.metadata.items() if key not in self._tags}
            self._all_places.append(Place(part.node, self._body.function, 0, metadata, not self._body.is_module))
        return known

    def _add_call(self, part: Part, reads: Sequence[int], inner: Flat | None) -> bool:
        if inner is None or len(reads) > inner.inputs or len(part.outputs) > len(inner.outputs):
            return False
        call, places = len(self._calls), len(self._all_places)
        self._calls.append(Inner(part.node, self._body.function, 0))
        # Behind the first, which is this call itself.
        self._calls += [one._replace(around=one.around + call) for one in inner.calls if one is not None]
        passed_on = inherited(part.node, self._tags)
        self._all_places += [
            place._replace(
                call=place.call + call,
                metadata={**passed_on, **place.metadata} if place.inherits else place.metadata,
                inherits=False,
            )
            for place in inner.places
        ]
        passed = [*reads, *[0] * (inner.inputs - len(reads))]
        numbers = [0, *passed, *map(self._original, inner.originals)]
        names = [f"{part.name}/{name}" for name in inner.value_names]
        for number, (_, name) in reversed([*zip(inner.outputs, part.outputs, strict=False)]):
            if number >= len(numbers):
                names[number - len(numbers)] = str(name)
        numbers += map(self._made, names)
        for template in inner.templates:
            moved = template._replace(place=template.place + places)
            self._nodes.append((moved, [numbers[at] for at in template.reads]))
        self._node_names += [f"{part.name}/{name}" for name in inner.node_names]
        self._numbers.update({value: numbers[at] for at, (value, _) in zip(inner.outputs, part.outputs, strict=False)})
        return True

    def flat(self) -> Flat | None:
        """The body; None if it is large, or names or results are out of the common."""
        if len(self._nodes) > _MOST:
            return None
        distinct = len(set(self._node_names)) + len(set(self._value_names))
        if distinct != len(self._node_names) + len(self._value_names):
            return None
        if any(value not in self._numbers for value in self._body.outputs):
            return None
        first, count = self._first, len(self._originals)

        def moved(number: int) -> int:
            return first - 1 - number if number < 0 else number + count if number >= first else number

        return Flat(
            [template.reading([moved(at) for at in reads]) for template, reads in self._nodes],
            len(self._body.inputs),
            list(self._originals),
            [moved(self._numbers[value]) for value in self._body.outputs],
            self._node_names,
            self._value_names,
            self._calls,
            self._all_places,
        )
