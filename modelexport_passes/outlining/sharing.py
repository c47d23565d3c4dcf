"""Sharing by proof: regions whose canonical bodies are equal become one function.

Regions are compared from the innermost outwards, so that a call inside a body is the call of a known function. Every
*use* of a value from outside is a slot of its own at first; slots that hold the same value in all instances become one
formal input. So neither a weight that one instance shares and another does not, nor one value fed twice, keeps equal
bodies apart. Constants that differ between instances move to the caller and become inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from modelexport_passes.outlining.attributes import Given, differing, liftable
from modelexport_passes.outlining.canonical import (
    Kind,
    Kinds,
    common_kinds,
    hold_the_same,
    is_constant,
    operator_key,
    weight_kind,
)
from modelexport_passes.outlining.flow import OF_ITS_OWN, Op, Wire
from modelexport_passes.outlining.idle import stand_idle
from modelexport_passes.outlining.known_values import KnownValues
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.margins import Leaving
from modelexport_passes.outlining.order import unite_up_to_order
from modelexport_passes.outlining.placement import return_to_original
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.unfolding import Folded, unfold
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of

Column = tuple[Wire, ...]
_LEFT_OUT = -1
"""The place of an input that is left out."""


@dataclass(frozen=True)
class Likeness:
    """In what module calls may differ and still share a function.

    Attributes:
        lift: ``auto``: in constants, which become inputs; ``attributes``: besides in numbers and texts that are
            attributes, which become attributes of the function; ``never``: in neither.
        weights: ``any``: in the shapes of weights; ``shape``: not in these.
    """

    lift: Literal["auto", "attributes", "never"] = "auto"
    weights: Literal["any", "shape"] = "any"


@dataclass(eq=False)
class Group:
    """Regions that share one function.

    Attributes:
        number: position among the groups, in order of finding.
        instances: the regions, first called first. The first one's nodes become the body.
        columns: one per formal input: what it is in each instance.
        slots: for each use of a value from outside, in the order of the body, the number of its column.
        attributes: position of an item in the body, and name of one of its attributes -> the function's attribute that
            it refers to.
    """

    number: int
    instances: list[Region]
    columns: list[Column] = field(default_factory=list[Column])
    slots: list[int] = field(default_factory=list[int])
    attributes: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])

    @property
    def body(self) -> Region:
        """The region whose nodes become the function."""
        return self.instances[0]


class _Ends(NamedTuple):
    """Where a body takes from outside and gives to it.

    Attributes:
        items: the layout that this is true of.
        uses: each use of a value from outside, in order.
        gives: positions among all wires made inside of those that leave it.
    """

    items: Sequence[Item]
    uses: list[Wire]
    gives: list[int]


@dataclass
class Bodies:
    """Regions on their way to functions.

    Attributes:
        root: the main graph.
        layout: region -> its operations and calls in order.
        results: region -> the wires that leave it.
        groups: regions that share, innermost first.
        group_of: region -> its group.
        actuals: region -> what its call passes, one wire per formal input.
        attributes: region -> the attributes that its call passes, where it passes any.
        likeness: in what regions that share may differ.
        folded: operation or call -> the constants that it had where it now takes the result of stand-ins.
        idle: stand-ins that do nothing.
    """

    root: Region
    layout: dict[Region, list[Item]]
    results: dict[Region, list[Wire]]
    likeness: Likeness = Likeness()
    groups: list[Group] = field(default_factory=list[Group])
    group_of: dict[Region, Group] = field(default_factory=dict[Region, Group])
    actuals: dict[Region, list[Wire]] = field(default_factory=dict[Region, list[Wire]])
    attributes: dict[Region, Given] = field(default_factory=dict[Region, Given])
    folded: dict[Item, list[Folded]] = field(default_factory=dict["Item", "list[Folded]"])
    idle: set[Op] = field(default_factory=set[Op])
    _ends: dict[Region, _Ends] = field(default_factory=dict[Region, _Ends])
    _keys: dict[int, Hashable] = field(default_factory=dict[int, Hashable])
    _numbers: dict[Hashable, int] = field(default_factory=dict[Hashable, int])
    _numbers_by_kind: dict[int, int] = field(default_factory=dict[int, int])

    def reads_of(self, item: Item) -> Sequence[Wire | None]:
        """What an item takes: inputs and captures of an operation, or the actual inputs of a call."""
        if isinstance(item, Region):
            return self.actuals[item]
        return [*item.ins, *item.captures] if item.captures else item.ins

    def results_of(self, item: Item) -> Sequence[Wire]:
        """What an item makes."""
        return item.outs if isinstance(item, Op) else self.results[item]

    def item_key(self, item: Item) -> Hashable:
        """What an item does: the operator and its attributes, or the function that is called."""
        if isinstance(item, Region):
            return (self.group_of[item].number, item.part)
        known = self._keys.get(item.kind)
        if known is None:
            lift = self.likeness.lift
            known = operator_key(item, constant_value=lift == "never", plain_values=lift != "attributes")
            if item.kind != OF_ITS_OWN:
                self._keys[item.kind] = known
        return known

    def _item_number(self, item: Item) -> int:
        """Equal where `item_key` is: compared and hashed in no time."""
        key = self.item_key(item)
        number = self._numbers.setdefault(key, len(self._numbers))
        if isinstance(item, Op) and item.kind != OF_ITS_OWN:
            self._numbers_by_kind[item.kind] = number
        return number

    def ends(self, region: Region) -> _Ends:
        """Where a region takes from outside and gives to it."""
        known = self._ends.get(region)
        if known is None or known.items is not self.layout[region]:
            self.read_body(region)
        return self._ends[region]

    def read_body(self, region: Region) -> list[Hashable]:
        """What the items of a region do, each before the positions of what it takes among all wires made inside."""
        items = self.layout[region]
        made: dict[Wire | None, int] = {None: _LEFT_OUT}
        rows: list[Hashable] = []
        uses: list[Wire] = []
        number = 0
        known = self._numbers_by_kind
        for item in items:
            if isinstance(item, Region):
                what = self._numbers.get((self.group_of[item].number, item.part))
                if what is None:
                    what = self._item_number(item)
                reads, results = self.actuals[item], self.results[item]
            else:
                what = known.get(item.kind)
                if what is None:
                    what = self._item_number(item)
                reads, results = self.reads_of(item) if item.captures else item.ins, item.outs
            places = tuple(map(made.get, reads))
            rows.append(what)
            rows.append(places)
            if None in places:  # what is from outside
                uses += [wire for wire in reads if wire is not None and wire not in made]
            for wire in results:
                made[wire] = number
                number += 1
        gives = sorted([at for wire in self.results[region] if (at := made.get(wire)) is not None])
        self._ends[region] = _Ends(items, uses, gives)
        return rows

    def value_names(self, items: Iterable[Item]) -> set[str]:
        """Names of what these items make, and of what the bodies of operations make inside."""
        names: set[str] = set()
        for item in items:
            names.update(str(wire.value.name) for wire in self.results_of(item))
            if isinstance(item, Op) and item.has_bodies:
                for graph in (graph for node in owned_nodes([item.node]) for graph in subgraphs_of(node)):
                    names.update(str(value.name) for value in (*graph.inputs, *graph.initializers.values()))
                    names.update(str(value.name) for node in graph for value in node.outputs)
        return names

    def calls_in(self, region: Region) -> list[Region]:
        """The calls in a body, in order."""
        return [item for item in self.layout[region] if isinstance(item, Region)] if region.children else []

    def in_call_order(self) -> list[Region]:
        """Every region but the root, callers before callees, in the order in which the calls run."""
        ordered: list[Region] = []
        stack = self.calls_in(self.root)[::-1]
        while stack:
            region = stack.pop()
            ordered.append(region)
            stack.extend(self.calls_in(region)[::-1])
        return ordered


def share(bodies: Bodies, known: KnownValues | None) -> None:
    """Group the regions and find the inputs of each call.

    Args:
        bodies: the regions.
        known: proves that what one computes is what another has as a constant; nothing is proven if None.
    """
    lift = bodies.likeness.lift != "never"
    kinds = Kinds()
    for level in _levels(bodies):
        alike = _alike(level, bodies)
        if known is not None and stand_idle(alike, bodies, known):
            alike = _alike(level, bodies)
        if known is not None and unfold(alike, bodies, known):
            alike = _alike(level, bodies)
        moved = unite_up_to_order(alike, level, bodies, margins=lift)
        if moved:
            _move_to_callers(moved, bodies)
        if lift:
            _lift_differing(alike.values(), bodies)
        for instances in alike.values():
            uses = {region: bodies.ends(region).uses for region in instances}
            for part in _part_by_weights(uses) if bodies.likeness.weights == "shape" else [uses]:
                for compatible in _part_by_kinds(part, kinds):
                    _add_group(compatible, uses, bodies)


def _levels(bodies: Bodies) -> list[list[Region]]:
    """Regions by height above the innermost ones, each level in call order."""
    ordered = bodies.in_call_order()
    heights = dict.fromkeys([bodies.root, *ordered], 0)
    for region in reversed(ordered):
        assert region.parent is not None
        heights[region.parent] = max(heights[region.parent], heights[region] + 1)
    del heights[bodies.root]
    levels: list[list[Region]] = [[] for _ in range(max(heights.values(), default=-1) + 1)]
    for region in ordered:
        levels[heights[region]].append(region)
    return levels


def _alike(level: Iterable[Region], bodies: Bodies) -> dict[Hashable, list[Region]]:
    alike: dict[Hashable, list[Region]] = defaultdict(list)
    for region in level:
        alike[_body_key(region, bodies)].append(region)
    return alike


def _body_key(region: Region, bodies: Bodies) -> Hashable:
    """The canonical body: operators and calls in order, wiring by position.

    What leaves it is no part: a value that only one call's surroundings use is an output of all calls.
    """
    return (region.frame.class_name, tuple(bodies.read_body(region)))


def _part_by_weights(uses: Mapping[Region, Sequence[Wire]]) -> list[dict[Region, Sequence[Wire]]]:
    """Part regions whose weights differ in dtype or shape."""
    parts: dict[Hashable, dict[Region, Sequence[Wire]]] = defaultdict(dict)
    for region, wires in uses.items():
        parts[tuple([weight_kind(wire) for wire in wires])][region] = wires
    return list(parts.values())


def _part_by_kinds(uses: Mapping[Region, Sequence[Wire]], kinds_of: Kinds) -> list[list[Region]]:
    """Part regions whose inputs are known to differ in dtype or rank. What is unknown contradicts nothing."""
    parts: list[tuple[list[Kind], list[Region]]] = []
    for region, wires in uses.items():
        kinds = [kinds_of[wire] for wire in wires]
        for at, (known, members) in enumerate(parts):
            common = common_kinds(known, kinds)
            if common is not None:
                members.append(region)
                parts[at] = (common, members)
                break
        else:
            parts.append((kinds, [region]))
    return [members for _, members in parts]


def _unite_results(instances: Sequence[Region], bodies: Bodies) -> None:
    """Let every instance give what any of them gives, in order of making."""
    given = {region: bodies.ends(region).gives for region in instances}
    union = sorted({at for gives in given.values() for at in gives})
    for region, gives in given.items():
        if gives != union:
            made = [wire for item in bodies.layout[region] for wire in bodies.results_of(item)]
            bodies.results[region] = [made[at] for at in union]


def _add_group(instances: list[Region], uses: Mapping[Region, Sequence[Wire]], bodies: Bodies) -> None:
    _unite_results(instances, bodies)
    group = Group(len(bodies.groups), instances)
    # Slots that hold the same value in every instance are one column.
    numbers: dict[Column, int] = {}
    for slot in zip(*(uses[region] for region in instances), strict=True):
        group.slots.append(numbers.setdefault(slot, len(numbers)))
    group.columns = list(numbers)
    if bodies.likeness.lift == "attributes" and len(instances) > 1:
        rows = zip(*(bodies.layout[region] for region in instances), strict=True)
        group.attributes, passed = differing([[_given(item, bodies) for item in row] for row in rows])
        bodies.attributes.update(zip(instances, passed, strict=True))
    bodies.groups.append(group)
    for at, region in enumerate(instances):
        bodies.group_of[region] = group
        bodies.actuals[region] = [column[at] for column in group.columns]


def _given(item: Item, bodies: Bodies) -> Given:
    """The attributes of an item in which like bodies may differ."""
    return liftable(item) if isinstance(item, Op) else bodies.attributes.get(item, {})


# --- constants that differ -------------------------------------------------------------------------------------------


def _lift_differing(groups: Iterable[Sequence[Region]], bodies: Bodies) -> None:
    """Move the constants in which regions that are else alike differ out of them, in front of their calls."""
    moved: dict[Region, Leaving] = {}
    for instances in groups:
        if len(instances) < 2:
            continue
        layouts = [bodies.layout[region] for region in instances]
        for at, first in enumerate(layouts[0]):
            if not (isinstance(first, Op) and is_constant(first)):
                continue
            row = [items[at] for items in layouts]
            constants = [item for item in row if isinstance(item, Op) and is_constant(item)]
            if len(constants) == len(row) and not hold_the_same(constants):
                for region, op in zip(instances, constants, strict=True):
                    moved.setdefault(region, Leaving([], [])).before.append(op)
    if moved:
        _move_to_callers(moved, bodies)


def _move_to_callers(moved: Mapping[Region, Leaving], bodies: Bodies) -> None:
    originals: dict[Op, None] = {}
    around: dict[Region, Leaving] = {}
    for region, leaving in moved.items():
        ops = {*leaving.before, *leaving.behind}
        bodies.layout[region] = [item for item in bodies.layout[region] if item not in ops]
        _settle_results(region, leaving, bodies)
        assert region.parent is not None
        around[region] = Leaving([], leaving.behind)
        for op in ops:
            op.region = region.parent
        returned: dict[Wire, Wire] = {}
        for op in leaving.before:
            if region.parent is not bodies.root or op.copy_of is None:
                around[region].before.append(op)
                continue
            if op.copy_of[0].producer is not None:
                originals[op.copy_of[0].producer] = None
            returned.update(zip(op.outs, op.copy_of, strict=True))
            return_to_original(op, bodies.root)
        for call in bodies.calls_in(region) if returned else ():
            bodies.actuals[call] = [returned.get(wire, wire) for wire in bodies.actuals[call]]
    for caller in {region.parent: None for region in moved}:
        assert caller is not None
        # A constant that the main graph has already may stand behind the call that now needs it.
        items: list[Item] = list(originals) if caller is bodies.root else []
        for item in bodies.layout[caller]:
            leaving = around.get(item) if isinstance(item, Region) else None
            if leaving is not None:
                items += [*leaving.before, item, *leaving.behind]
            elif item not in originals:
                items.append(item)
        bodies.layout[caller] = items


def _settle_results(region: Region, leaving: Leaving, bodies: Bodies) -> None:
    """What leaves a region is no result of it any more; what is needed behind the call is."""
    gone = {wire for op in (*leaving.before, *leaving.behind) for wire in op.outs}
    needed = {wire for op in leaving.behind for wire in op.reads}
    if gone.isdisjoint(bodies.results[region]) and not needed:
        return
    needed.update(bodies.results[region])
    made = (wire for item in bodies.layout[region] for wire in bodies.results_of(item))
    bodies.results[region] = [wire for wire in made if wire in needed]
