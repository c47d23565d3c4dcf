"""Where a model keeps its tensors: an iteration over initializers and attributes that misses no graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import onnx_ir as ir

from modelexport_passes.scopes.walk import all_nodes, has_bodies, subgraphs_of

_TENSOR = ir.AttributeType.TENSOR
_TENSORS = ir.AttributeType.TENSORS


def all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """All tensors of a model: initializers and attributes, in the main graph, subgraphs and functions."""
    for value in initializers(model):
        if value.const_value is not None:
            yield value.const_value
    for tensor, _ in attribute_tensors(model):
        yield tensor


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """All initializers: of the main graph, of subgraphs, and of subgraphs inside functions."""
    yield from model.graph.initializers.values()
    for node in all_nodes(model):
        if node.attributes.data and has_bodies(node):
            for graph in subgraphs_of(node):
                yield from graph.initializers.values()


def attribute_tensors(model: ir.Model) -> Iterator[tuple[ir.TensorProtocol, ir.Node]]:
    """All tensors in attributes (``Constant`` and others) with their nodes."""
    for node in all_nodes(model):
        for attribute in node.attributes.data.values():
            if attribute.type is _TENSOR and not attribute.is_ref():
                yield attribute.as_tensor(), node
            elif attribute.type is _TENSORS and not attribute.is_ref():
                for tensor in attribute.as_tensors():
                    yield tensor, node


def data_directory(tensor: ir.ExternalTensor) -> str:
    """The directory that the location of an external tensor is relative to."""
    # onnx_ir leaves the type argument of its PathLike open.
    return os.fspath(cast("str | os.PathLike[str]", tensor.base_dir)) or os.curdir  # pyright: ignore[reportUnknownMemberType]


def data_location(tensor: ir.ExternalTensor) -> str:
    """The data file of an external tensor, relative to `data_directory`."""
    return os.fspath(cast("str | os.PathLike[str]", tensor.location))  # pyright: ignore[reportUnknownMemberType]
