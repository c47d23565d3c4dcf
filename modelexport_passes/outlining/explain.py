"""Why two calls of one class did not share a function: the first difference, in module terms."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest

import onnx_ir as ir

from modelexport_passes.outlining.attributes import liftable
from modelexport_passes.outlining.canonical import common_kinds, constant_kind, is_constant, kind_of
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.regions import Region, kind_of_call
from modelexport_passes.outlining.sharing import Bodies, Likeness

_SHOWN = 40


@dataclass(frozen=True)
class NearMiss:
    """Two calls of one class that have functions of their own.

    Attributes:
        class_name: the class.
        first: a call of one function.
        second: a call of the other.
        alike: they are items of one list, or calls of one module: they might have been expected to share.
        difference: the first difference of their bodies.
    """

    class_name: str
    first: str
    second: str
    alike: bool
    difference: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second} ({self.class_name}) differ: {self.difference}"


def near_misses(bodies: Bodies) -> list[NearMiss]:
    """For each class with several functions: the first of them beside each of the others."""
    by_class: dict[tuple[str, int], list[Region]] = defaultdict(list)
    for group in bodies.groups:
        by_class[group.body.frame.class_name, group.body.part].append(group.body)
    misses: list[NearMiss] = []
    for (class_name, _), regions in sorted(by_class.items()):
        first = regions[0]
        for other in regions[1:]:
            alike = first.frames[:-1] == other.frames[:-1] and kind_of_call(first.frame) == kind_of_call(other.frame)
            misses.append(NearMiss(class_name, str(first), str(other), alike, difference(first, other, bodies)))
    return misses


def difference(first: Region, second: Region, bodies: Bodies) -> str:
    """The first difference between two bodies, in order; inside of a call that differs, the difference of that."""
    seen: tuple[dict[Wire, tuple[int, int]], dict[Wire, tuple[int, int]]] = ({}, {})
    for at, (a, b) in enumerate(zip_longest(bodies.layout[first], bodies.layout[second])):
        found = _item_difference(a, b, bodies) or _wiring_difference(a, b, seen, bodies)
        if found:
            return found
        for item, made in ((a, seen[0]), (b, seen[1])):
            made.update((wire, (at, out)) for out, wire in enumerate(bodies.results_of(item)))
    return "dtype or rank of an input"


def _item_difference(a: Item | None, b: Item | None, bodies: Bodies) -> str | None:
    if a is None or b is None:
        return f"{_describe(a or b)} is in one of them only"
    if isinstance(a, Region) and isinstance(b, Region):
        if bodies.group_of[a] is bodies.group_of[b]:
            return None if a.part == b.part else f"{_describe(a)} and {_describe(b)}"
        if a.frame.class_name == b.frame.class_name:
            return f"in {a.frame.path}: {difference(a, b, bodies)}"
        return f"{_describe(a)} ({a.frame.class_name}) and {_describe(b)} ({b.frame.class_name})"
    if isinstance(a, Op) and isinstance(b, Op) and a.node.op_identifier() == b.node.op_identifier():
        return _attribute_difference(a, b, bodies.likeness)
    return f"{_describe(a)} and {_describe(b)}"


def _attribute_difference(a: Op, b: Op, likeness: Likeness) -> str | None:
    if is_constant(a):
        if constant_kind(a) == constant_kind(b):
            return None  # the content may differ: it is lifted
        return f"{_describe(a)} and {_describe(b)}"
    lifted = liftable(a).keys() & liftable(b).keys() if likeness.lift == "attributes" else ()
    for name in sorted({*a.node.attributes, *b.node.attributes}):
        values = [op.node.attributes.get(name) for op in (a, b)]
        if name in lifted and len({value.type for value in values if value is not None}) == 1:
            continue
        texts = ["absent" if value is None else _short(value) for value in values]
        if texts[0] != texts[1]:
            return f"{a.node.op_type}.{name}: {texts[0]} and {texts[1]} ({_name(a)} and {_name(b)})"
    return None


def _wiring_difference(
    a: Item | None,
    b: Item | None,
    seen: tuple[dict[Wire, tuple[int, int]], dict[Wire, tuple[int, int]]],
    bodies: Bodies,
) -> str | None:
    assert a is not None
    assert b is not None
    reads = bodies.reads_of(a), bodies.reads_of(b)
    if len(reads[0]) != len(reads[1]):
        return f"{_describe(a)} takes {len(reads[0])} inputs, {_describe(b)} {len(reads[1])}"
    for at, (one, other) in enumerate(zip(*reads, strict=True)):
        places = [
            None if wire is None else made.get(wire, (-1, -1)) for wire, made in zip((one, other), seen, strict=True)
        ]
        if places[0] != places[1]:
            return f"input {at} of {_describe(a)} and of {_describe(b)} come from different places"
        if one is not None and other is not None and common_kinds([kind_of(one)], [kind_of(other)]) is None:
            return f"input {at} of {_describe(a)} is {_kind(one)}, of {_describe(b)} {_kind(other)}"
        if one is not None and other is not None and bodies.likeness.weights == "shape":
            shapes = [_weight(one), _weight(other)]
            if shapes[0] != shapes[1]:
                return f"input {at} of {_describe(a)} is {shapes[0]}, of {_describe(b)} {shapes[1]}"
    return None


def _describe(item: Item | None) -> str:
    if isinstance(item, Region):
        return f"call {item}"
    assert item is not None
    if is_constant(item):
        return f"a constant {_short(next(iter(item.node.attributes.values())))}"
    return f"{item.node.op_type} {_name(item)}"


def _name(op: Op) -> str:
    return op.node.name or f"of {op.node.outputs[0].name}"


def _weight(wire: Wire) -> str:
    shape = wire.value.shape
    return f"a weight {wire.value.dtype}[{', '.join(map(str, shape or ()))}]" if wire.is_weight else "no weight"


def _kind(wire: Wire) -> str:
    dtype, rank = kind_of(wire)
    return f"{dtype} of rank {rank}"


def _short(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.value
        return f"{tensor.dtype}{list(tensor.shape.numpy())}"
    text = str(attribute.value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
