"""What a shared body may say of the types of its values: what is true at every call."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelexport_passes.outlining.sharing import Bodies, Group

Shapes = dict[ir.Value, ir.Shape | None]


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


def general_shapes(group: Group, bodies: Bodies) -> Shapes:
    """For the values of a shared body whose shape differs between its instances, the shape that holds for all."""
    shapes: Shapes = {}
    if len(group.instances) == 1:
        return shapes
    for row in zip(*(bodies.layout[region] for region in group.instances), strict=True):
        for wires in zip(*(bodies.results_of(item) for item in row), strict=True):
            values = [wire.value for wire in wires]
            if any(value.shape != values[0].shape for value in values):
                shapes[values[0]] = common_shape(values)
    return shapes
