"""What a shared body may say of the types of its values: what is true at every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.outlining.sharing import Bodies, Group


class Facts(NamedTuple):
    """What is known of a value."""

    type: ir.TypeProtocol | None
    shape: ir.Shape | None


General = dict[ir.Value, Facts]
"""What holds at every call, of values of which not all does that is known of them at the first."""


def common_shape(values: Sequence[ir.Value]) -> ir.Shape | None:
    """The shape that all these values have; a dimension in which they differ is unknown. None if ranks differ."""
    shapes = [value.shape for value in values]
    first = shapes[0]
    if first is None or any(shape is None or shape.rank() != first.rank() for shape in shapes):
        return None
    if all(shape == first for shape in shapes[1:]):
        return first.copy()
    columns = zip(*(shape for shape in shapes if shape is not None), strict=True)
    return ir.Shape([dims[0] if all(dim == dims[0] for dim in dims) else None for dims in columns])


def general_facts(group: Group, bodies: Bodies) -> General:
    """What holds at every call of the values of a shared body whose type or shape differs between its instances."""
    general: General = {}
    if len(group.instances) == 1:
        return general
    for row in zip(*(bodies.layout[region] for region in group.instances), strict=True):
        for wires in zip(*(bodies.results_of(item) for item in row), strict=True):
            first = wires[0].value
            kind, shape = first.type, first.shape
            types_differ = shapes_differ = False
            for wire in wires:
                value = wire.value
                types_differ = types_differ or value.type != kind
                # Most of them are one object.
                shapes_differ = shapes_differ or (value.shape is not shape and value.shape != shape)
            if types_differ or shapes_differ:
                general[first] = Facts(None if types_differ else kind, common_shape([wire.value for wire in wires]))
    return general
