"""What the body of a function must be, and making a graph into one: no initializers, outputs of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of
from modelexport_passes.unique_names import Names


def constants_for_initializers(graph: ir.Graph) -> None:
    """Turn the initializers of a graph into Constants in front of it."""
    nodes: list[ir.Node] = []
    for name, value in list(graph.initializers.items()):
        if value.const_value is None:
            raise ModelExportError(f"initializer {name!r} of the body has no value; expected a tensor")
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"Constant_{name}")
        made = node.outputs[0]
        value.replace_all_uses_with(made, replace_graph_outputs=True)
        del graph.initializers[name]
        made.name, made.type, made.shape = name, value.type, value.shape
        nodes.append(node)
    for node in reversed(nodes):
        if len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)


def separate_outputs(graph: ir.Graph) -> None:
    """Give an output that is an input, or another output, an Identity of its own: no runtime takes it otherwise."""
    seen: set[ir.Value] = set(graph.inputs)
    for at, value in enumerate(graph.outputs):
        if value in seen:
            node = ir.Node("", "Identity", [value], name=f"Identity_{value.name}_{at}")
            made = node.outputs[0]
            made.name, made.type = f"{value.name}_{at}", value.type
            made.shape = None if value.shape is None else value.shape.copy()
            graph.append(node)
            graph.outputs[at] = made
        seen.add(graph.outputs[at])


def name_apart(graph: ir.Graph, like: ir.Function) -> None:
    """Name inputs and outputs as those of a function; other values, and nodes, whose name is taken get another."""
    edge = dict(zip((*graph.inputs, *graph.outputs), (*like.inputs, *like.outputs), strict=True))
    names = Names(str(value.name) for value in edge.values())
    for value, named in edge.items():
        value.name = named.name
    node_names = Names()
    for node in owned_nodes(graph):
        node.name = node_names.take(node.name or node.op_type)
        bodies = [value for inner in subgraphs_of(node) for value in (*inner.inputs, *inner.initializers.values())]
        for value in (*node.outputs, *bodies):
            if value.name and value not in edge:
                value.name = names.take(value.name)


def check_values(values: Sequence[ir.Value], expected: Sequence[ir.Value], kind: str, what: str, of: str) -> None:
    """Compare inputs or outputs with those that are expected, in number and in known dtype and rank.

    Args:
        values: what there is.
        expected: what there has to be.
        kind: ``input`` or ``output``.
        what: whose values, for errors.
        of: whose are expected, for errors.

    Raises:
        ModelExportError: they differ.
    """
    if len(values) != len(expected):
        names = ", ".join(str(value.name) for value in expected)
        raise ModelExportError(
            f"{what} does not fit {of}: it has {len(values)} {kind}s, expected {len(expected)} ({names})"
        )
    for at, (value, other) in enumerate(zip(values, expected, strict=True)):
        if None not in (value.dtype, other.dtype) and value.dtype != other.dtype:
            found, wanted = str(value.dtype), str(other.dtype)
        elif value.shape is not None and other.shape is not None and value.shape.rank() != other.shape.rank():
            found, wanted = f"of rank {value.shape.rank()}", f"of rank {other.shape.rank()}"
        else:
            continue
        raise ModelExportError(
            f"{what} does not fit {of}: {kind} {at} ({value.name}) is {found}, expected {wanted} ({other.name})"
        )


def import_opsets(model: ir.Model, function: ir.Function, imports: dict[str, int], what: str) -> None:
    """Import what a body uses, in its function and in the model.

    Raises:
        ModelExportError: the model imports another version of an opset.
    """
    domains = {node.domain for node in owned_nodes(function)}
    for domain in sorted(domains):
        version = imports.get(domain, model.opset_imports.get(domain, 1))
        known = model.opset_imports.setdefault(domain, version)
        if known != version:
            raise ModelExportError(
                f"{what} uses opset {version} of {domain or 'ai.onnx'}, the model {known}; convert one of them first"
            )
    function.opset_imports.clear()
    function.opset_imports.update({domain: model.opset_imports[domain] for domain in sorted(domains)})


def reachable(model: ir.Model, start: Iterable[ir.Graph | ir.Function] | None = None) -> set[ir.OperatorIdentifier]:
    """Identifiers of the functions that are called, directly or not, from the main graph or from the given places."""
    waiting: list[ir.Graph | ir.Function] = [model.graph] if start is None else list(start)
    reached: set[ir.OperatorIdentifier] = set()
    while waiting:
        for node in owned_nodes(waiting.pop()):
            key = node.op_identifier()
            if key in model.functions and key not in reached:
                reached.add(key)
                waiting.append(model.functions[key])
    return reached


def drop_uncalled(model: ir.Model, called_before: set[ir.OperatorIdentifier]) -> None:
    """Remove functions that were called before and are no more, and their domains where nothing uses them now."""
    gone = called_before - reachable(model)
    for key in gone:
        model.functions.pop(key, None)
    used = {node.domain for place in (model.graph, *model.functions.values()) for node in owned_nodes(place)}
    used |= {domain for domain, _, _ in model.functions}
    for domain in {domain for domain, _, _ in gone} - used:
        model.opset_imports.pop(domain, None)
    for function in model.functions.values():
        own = {node.domain for node in owned_nodes(function)}
        for domain in {domain for domain, _, _ in gone} - own:
            function.opset_imports.pop(domain, None)


def fingerprint(function: ir.Function) -> bytes:
    """All of a function, metadata included, whatever the order of its imports and metadata."""
    proto = ir.to_proto(function)
    imports = sorted((entry.domain, entry.version) for entry in proto.opset_import)
    metadata = [sorted((entry.key, entry.value) for entry in owner.metadata_props) for owner in (proto, *proto.node)]
    del proto.opset_import[:], proto.metadata_props[:]
    for node in proto.node:
        del node.metadata_props[:]
    return proto.SerializeToString(deterministic=True) + repr((imports, metadata)).encode()
