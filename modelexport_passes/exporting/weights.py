"""Where a model keeps its tensors: initializers and attributes, of every graph that it has."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from typing import TypeGuard, cast

import onnx_ir as ir

from modelexport_passes.fast_nodes import attributes_of, initializers_of, nodes_of

_TENSOR = ir.AttributeType.TENSOR
_TENSORS = ir.AttributeType.TENSORS
_GRAPH = ir.AttributeType.GRAPH
_GRAPHS = ir.AttributeType.GRAPHS


class Tensors:
    """The tensors of a model, found in one walk over its nodes.

    Attributes:
        initializers: of the main graph, of subgraphs, and of subgraphs inside functions.
        in_attributes: tensors in attributes (``Constant`` and others), each with the first node that has it; None for
            the default of a function's attribute.
    """

    def __init__(self, model: ir.Model) -> None:
        self.initializers: list[ir.Value] = []
        self.in_attributes: list[tuple[ir.TensorProtocol, ir.Node | None]] = []
        self._seen: set[int] = set()
        self._enter(model.graph)
        for function in model.functions.values():
            self._look_at(function)
            for attribute in function.attributes.values():
                if attribute.value is not None and not attribute.is_ref():
                    self._open(attribute, None)

    def _enter(self, graph: ir.Graph) -> None:
        self.initializers += initializers_of(graph)
        self._look_at(graph)

    def _look_at(self, nodes: ir.Graph | ir.Function) -> None:
        seen = self._seen
        for node in nodes_of(nodes):
            attributes = attributes_of(node)
            if attributes:
                for attribute in attributes.values():
                    if id(attribute) not in seen:  # what was inlined shares them by the hundred
                        seen.add(id(attribute))
                        if not attribute.is_ref():
                            self._open(attribute, node)

    def _open(self, attribute: ir.Attr, node: ir.Node | None) -> None:
        kind = attribute.type
        if kind is _TENSOR:
            # Not `as_tensor`, which asks by name for all that a tensor can do.
            self.in_attributes.append((cast(ir.TensorProtocol, attribute.value), node))
        elif kind is _TENSORS:
            self.in_attributes += [(tensor, node) for tensor in cast("list[ir.TensorProtocol]", attribute.value)]
        elif kind is _GRAPH:
            self._enter(attribute.as_graph())
        elif kind is _GRAPHS:
            for graph in attribute.as_graphs():
                self._enter(graph)


def all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """All tensors of a model: initializers and attributes, in the main graph, subgraphs and functions."""
    tensors = Tensors(model)
    for value in tensors.initializers:
        if value.const_value is not None:
            yield value.const_value
    for tensor, _ in tensors.in_attributes:
        yield tensor


def initializers(model: ir.Model) -> list[ir.Value]:
    """All initializers: of the main graph, of subgraphs, and of subgraphs inside functions."""
    return Tensors(model).initializers


_DTYPES = {dtype.value: dtype for dtype in ir.DataType}
"""A dictionary answers in a tenth of the time that an enumeration takes."""


def extent_of(tensor: ir.TensorProtocol) -> tuple[ir.DataType, tuple[int | ir.SymbolicDimProtocol, ...]]:
    """Dtype and sizes of a tensor, without the shape that one in protobuf makes anew each time it is asked."""
    if type(tensor) is ir.TensorProtoTensor:
        raw = tensor.raw
        return _DTYPES[raw.data_type], tuple(raw.dims)
    return tensor.dtype, tuple(tensor.shape.dims)


def elements_of(tensor: ir.TensorProtocol) -> int:
    """The number of elements of a tensor."""
    return math.prod(tensor.raw.dims) if type(tensor) is ir.TensorProtoTensor else tensor.size


def bytes_of(tensor: ir.TensorProtocol) -> int:
    """The bytes that the elements of a tensor take; 0 for texts, which have no size of their own."""
    if type(tensor) is not ir.TensorProtoTensor:
        return 0 if tensor.dtype is ir.DataType.STRING else tensor.nbytes
    raw = tensor.raw
    dtype = _DTYPES[raw.data_type]
    return 0 if dtype is ir.DataType.STRING else math.ceil(dtype.itemsize * math.prod(raw.dims))


@functools.cache
def _holds_external(kind: type) -> bool:
    return issubclass(kind, ir.ExternalTensor)


def is_external(tensor: ir.TensorProtocol | None) -> TypeGuard[ir.ExternalTensor]:
    """Whether the data is in another file. ``isinstance`` asks a protocol class, which takes ten times as long."""
    return _holds_external(type(tensor))


def data_directory(tensor: ir.ExternalTensor) -> str:
    """The directory that the location of an external tensor is relative to."""
    # onnx_ir leaves the type argument of its PathLike open.
    return os.fspath(cast("str | os.PathLike[str]", tensor.base_dir)) or os.curdir  # pyright: ignore[reportUnknownMemberType]


def data_location(tensor: ir.ExternalTensor) -> str:
    """The data file of an external tensor, relative to `data_directory`."""
    return os.fspath(cast("str | os.PathLike[str]", tensor.location))  # pyright: ignore[reportUnknownMemberType]
