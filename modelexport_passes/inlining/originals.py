"""Constants that outlining gave to each body: in the main graph they become one again."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelexport_passes.scopes.ledger import Ledger, parse_tensor
from modelexport_passes.scopes.scope import parse_scope, set_scope
from modelexport_passes.scopes.walk import values_read
from modelexport_passes.unique_names import Names


class Originals:
    """Finds the originals that the main graph has, and puts back those that it has not.

    Attributes:
        reused: one that stands in the graph already was used; it may stand behind its new user.
    """

    def __init__(self, graph: ir.Graph, ledger: Ledger, names: Names) -> None:
        self.reused = False
        self._graph = graph
        self._ledger = ledger
        self._names = names
        self._found: dict[str, Sequence[ir.Value]] = {}
        self._standing: dict[ir.Node, None] = {}
        for node in graph:
            if node.outputs and node.outputs[0].name in ledger.originals:
                self._found[str(node.outputs[0].name)] = node.outputs
                self._standing[node] = None
                self.reused = True

    def in_order(self) -> bool:
        """Whether the originals that the graph has stand before all that use them."""
        ahead: set[ir.Value | None] = {value for node in self._standing for value in node.outputs}
        for node in self._graph:
            if not ahead:
                break
            if not ahead.isdisjoint(values_read(node)):
                return False
            if node in self._standing:
                ahead.difference_update(node.outputs)
        return True

    def move_to_front(self) -> None:
        """Let the originals that the graph has stand before all that may use them: they need nothing but each other."""
        nodes = list(self._standing)
        self._graph.remove(nodes)
        self._graph.insert_before(self._graph[0], nodes)
        ahead: set[ir.Node] = set()
        for node in nodes:
            producers = [value.producer() for value in values_read(node) if value is not None]
            if any(producer is not None and producer not in ahead for producer in producers):
                self._graph.sort()  # a changed model: they need something else after all
                return
            ahead.add(node)

    def find(self, name: str) -> Sequence[ir.Value] | None:
        """The outputs of the operation that makes this original, or the initializer, if the graph has it."""
        original = self._ledger.originals.get(name)
        if original is None:
            return None
        if original.initializer and name in self._graph.initializers:
            return [self._graph.initializers[name]]
        return self._found.get(name)

    def restore(self, name: str, copy: ir.Node) -> ir.Value | None:
        """Make a copied operation the original again; an initializer is put back and returned instead."""
        original = self._ledger.originals.get(name)
        if original is None:
            return None
        if original.initializer:
            return self._restore_initializer(name, copy)
        copy.outputs[0].name = self._names.take(name) if copy.outputs[0].name != name else name
        copy.name = original.node or copy.name
        set_scope(copy, parse_scope(original.scope) if original.scope else None)
        self._found[name] = copy.outputs
        return None

    def recall(self, name: str) -> tuple[ir.Value, ir.Node | None]:
        """A constant of which there may be no copy, and its node if that is to be put in the graph."""
        found = self.find(name)
        if found is not None:
            return found[0], None
        tensor = parse_tensor(self._ledger.originals[name].value)
        constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)])
        output = constant.outputs[0]
        output.type, output.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        initializer = self.restore(name, constant)
        return (output, constant) if initializer is None else (initializer, None)

    def _restore_initializer(self, name: str, copy: ir.Node) -> ir.Value:
        value = copy.outputs[0]
        initializer = ir.Value(
            name=name, type=value.type, shape=value.shape, const_value=copy.attributes["value"].as_tensor()
        )
        self._graph.register_initializer(initializer)
        return initializer
