"""``name_by_module``: node names that say which module a node belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

import modelexport_passes as mx


@dataclass(frozen=True, kw_only=True)
class NameByModule(mx.ModelPass):
    """Rename every node to the path of its module and its operation type.

    Before -> after::

        node_linear_3 = MatMul(...)    ->    layers.0.attention.query/MatMul = MatMul(...)

    Profilers, debuggers and graph viewers know a node by its name only: with these names their rows sort and fold by
    module. A second node of one name gets ``_1``. In function bodies names are relative to the function's module.
    Nodes whose scope is unknown keep their names.

    Visits: main graph, subgraphs, functions.

    Attributes:
        separator: what stands between the module path and the operation type.
    """

    name: ClassVar[str] = "name_by_module"

    separator: str = "/"

    def call(self, model: ir.Model) -> mx.Outcome:
        """Rename in the main graph, then in each function: names need be unique only within one of them."""
        renamed = kept = 0
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            nodes = list(ir.traversal.RecursiveGraphIterator(graph))
            unknown = [node for node in nodes if mx.scope_of(node) is None]
            kept += len(unknown)
            for node, name in self._names(nodes, taken={node.name for node in unknown if node.name}):
                renamed += node.name != name
                node.name = name
        return mx.Outcome(model, renamed > 0, figures={"renamed": renamed, "kept": kept})

    def _names(self, nodes: list[ir.Node], taken: set[str]) -> Iterator[tuple[ir.Node, str]]:
        """Each node whose scope is known, with its new name, in the order of the graph."""
        numbers: dict[str, int] = {}
        for node in nodes:
            scope = mx.scope_of(node)
            if scope is None:
                continue
            module = str(scope.frames[-1]) if scope.frames else ""
            name = base = f"{module}{self.separator}{node.op_type}" if module else node.op_type
            number = numbers.get(base, 0)
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            numbers[base] = number
            taken.add(name)
            yield node, name
