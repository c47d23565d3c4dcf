"""The body of one call becomes the main graph: what the call passes becomes inputs, weights and shared constants."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.outlining.constants import EMBED_LIMIT
from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.copying import copy_facts, copy_node
from modelexport_passes.scopes.ledger import ORIGIN_KEY
from modelexport_passes.scopes.relative import Frames
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from modelexport_passes.scopes.walk import has_bodies, owned_nodes, subgraphs_of
from modelexport_passes.surgery.inference import infer_types
from modelexport_passes.surgery.rooting import Rooting
from modelexport_passes.unique_names import Names

_SHAPE_ONLY = frozenset({"Shape", "Size"})
_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def stand_alone(model: ir.Model, call: ir.Node, frames: Frames) -> None:
    """Let a model be the body of one of its calls, for good: everything else goes.

    Args:
        model: changed in place.
        call: a call of a function in the main graph.
        frames: its absolute scope.

    Raises:
        ModelExportError: the dtype of an input is not known, not even after shape inference.
    """
    function = model.functions[call.op_identifier()]
    if any(value is not None and value.type is None for value in (*call.inputs, *call.outputs)):
        infer_types(model)
    _bind_attributes(function, call)
    rooting = Rooting(model, call, frames)
    rooting.body(function)
    actuals = _merge_equal(call, function)
    for formal, actual in (*actuals.items(), *zip(function.outputs, call.outputs, strict=False)):
        _take_type(formal, actual)
    followers = _come_along(function, actuals, frames[-1].class_name)
    _name_values(function, {**actuals, **dict(zip(function.outputs, call.outputs, strict=False))})
    _bind_weights(function.graph, actuals)
    for formal in followers:
        function.inputs.remove(formal)
    _check_types(function, frames[-1])
    function.metadata_props.clear()
    del model.functions[function.identifier()]
    imports = dict(model.opset_imports)
    model.graph = function.graph
    _keep_reachable(model, imports)
    rooting.functions(model.functions.values())
    rooting.record(model)


def _bind_attributes(function: ir.Function, call: ir.Node) -> None:
    """Let operations of the body have what the call passes for the attributes that they refer to, or the default."""
    for node in owned_nodes(function):
        for name, attribute in list(node.attributes.items()):
            if not attribute.is_ref():
                continue
            given = call.attributes.get(str(attribute.ref_attr_name)) or function.attributes.get(
                str(attribute.ref_attr_name)
            )
            del node.attributes[name]
            if given is not None and given.value is not None:
                node.attributes[name] = ir.Attr(name, given.type, given.value)


def _is_weight(actual: ir.Value) -> bool:
    return actual.is_initializer() and not actual.is_graph_input()


def _merge_equal(call: ir.Node, function: ir.Function) -> dict[ir.Value, ir.Value]:
    """Formal -> actual; formals that this call passes one value for become one."""
    first: dict[ir.Value, ir.Value] = {}
    actuals: dict[ir.Value, ir.Value] = {}
    for formal, actual in zip(list(function.inputs), call.inputs, strict=True):
        assert actual is not None  # outlining passes every input
        kept = first.setdefault(actual, formal)
        actuals[kept] = actual
        if kept is not formal:
            formal.replace_all_uses_with(kept, replace_graph_outputs=True)
            function.inputs.remove(formal)
    return actuals


def _take_type(value: ir.Value, known: ir.Value) -> None:
    """What is known of a value at this call; the shared body knows only what holds at every call."""
    value.type = known.type or value.type
    value.shape = value.shape if known.shape is None else known.shape.copy()
    value.metadata_props.update(known.metadata_props)


def _name_values(function: ir.Function, outside: Mapping[ir.Value, ir.Value]) -> None:
    """Inputs and outputs are named as outside, weights by their local names; all other names give way to these."""
    names = Names()
    for formal, actual in outside.items():
        formal.name = names.take(str(formal.name if _is_weight(actual) else actual.name))
    node_names = Names()
    for node in owned_nodes(function):
        node.name = node_names.take(node.name or node.op_type)
        inner = [value for graph in subgraphs_of(node) for value in (*graph.inputs, *graph.initializers.values())]
        for value in (*node.outputs, *inner):
            if value.name and value not in outside:
                value.name = names.take(value.name)


def _bind_weights(graph: ir.Graph, actuals: Mapping[ir.Value, ir.Value]) -> None:
    for formal, actual in actuals.items():
        if _is_weight(actual):
            graph.inputs.remove(formal)
            formal.const_value = actual.const_value
            graph.register_initializer(formal)


def _check_types(function: ir.Function, module: Frame) -> None:
    unknown = [str(value.name) for value in function.inputs if value.dtype is None]
    if unknown:
        raise ModelExportError(
            f"extract: {module} cannot stand alone: the dtype of {', '.join(unknown)} is not known, and shape "
            "inference does not tell; give the model types for its values (value_info) first"
        )


def _keep_reachable(model: ir.Model, imports: Mapping[str, int]) -> None:
    """Functions that are not called any more go, and the imports that nothing uses."""
    waiting: list[ir.Graph | ir.Function] = [model.graph]
    reached: dict[ir.OperatorIdentifier, ir.Function] = {}
    domains = {""}
    while waiting:
        for node in owned_nodes(waiting.pop()):
            domains.add(node.domain)
            key = node.op_identifier()
            if key in model.functions and key not in reached:
                reached[key] = model.functions[key]
                waiting.append(model.functions[key])
    for key in model.functions.keys() - reached.keys():
        del model.functions[key]
    model.opset_imports.clear()
    model.opset_imports.update({domain: version for domain, version in imports.items() if domain in domains})


# --- what comes along ------------------------------------------------------------------------------------------------


def _come_along(function: ir.Function, actuals: Mapping[ir.Value, ir.Value], class_name: str) -> list[ir.Value]:
    """Copy constants and shape arithmetic in front of the body; returns the formals that they take the places of."""
    formals = {actual: formal for formal, actual in actuals.items()}
    free = _Free(set(formals))
    followers = [formal for formal, actual in actuals.items() if free.is_free(actual)]
    copies: dict[ir.Value, ir.Value] = {}
    nodes: list[ir.Node] = []
    for formal in followers:
        for node in free.producers(actuals[formal]):
            if node.outputs[0] in copies:
                continue
            for value in node.inputs:
                if value is not None and value not in copies and value not in formals:
                    nodes.append(_constant(value))
                    copies[value] = nodes[-1].outputs[0]
            inputs = [None if value is None else copies.get(value) or formals[value] for value in node.inputs]
            copy = copy_node(node, inputs)
            copy.metadata_props.pop(ORIGIN_KEY, None)
            nodes.append(copy)
            copies.update(zip(node.outputs, nodes[-1].outputs, strict=True))
        formal.replace_all_uses_with(copies[actuals[formal]], replace_graph_outputs=True)
    for node in nodes:
        set_scope(node, Scope((Frame("", class_name),), Source.INHERITED))
    if nodes:
        function.graph.insert_before(function[0], nodes)
    return followers


def _constant(value: ir.Value) -> ir.Node:
    """A small initializer as an operation."""
    assert value.const_value is not None
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"Constant_{value.name}")
    copy_facts(value, node.outputs[0])
    return node


class _Free:
    """Tells which values cost nothing to compute again: small, and made of constants and of the shapes of inputs.

    Args:
        inputs: the values whose shapes are at hand.
    """

    def __init__(self, inputs: set[ir.Value]) -> None:
        self._inputs = inputs
        self._known: dict[ir.Value, bool] = {}

    def is_free(self, value: ir.Value) -> bool:
        """Whether a value can be computed again; not so what has no producer."""
        if value not in self._known:
            self._known[value] = False  # holds while its inputs are looked at; graphs have no cycles
            node = value.producer()
            self._known[value] = node is not None and self._is_free_node(node)
        return self._known[value]

    def _is_free_node(self, node: ir.Node) -> bool:
        if node.domain != "" or has_bodies(node) or draws_random_numbers(node):
            return False
        if node.op_type == "Constant":
            return True
        if not all(_is_small(value) for value in node.outputs) or not node.inputs:
            return False
        return all(value is None or self._is_at_hand(node, value) for value in node.inputs)

    def _is_at_hand(self, reader: ir.Node, value: ir.Value) -> bool:
        if _is_weight(value):
            return value.const_value is not None and value.const_value.size <= EMBED_LIMIT
        return self.is_free(value) or (reader.op_type in _SHAPE_ONLY and value in self._inputs)

    def producers(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that compute a free value, in order."""
        found: dict[ir.Node, None] = {}
        self._collect(value, found)
        return list(found)

    def _collect(self, value: ir.Value, found: dict[ir.Node, None]) -> None:
        node = value.producer()
        if node is None or not self.is_free(value) or node in found:
            return
        for read in node.inputs:
            if read is not None:
                self._collect(read, found)
        found[node] = None


def _is_small(value: ir.Value) -> bool:
    if value.dtype not in _INTEGERS or value.shape is None or not value.shape.is_static():
        return False
    return math.prod(value.shape.numpy()) <= EMBED_LIMIT
