"""Small constants: those that an exporter shares between modules, and that each module may have a copy of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelexport_passes.exporting.weights import elements_of
from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.parameters import FOLDED_FROM, literal_list

if TYPE_CHECKING:
    from modelexport_passes.outlining.flow import Op, Wire

CLONE_LIMIT = 1024
"""Elements of the largest constant that is cloned; larger ones are handed over as inputs."""

EMBED_LIMIT = 64
"""Elements of the largest shape or axes that counts as a constant, be it folded to an initializer or computed."""

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def computes_constant(op: Op) -> bool:
    """Whether an operation that reads constants alone makes a small one of them."""
    node = op.node
    drawn = node.domain != "" or op.has_bodies or draws_random_numbers(node)
    return not drawn and _is_small_result(op)


def _is_small_result(op: Op) -> bool:
    """Small enough to clone: any small Constant, and shapes, axes and scalars computed from constants.

    A table that is computed (the cosines of a rotary embedding) is work, and a module's result: it is handed over.
    """
    if op.node.op_type == "Constant":
        tensor = op.node.attributes.data.get("value")  # the dictionary itself: a UserDict fails first
        return tensor is None or tensor.is_ref() or elements_of(tensor.value) <= CLONE_LIMIT
    return all(_is_shape_like(wire.value) for wire in op.outs)


def _is_shape_like(value: ir.Value) -> bool:
    if value.shape is None or not value.shape.is_static():
        return False
    size = math.prod(value.shape.numpy())
    return size <= EMBED_LIMIT if value.dtype in _INTEGERS else size == 1


def is_embeddable(wire: Wire) -> bool:
    """An initializer that is no weight but a shape, axes or a scalar that an optimizer folded."""
    if not wire.is_weight:
        return False
    value = wire.value
    tensor = value.const_value
    if tensor is None or is_parameter(value) or wire.is_output:
        return False
    size = elements_of(tensor)
    return size <= EMBED_LIMIT if tensor.dtype in _INTEGERS else size == 1


def is_parameter(value: ir.Value) -> bool:
    """Whether an initializer has the name of a module's parameter or buffer, and not one that an optimizer gave it."""
    name = value.name or ""
    named = "." in name and not name.startswith("/")
    return named or "pkg.torch.export.graph_signature.InputSpec.kind" in value.metadata_props


def folded_from(value: ir.Value) -> list[str]:
    """The names of what an optimizer computed an initializer from."""
    told = value.metadata_props.get(FOLDED_FROM)
    return [] if told is None else literal_list(told)
