"""What takes the place of the results of calls.

It is put in at the end, and at once: a node may read the results of ten thousand calls, and a graph may give as many,
and to write all that they hold anew for each would take the square of that.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from modelexport_passes.fast_nodes import remove_node, set_inputs


class Results:
    """The calls of one graph that are written out.

    Args:
        graph: that they are in.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._calls: list[ir.Node] = []
        self._instead: dict[ir.Value, ir.Value] = {}

    def arrive(self, call: ir.Node) -> None:
        """Let a call read what is made instead of the results of earlier ones."""
        set_inputs(call, [self._current(value) for value in call.inputs])

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads a result read another value, as soon as `settle` says so."""
        self._instead[old] = new

    def leave(self, call: ir.Node) -> None:
        """A call is written out."""
        set_inputs(call, [None] * len(call.inputs))
        self._calls.append(call)

    def settle(self) -> None:
        """Put everything in its place; the calls go."""
        readers = {use.node: None for old in self._instead for use in old.uses()}
        for node in readers:
            set_inputs(node, [self._current(value) for value in node.inputs])
        for at, output in enumerate(self._graph.outputs):
            if output in self._instead:
                self._graph.outputs[at] = cast("ir.Value", self._current(output))
        for call in self._calls:
            remove_node(self._graph, call)

    def _current(self, value: ir.Value | None) -> ir.Value | None:
        # A function may return what it is given: the result of another call.
        while value is not None and value in self._instead:
            value = self._instead[value]
        return value
