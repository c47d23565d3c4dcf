"""What a shared body may say of the types of its values: what is true at every call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import onnx_ir as ir

from modelexport_passes.fast_nodes import own_shape, own_type, shape_of, type_of
from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.sharing import Bodies, Group
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of

_T = TypeVar("_T")


class Facts(NamedTuple):
    """What is known of a value."""

    type: ir.TypeProtocol | None
    shape: ir.Shape | None


General = dict[ir.Value, Facts]
"""What holds at every call, of values of which not all does that is known of them at the first."""


def first_type(values: Iterable[ir.Value]) -> ir.TypeProtocol | None:
    """The type of the first of these values that has one, for one more value."""
    for kind in map(type_of, values):
        if kind is not None:
            return own_type(kind)
    return None


def common_shape(values: Sequence[ir.Value]) -> ir.Shape | None:
    """The shape that all these values have; a dimension in which they differ is unknown. None if ranks differ."""
    first = values[0].shape
    if first is None:
        return None
    others = [shape for shape in map(shape_of, values) if shape is not first]  # most are one object
    known = first.dims if others else ()
    if all(shape is not None and shape.dims == known for shape in others):
        return own_shape(first)
    if any(shape is None or shape.rank() != first.rank() for shape in others):
        return None
    columns = zip(first, *(shape for shape in others if shape is not None), strict=True)
    return ir.Shape([dims[0] if all(dim == dims[0] for dim in dims) else None for dims in columns])


def general_facts(group: Group, bodies: Bodies) -> General:
    """What holds at every call of the values of a shared body whose type or shape differs between its instances."""
    if len(group.instances) == 1:
        return {}
    made = [_values(region, bodies) for region in group.instances]
    types, shapes = _types(made[0]), list(map(shape_of, made[0]))
    differing: set[int] = set()
    for values in made[1:]:
        # As lists: what is one object everywhere, as nearly all is, is not looked at one by one.
        differing.update(_differing(types, _types(values)), _differing(shapes, list(map(shape_of, values))))
    general: General = {}
    for at in sorted(differing):
        column = [values[at] for values in made]
        kind = column[0].type
        general[column[0]] = Facts(kind if all(value.type == kind for value in column) else None, common_shape(column))
    return general


def _values(region: Region, bodies: Bodies) -> list[ir.Value]:
    """What is made in a body, in order; then what is in the graphs that its operations own."""
    items = bodies.layout[region]
    results = bodies.results
    made = [wire.value for item in items for wire in (results[item] if isinstance(item, Region) else item.outs)]
    for item in items:
        if isinstance(item, Op) and item.has_bodies:
            made += _owned_values(item.node)
    return made


def _owned_values(node: ir.Node) -> Iterator[ir.Value]:
    for owner in owned_nodes([node]):
        if owner is not node:
            yield from owner.outputs
        for graph in subgraphs_of(owner):
            yield from graph.inputs


def _types(values: Sequence[ir.Value]) -> list[object]:
    """Equal where the types are; of the usual one the dtype alone, which is compared in no time."""
    return [
        kind.dtype if type(kind) is ir.TensorType and kind.denotation is None else kind for kind in map(type_of, values)
    ]


def _differing(first: list[_T], second: list[_T]) -> list[int]:
    return (
        [] if first == second else [at for at, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
    )
