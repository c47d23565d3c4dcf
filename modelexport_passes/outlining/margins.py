"""The margins of like bodies: light operations at their beginning and end, which may as well lie in the caller.

An exporter computes a shape in one layer and folds it to a constant in the next; it moves a Transpose over the border
of two modules. Such operations lie at the *front* of a body, where nothing is needed that the body's work makes, or, if
they only move data, at the *back*, where none of its work needs them. Bodies that are equal but for their margins share
a function: what all of them have stays in it, and the rest moves in front of the calls, or behind them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

from modelexport_passes.outlining.constants import is_parameter
from modelexport_passes.outlining.flow import Op, Wire

if TYPE_CHECKING:
    from modelexport_passes.outlining.layout import Item
    from modelexport_passes.outlining.regions import Region
    from modelexport_passes.outlining.sharing import Bodies

_VIEWS = frozenset({"Identity", "Transpose"})
"""Copies and transpositions: of weights, these are passed as weights are."""

_MOVES = _VIEWS | {"Cast", "Flatten", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
_LIGHT = _MOVES | frozenset(
    """Abs Add And BitShift CastLike Ceil Clip Concat Constant ConstantOfShape Cos CumSum Div Equal Exp Expand EyeLike
    Floor Gather GatherElements GatherND Greater GreaterOrEqual Less LessOrEqual Log Max Min Mod Mul Neg NonZero Not Or
    Pow Range Reciprocal ReduceMax ReduceMin ReduceProd ReduceSum Round ScatterElements ScatterND Shape Sign Sin Size
    Slice Split Sqrt Sub Tile Trilu Where Xor""".split()  # noqa: SIM905 - a list of sixty texts would fill a screen
)
"""Arithmetic and the moving of data. What else there is, is a layer's work, and so is all that takes a weight."""

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})

OUTSIDE = (-1, 0)


class Margin(NamedTuple):
    """Positions of the light operations at the edges of a body.

    Attributes:
        front: those that need nothing but what is there before the call, and each other.
        back: those that move data and are needed by nothing in the body but each other.
    """

    front: AbstractSet[int] = frozenset()
    back: AbstractSet[int] = frozenset()

    @property
    def all(self) -> AbstractSet[int]:
        """Both."""
        return self.front | self.back


class Leaving(NamedTuple):
    """Operations that are to lie in the caller.

    Attributes:
        before: in front of the call.
        behind: behind it.
    """

    before: list[Op]
    behind: list[Op]


def find_margin(regions: Iterable[Region], bodies: Bodies, *, through_shapes: bool = False) -> Margin:
    """The margin that all of these regions have, whose bodies are equal.

    ``through_shapes``: as if the shape of everything were known before the call.
    """
    first, *others = [bodies.layout[region] for region in regions]
    light = _light(first)
    for items in others:  # what is a weight in one may be an activation in another
        light &= _light(items)
    work: set[Wire | None] = set()
    front: set[int] = set()
    for at, item in enumerate(first):
        known = through_shapes and isinstance(item, Op) and item.node.op_type == "Shape"
        if at in light and (known or work.isdisjoint(bodies.reads_of(item))):
            front.add(at)
        else:
            work.update(bodies.results_of(item))
    needed: set[Wire | None] = set()
    back: set[int] = set()
    for at in range(len(first) - 1, -1, -1):
        item = first[at]
        moves = at in light and at not in front and is_move(item)
        if moves and needed.isdisjoint(bodies.results_of(item)):
            back.add(at)
        else:
            needed.update(bodies.reads_of(item))
    return Margin(front, back)


def work_of(items: Iterable[Item], bodies: Bodies) -> Hashable:
    """How often each operation and call is there that is a layer's work whatever it takes: no margin has any."""
    work = Counter([bodies.item_key(item) for item in items if not (isinstance(item, Op) and may_be_light(item))])
    return frozenset(work.items())


def computes_shapes(items: Iterable[Item]) -> bool:
    """Whether `find_margin` may find more through shapes."""
    return any(isinstance(item, Op) and item.node.op_type == "Shape" for item in items)


def may_be_light(op: Op) -> bool:
    """Whether an operation may lie in a margin: it is no layer's work where none of what it takes is a weight."""
    return op.node.op_type in _LIGHT and op.node.domain == ""


def is_move(item: Item) -> bool:
    """Whether an operation only moves data."""
    return isinstance(item, Op) and item.node.op_type in _MOVES and item.node.domain == ""


def _light(items: Sequence[Item]) -> set[int]:
    """Positions of the operations that are no layer's work."""
    light: set[int] = set()
    folded: set[Wire] = set()  # made of constants alone
    weights: set[Wire] = set()  # among these, what another layer's optimizer may have folded to a weight
    for at, item in enumerate(items):
        if not (isinstance(item, Op) and may_be_light(item)):
            continue
        takes_weight = any(wire in weights or (wire.is_weight and not _is_table(wire)) for wire in item.reads)
        if all(wire in folded or _is_folded(wire) for wire in item.reads):
            folded.update(item.outs)
            weights.update(item.outs if takes_weight else ())
            light.add(at)
        elif item.node.op_type in _VIEWS or not takes_weight:
            light.add(at)
    return light


def _is_folded(wire: Wire) -> bool:
    """Made by an optimizer: an initializer that is no module's parameter."""
    return wire.is_weight and not is_parameter(wire.value)


def _is_table(wire: Wire) -> bool:
    """Positions, a mask, a row of numbers that an optimizer folded: no module's parameter."""
    value = wire.value
    if value.dtype in _INTEGERS:
        return True
    return value.shape is not None and value.shape.rank() <= 1 and not is_parameter(value)


def is_view_of_weight(wire: Wire) -> bool:
    """A copy or a transposition of a weight."""
    while (op := wire.producer) is not None:
        if op.node.op_type not in _VIEWS or op.node.domain != "" or op.ins[0] is None:
            return False
        wire = op.ins[0]
    return wire.is_weight


Reads = Mapping[int, Sequence["tuple[int, int] | None"]]
"""Position of an item -> for each input, the position of the item and the output that it comes from."""


@dataclass
class Body:
    """One of the bodies that are equal but for their margins.

    Attributes:
        keys: what each item does.
        reads: what each item takes.
        margin: its margin.
        places: position of each item that stays -> its number, which is the same in all bodies.
    """

    keys: Mapping[int, Hashable]
    reads: Reads
    margin: Margin
    places: dict[int, int]


def read_body(items: Sequence[Item], margin: Margin, order: Sequence[int], bodies: Bodies) -> Body:
    """The body that these items are; ``order`` says which of them stay, in an order that is common to all bodies."""
    maker = {wire: (at, out) for at, item in enumerate(items) for out, wire in enumerate(bodies.results_of(item))}
    reads = {
        at: [None if wire is None else maker.get(wire, OUTSIDE) for wire in bodies.reads_of(item)]
        for at, item in enumerate(items)
    }
    keys = {at: bodies.item_key(items[at]) for at in margin.all}
    return Body(keys, reads, margin, {at: place for place, at in enumerate(order)})


def keep_common(all_bodies: Sequence[Body]) -> None:
    """Number what all bodies have in their margins, too: it stays."""
    _keep(all_bodies, [_Back(body) for body in all_bodies])
    _keep(all_bodies, [_Front(body) for body in all_bodies])


class _Margin(ABC):
    """One of the margins of a body, from the inside outwards.

    Attributes:
        ready: operations of which all that lies further inside has a number.
    """

    def __init__(self, body: Body, waiting: Mapping[int, set[int]]) -> None:
        """``waiting``: for each operation of the margin, those further inside that it depends on."""
        self.body = body
        self._waiting = {at: {other for other in others if other not in body.places} for at, others in waiting.items()}
        self._outer: dict[int, list[int]] = defaultdict(list)
        for at, others in self._waiting.items():
            for other in others:
                self._outer[other].append(at)
        self.ready = [at for at, others in self._waiting.items() if not others]

    @abstractmethod
    def signature(self, at: int) -> Hashable:
        """What an operation does and how it hangs together with what has a number."""

    def keep(self, at: int, place: int) -> list[int]:
        """Give an operation its number; returns those that are ready now."""
        self.body.places[at] = place
        ready: list[int] = []
        for outer in self._outer[at]:
            self._waiting[outer].discard(at)
            if not self._waiting[outer]:
                ready.append(outer)
        return ready


class _Back(_Margin):
    def __init__(self, body: Body) -> None:
        back, front = body.margin.back, body.margin.front
        waiting = {
            at: {read[0] for read in body.reads[at] if read is not None and read != OUTSIDE and read[0] not in front}
            for at in sorted(back)
        }
        super().__init__(body, waiting)

    def signature(self, at: int) -> Hashable:
        places = self.body.places
        reads = [None if read is None else (places.get(read[0], -1), read[1]) for read in self.body.reads[at]]
        return (self.body.keys[at], tuple(read if read is None or read[0] >= 0 else OUTSIDE for read in reads))


class _Front(_Margin):
    def __init__(self, body: Body) -> None:
        waiting: dict[int, set[int]] = {at: set() for at in sorted(body.margin.front)}
        self._uses: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for at, reads in body.reads.items():
            for slot, read in enumerate(reads):
                if read is not None and read[0] in waiting:
                    waiting[read[0]].add(at)
                    self._uses[read[0]].append((at, slot, read[1]))
        super().__init__(body, waiting)

    def signature(self, at: int) -> Hashable:
        places = self.body.places
        reads = tuple([None if read is None else read == OUTSIDE for read in self.body.reads[at]])
        uses = sorted((places[user], slot, out) for user, slot, out in self._uses[at])
        return (self.body.keys[at], reads, tuple(uses))


def _keep(all_bodies: Sequence[Body], margins: Sequence[_Margin]) -> None:
    place = len(all_bodies[0].places)
    ready = [margin.ready for margin in margins]
    while all(ready):
        found: list[dict[Hashable, list[int]]] = []
        for margin, ats in zip(margins, ready, strict=True):
            by_signature: dict[Hashable, list[int]] = defaultdict(list)
            for at in ats:
                by_signature[margin.signature(at)].append(at)
            found.append(by_signature)
        following: list[list[int]] = [[] for _ in margins]
        for signature, ats in found[0].items():
            columns = [by_signature.get(signature, ()) for by_signature in found]
            if any(len(column) != len(ats) for column in columns):
                continue
            for row in zip(*columns, strict=True):
                for margin, at, ats_next in zip(margins, row, following, strict=True):
                    ats_next.extend(margin.keep(at, place))
                place += 1
        ready = following
