"""Carrying out a plan: nodes move into functions, calls take their places. Nothing is copied but shared constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.fast_nodes import (
    drop_users,
    initializers_of,
    inputs_of,
    insert_nodes,
    make_value,
    own_shape,
    own_type,
    remove_nodes,
    set_inputs,
)
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.naming import local_name
from modelexport_passes.outlining.plan import FunctionPlan, OutlinePlan
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.sharing import Bodies, Column, Group
from modelexport_passes.outlining.types import Facts, General, common_shape, first_type, general_facts
from modelexport_passes.scopes.copying import copy_node
from modelexport_passes.scopes.ledger import PART_KEY
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of
from modelexport_passes.unique_names import Names

Made = dict[Item, ir.Node]
Functions = Mapping[Group, FunctionPlan]


def rewrite(model: ir.Model, plan: OutlinePlan) -> Made:
    """Rewrite the model's main graph as planned. Returns the node that each operation and call has become."""
    graph, bodies = model.graph, plan.bodies
    originals = [op for op in plan.ops if op.copy_of is None]
    outputs = list(graph.outputs)
    makers = {value.producer() for value in outputs}
    wires = {wire.value: wire for op in originals if op.node in makers for wire in op.outs if wire.is_output}
    graph.outputs.clear()  # one that moves into a function becomes an output there
    remove_nodes(graph)
    stay = {item for region in _kept_regions(bodies) for item in bodies.layout[region]}
    _detach([op for op in originals if op not in stay], graph, [op.node for op in originals])

    facts: General = {}
    functions: Functions = {function.group: function for function in plan.functions}
    made: Made = {}
    state: dict[ir.Value, str] = {}
    for function in plan.functions:
        general = general_facts(function.group, bodies)
        facts.update(general)
        state.update(_make_function(model, function, bodies, functions, made, general))
    main = _Body(bodies, functions, graph.initializers, {})
    insert_nodes(graph, main.build(bodies.root, made))
    graph.outputs.extend(main.values[wires[value]] if value in wires else value for value in outputs)
    for value, known in facts.items():
        value.type, value.shape = known.type, known.shape
    for value, name in state.items():  # not before: calls have the names that the values had
        value.name = name
    _drop_embedded(graph, plan)
    return made


def _kept_regions(bodies: Bodies) -> list[Region]:
    return [bodies.root, *(group.body for group in bodies.groups)]


def _drop_embedded(graph: ir.Graph, plan: OutlinePlan) -> None:
    """Initializers of which every user was given a constant of its own go."""
    embedded = {wire.value: None for op in plan.ops for wire in op.copy_of or () if wire.producer is None}
    for value in embedded:
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[str(value.name)]


def _detach(dropped: Sequence[Op], graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Operations that others stand for: they no longer use anything that stays.

    Args:
        dropped: these operations.
        graph: that they were in.
        nodes: all that were in it.
    """
    gone = {op.node for op in dropped}
    staying = [value for node in nodes if node not in gone for value in node.outputs]
    for op in dropped:
        for inner in owned_nodes([op.node]) if op.has_bodies else ():
            gone.add(inner)
            for body in subgraphs_of(inner):
                body.outputs.clear()
    drop_users([*inputs_of(graph), *initializers_of(graph), *staying], gone)


def _make_function(
    model: ir.Model, function: FunctionPlan, bodies: Bodies, functions: Functions, made: Made, general: General
) -> dict[ir.Value, str]:
    """Make one function. Returns the names that those of its outputs that are state will have."""
    inputs = [_input(formal.name, formal.column) for formal in function.formals]
    of_column = dict(zip(function.order, inputs, strict=True))
    taken = [*(formal.name for formal in function.formals), *function.state_results]
    body = _Body(bodies, functions, taken, general)
    nodes = body.build(function.group.body, made, [of_column[slot] for slot in function.group.slots])
    attributes = [
        ir.Attr(name, attribute.type, None)
        for name, attribute in bodies.attributes.get(function.group.body, {}).items()
    ]
    outputs = [body.values[wire] for wire in bodies.results[function.group.body]]
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        opset_imports=_imports(nodes, model),
        name=function.name,
    )
    made_function = ir.Function(function.domain, function.name, graph=graph, attributes=attributes)
    model.functions[made_function.identifier()] = made_function
    model.opset_imports.setdefault(function.domain, 1)
    return dict(zip(reversed(outputs), reversed(function.state_results), strict=False))


def _input(name: str, column: Column) -> ir.Value:
    values = [wire.value for wire in column]
    made = make_value(name)
    made.type, made.shape = first_type(values), common_shape(values)
    return made


def _imports(nodes: Iterable[ir.Node], model: ir.Model) -> dict[str, int]:
    """The opsets of a body: the model's own, and 1 for functions."""
    domains = sorted({node.domain for node in owned_nodes(nodes)})
    return {domain: model.opset_imports.get(domain, 1) for domain in domains}


class _Body:
    """Builds the nodes of one body: of a function, or of the main graph.

    Args:
        bodies: the plan.
        functions: the function of each group.
        taken: names of values that the body has besides those it makes.
        general: what holds in all calls of the body, for values of which not all does that is known of them.

    Attributes:
        values: wire -> the value that stands for it in this body.
    """

    def __init__(self, bodies: Bodies, functions: Functions, taken: Iterable[str], general: General) -> None:
        self.values: dict[Wire, ir.Value] = {}
        self._bodies = bodies
        self._functions = functions
        self._taken = taken
        self._general = general
        self._slots: Iterator[ir.Value] | None = None

    def build(self, region: Region, made: Made, slots: Sequence[ir.Value] | None = None) -> list[ir.Node]:
        """Nodes in order. ``slots`` are the formal inputs, one for each use of a value from outside."""
        items = self._bodies.layout[region]
        self._path = region.frame.path if region.frames else ""
        self._slots = None if slots is None else iter(slots)
        lasting = [item for item in items if not (isinstance(item, Op) and item.is_added)]
        # Nodes and values that only move keep their names; calls, copies and stand-ins take what is left.
        self._value_names = Names({*self._taken, *self._bodies.value_names(lasting)})
        self._node_names = Names(name for item in lasting if isinstance(item, Op) and (name := item.node.name))
        self._kept_names: set[str] = set()
        for item in items:
            made[item] = self._place(item) if isinstance(item, Op) else self._call(item)
        if slots is not None:
            _refer(self._bodies.group_of[region], [made[item] for item in items])
        return [made[item] for item in items]

    def _read(self, wire: Wire) -> ir.Value:
        if wire in self.values:
            return self.values[wire]
        return wire.value if self._slots is None else next(self._slots)

    def _place(self, op: Op) -> ir.Node:
        inputs = [None if wire is None else self._read(wire) for wire in op.ins]
        if op.copy_of is None:
            node = op.node
            if tuple(inputs) != node.inputs:
                set_inputs(node, inputs)
            self._recapture(op)
        else:
            node = copy_node(op.node, inputs)
        if op.is_added:
            for value in node.outputs:
                value.name = self._value_names.take(str(value.name))
        for owned in owned_nodes([node]) if op.has_bodies else (node,):
            owned.name = self._node_name(owned, moved=not op.is_added and owned is node)
        self.values.update(zip(op.outs, node.outputs, strict=True))
        return node

    def _node_name(self, node: ir.Node, *, moved: bool) -> str:
        if moved and node.name and node.name not in self._kept_names:
            self._kept_names.add(node.name)
            return node.name
        return self._node_names.take(node.name or node.op_type)

    def _recapture(self, op: Op) -> None:
        """Let the bodies of an operation use what now stands for the values they captured."""
        new = {old: self._read(wire) for old, wire in zip(op.captured, op.captures, strict=True)}
        if all(old is value for old, value in new.items()):
            return
        graphs = list(subgraphs_of(op.node))
        while graphs:
            graph = graphs.pop()
            for inner in graph:
                set_inputs(inner, [value if value is None else new.get(value, value) for value in inner.inputs])
                graphs.extend(subgraphs_of(inner))
            for at, value in enumerate(graph.outputs):
                if value in new:
                    graph.outputs[at] = new[value]

    def _call(self, region: Region) -> ir.Node:
        function = self._functions[self._bodies.group_of[region]]
        actuals = [self._read(wire) for wire in self._bodies.actuals[region]]
        node = ir.Node(
            function.domain,
            function.name,
            [actuals[at] for at in function.order],
            outputs=[_result(wire, self._general) for wire in self._bodies.results[region]],
            name=self._node_names.take(self._call_name(region)),
            attributes=[
                ir.Attr(name, attribute.type, attribute.value)
                for name, attribute in self._bodies.attributes.get(region, {}).items()
            ],
        )
        if region.part:
            node.metadata_props[PART_KEY] = str(region.part)
        self.values.update(zip(self._bodies.results[region], node.outputs, strict=True))
        return node

    def _call_name(self, region: Region) -> str:
        """The path of the module, below the module whose body this is. Which call it was, only the main graph says."""
        return (local_name(region.frame.path, self._path) if self._path else None) or str(region.frame)


def _refer(group: Group, nodes: Sequence[ir.Node]) -> None:
    """Let attributes that differ between the calls of a body refer to those of its function."""
    for (at, name), formal in group.attributes.items():
        node = nodes[at]
        node.attributes[name] = ir.RefAttr(name, formal, node.attributes[name].type)


def _result(wire: Wire, general: General) -> ir.Value:
    value = wire.value
    known = general.get(value) or Facts(value.type, value.shape)
    kind, shape = own_type(known.type), own_shape(known.shape)
    result = ir.Value(name=value.name, type=kind, shape=shape, doc_string=value.doc_string)
    result.metadata_props.update(value.metadata_props)
    return result
