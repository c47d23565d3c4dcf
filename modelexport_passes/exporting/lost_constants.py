"""Constants that torch's optimizer made and lost: operations read them, and no graph has them.

Its rule for Min and Max names what it makes after the value that is clipped. Where one value is clipped twice, the
second constant takes the place of the first among the initializers, and a file would hold no such value.
"""

from __future__ import annotations

import onnx_ir as ir

from modelexport_passes.scopes.walk import all_owned_nodes
from modelexport_passes.unique_names import Names


def register_lost_constants(model: ir.Model) -> int:
    """Make initializers of the constants that nodes of the main graph read and the graph has not. Returns how many."""
    graph = model.graph
    nodes = all_owned_nodes(graph)
    read = [value for node in nodes for value in node.inputs if value is not None]
    lost = dict.fromkeys(value for value in read if _is_lost(value))
    if lost:
        others = (*read, *(value for node in nodes for value in node.outputs), *graph.inputs)
        names = Names({*graph.initializers, *(str(value.name) for value in others if value not in lost)})
        for value in lost:
            value.name = names.take(str(value.name))
            graph.register_initializer(value)
    return len(lost)


def _is_lost(value: ir.Value) -> bool:
    is_known = value.producer() is not None or value.is_graph_input() or value.is_initializer()
    return not is_known and value.const_value is not None
