"""What a file says twice in the same words: dropped when the file is read, as nothing is lost by it.

`onnx.compose.merge_models` and several converters write the opset imports of two models one after the other, and other
tools append metadata that is there already. A second entry with another content is a contradiction and is refused
(`modelexport_passes.exporting.losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import onnx


class _Repetition(NamedTuple):
    """An entry of a repeated field that equals an earlier one."""

    field: Any
    place: int
    what: str


def without_repetitions(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with each entry once, and a line for each entry that was dropped.

    The given model is not changed. Visits the main graph, subgraphs and functions.
    """
    notes: list[str] = []
    while found := list(_in_model(proto)):
        if not notes:
            given, proto = proto, onnx.ModelProto()
            proto.CopyFrom(given)
            found = list(_in_model(proto))
        notes += [f"{each.what} is there twice with the same content: read once" for each in found]
        for each in reversed(found):
            del each.field[each.place]
        # Again: functions or values may be equal now that each says everything once.
    return proto, notes


def _in_model(model: onnx.ModelProto) -> Iterator[_Repetition]:
    yield from _opsets(model.opset_import, "opset import")
    yield from _metadata(model, "the model")
    yield from _equal(model.functions, _function_name, "function")
    yield from _in_graph(model.graph, f"graph {model.graph.name!r}")
    for function in model.functions:
        where = f"function {_function_name(function)}"
        yield from _opsets(function.opset_import, f"opset import of {where}")
        yield from _metadata(function, where)
        yield from _values(function.value_info, where)
        yield from _in_nodes(function.node, where)


def _in_graph(graph: onnx.GraphProto, where: str) -> Iterator[_Repetition]:
    yield from _metadata(graph, where)
    yield from _equal(graph.initializer, _name, f"initializer of {where}")
    yield from _equal(graph.quantization_annotation, lambda entry: entry.tensor_name, f"annotation in {where} of")
    for values in (graph.input, graph.output):
        for value in values:
            yield from _metadata(value, f"value {value.name!r}")
    yield from _values(graph.value_info, where)
    yield from _in_nodes(graph.node, where)


def _in_nodes(nodes: Any, where: str) -> Iterator[_Repetition]:
    for node in nodes:
        yield from _metadata(node, f"node {node.name!r} in {where}")
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            for graph in graphs:
                yield from _in_graph(graph, f"{attribute.name} of node {node.name!r}")


def _values(values: Any, where: str) -> Iterator[_Repetition]:
    yield from _equal(values, _name, f"value info in {where} of")
    for value in values:
        yield from _metadata(value, f"value {value.name!r} in {where}")


def _opsets(imports: Any, what: str) -> Iterator[_Repetition]:
    """The default domain has two names (ONNX IR, Operator Sets): "" and "ai.onnx" are one."""
    first: dict[str, int] = {}
    for index, entry in enumerate(imports):
        domain = entry.domain or "ai.onnx"
        if domain not in first:
            first[domain] = entry.version
        elif first[domain] == entry.version:
            yield _Repetition(imports, index, f"{what} {domain!r}")


def _metadata(holder: Any, where: str) -> Iterator[_Repetition]:
    if len(holder.metadata_props) > 1:
        yield from _equal(holder.metadata_props, lambda entry: entry.key, f"metadata of {where}:")


def _equal(field: Any, name_of: Callable[[Any], str], what: str) -> Iterator[_Repetition]:
    """Entries that equal the first entry of their name."""
    first: dict[str, Any] = {}
    for index, entry in enumerate(field):
        name = name_of(entry)
        earlier = first.setdefault(name, entry)
        if earlier is not entry and earlier == entry:
            yield _Repetition(field, index, f"{what} {name!r}")


def _name(entry: Any) -> str:
    return entry.name


def _function_name(function: onnx.FunctionProto) -> str:
    return f"{function.domain}::{function.name}{':' if function.overload else ''}{function.overload}"
