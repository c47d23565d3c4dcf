"""Rules that a model must keep to be loaded everywhere, and that ``onnx.checker`` does not all know.

Each rule was seen broken by a tool, and its breach seen to pass the checker: onnxruntime refuses pass-through functions
and repeated node names, a function that reads a value from outside is rewired in silence, and so on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.exporting.loading import data_fault
from modelexport_passes.exporting.weights import data_directory, data_location, extent_of, initializers, is_external
from modelexport_passes.fast_nodes import initializers_of, inputs_of
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of
from modelexport_passes.validation.problem import Problem

METADATA_IR_VERSION = 10
"""The first IR version with metadata on nodes and functions (onnx.proto)."""


def check_structure(model: ir.Model) -> list[Problem]:
    """Check the structure of a model: names, order, captures, metadata version, weights.

    Visits: main graph, subgraphs, functions. What concerns functions and their calls: `check_functions`.
    """
    return [
        *_Walk("the main graph").graph(model.graph),
        *(found for function in model.functions.values() for found in _Walk(place_of(function)).function(function)),
        *_metadata(model),
        *_weights(model),
    ]


def place_of(function: ir.Function) -> str:
    """How messages name a function."""
    overload = f":{function.overload}" if function.overload else ""
    return f"function {function.domain}::{function.name}{overload}"


def name_of(node: ir.Node) -> str:
    """How messages name a node."""
    return f"{node.name or '(unnamed)'} ({node.op_type})"


@dataclass
class _Walk:
    """One pass over a graph and its subgraphs that knows what is visible at each node.

    Attributes:
        where: the place, for messages.
        values: the values that may be used here.
        names: their names, and the names of all that the enclosing graphs declare.
        graphs: the enclosing graphs.
    """

    where: str
    values: set[ir.Value] = field(default_factory=set[ir.Value])
    names: set[str] = field(default_factory=set[str])
    graphs: tuple[ir.Graph, ...] = ()

    def function(self, function: ir.Function) -> Iterator[Problem]:
        if function.graph.initializers:
            names = ", ".join(sorted(function.graph.initializers))
            yield Problem("function-initializer", self.where, f"holds initializers ({names}); they would not be saved")
        yield from self.graph(function.graph)

    def graph(self, graph: ir.Graph, *, depth: int = 0) -> Iterator[Problem]:
        mine: list[ir.Value] = []
        names: list[str] = []
        yield from self._declare([*inputs_of(graph), *initializers_of(graph)], mine, names)
        for node in graph:
            yield from self._uses(node, graph)
            for subgraph in subgraphs_of(node):
                body = _Walk(f"{self.where}, body of {name_of(node)}", self.values, self.names, (*self.graphs, graph))
                yield from body.graph(subgraph, depth=depth + 1)
            yield from self._declare(node.outputs, mine, names)
        yield from self._repeated_node_names(graph)
        own = set(mine)
        for output in graph.outputs:
            if output not in self.values:
                yield Problem("output", self.where, f"nothing makes the output {output.name!r}")
            elif depth and output not in own:
                # onnxruntime: "Subgraph output is an outer scope value being returned directly".
                yield Problem("output", self.where, f"the outer value {output.name!r} is returned without an Identity")
        self.values.difference_update(own)
        self.names.difference_update(names)

    def _declare(self, values: Iterable[ir.Value], mine: list[ir.Value], names: list[str]) -> Iterator[Problem]:
        for value in values:
            if value in self.values or value.name == "":
                continue  # an input with a default is an initializer as well; "" is an output that nobody wants
            if value.name is None:
                yield Problem("value-name", self.where, f"a value of {_maker(value)} has no name")
            elif value.name in self.names:
                text = f"the name {value.name!r} is used for a second value, of {_maker(value)}"
                yield Problem("value-name", self.where, text)
            else:
                self.names.add(value.name)
                names.append(value.name)
            self.values.add(value)
            mine.append(value)

    def _uses(self, node: ir.Node, graph: ir.Graph) -> Iterator[Problem]:
        for value in node.inputs:
            if value is None or value in self.values:
                continue
            used = f"{name_of(node)} uses {value.name!r}"
            home = value.graph
            if home is graph or home in self.graphs:
                yield Problem("order", self.where, f"{used} before {_maker(value)} makes it; sort the graph")
            elif home is None:
                yield Problem("dangling", self.where, f"{used}, which nothing makes")
            else:
                yield Problem(
                    "capture",
                    self.where,
                    f"{used}, which belongs to {home.name or 'another graph'!r} and is not visible here",
                )

    def _repeated_node_names(self, graph: ir.Graph) -> Iterator[Problem]:
        names = Counter(node.name for node in graph if node.name)
        for name, count in names.items():
            if count > 1:
                yield Problem("node-name", self.where, f"{count} nodes are named {name!r}; onnxruntime refuses that")


def _maker(value: ir.Value) -> str:
    producer = value.producer()
    return name_of(producer) if producer is not None else "the graph's inputs or initializers"


def _metadata(model: ir.Model) -> Iterator[Problem]:
    if model.ir_version >= METADATA_IR_VERSION:
        return
    for function in model.functions.values():
        if function.metadata_props:
            yield Problem("ir-version", place_of(function), _old_metadata(model))
            return
    for container in (model.graph, *model.functions.values()):
        for node in owned_nodes(container):
            if node.metadata_props:
                yield Problem("ir-version", name_of(node), _old_metadata(model))
                return


def _old_metadata(model: ir.Model) -> str:
    return f"has metadata, which needs IR version {METADATA_IR_VERSION}; this model has {model.ir_version}"


def _weights(model: ir.Model) -> Iterator[Problem]:
    """The data of an initializer is there, and is what the value says it is."""
    ends: dict[tuple[str, str], tuple[int, str]] = {}
    for value in initializers(model):
        tensor = value.const_value
        where = f"initializer {value.name}"
        if tensor is None:
            yield Problem("weight", where, "has no data")
            continue
        dtype, sizes = extent_of(tensor)
        if value.dtype is not None and value.dtype != dtype:
            yield Problem("weight", where, f"is {value.dtype} and its data is {dtype}")
        shape = value.shape
        if shape is not None and shape.dims != sizes and shape.is_static():
            yield Problem("weight", where, f"has shape {shape} and its data {tensor.shape}")
        if is_external(tensor):
            key = (data_directory(tensor), data_location(tensor))
            end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
            ends[key] = max(ends.get(key, (-1, "")), (end, where))
    for (directory, location), (end, where) in ends.items():
        fault = data_fault(directory, location, end)
        if fault:
            yield Problem("weight", where, f"its data is in {os.path.join(directory, location)}, which {fault}")
