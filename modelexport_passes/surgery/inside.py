"""Running a pass inside a function: its body as a model of its own, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError, first_line, innermost
from modelexport_passes.pass_base import Outcome
from modelexport_passes.scopes.ledger import LEDGER_KEY, MODULE_KEY
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.surgery.body import (
    check_values,
    constants_for_initializers,
    import_opsets,
    name_apart,
    reachable,
    separate_outputs,
)
from modelexport_passes.surgery.inference import infer_types
from modelexport_passes.surgery.rooting import from_root, to_root


@dataclass(frozen=True)
class Inside:
    """What a pass made of one function.

    Attributes:
        function: the new one.
        model: the body as a model, as the pass left it: with what else it wrote there.
        kept: name of each node that is still there -> its name now.
        notes: what the pass said.
    """

    function: ir.Function
    model: ir.Model
    kept: dict[str, str]
    notes: list[str] = field(default_factory=list[str])


def apply_inside(model: ir.Model, function: ir.Function, pass_: ir.passes.PassBase) -> Inside:
    """Run a pass on the body of a function, as a model with the function's inputs and outputs. Changes nothing yet.

    Scopes are told from the module as the root while the pass runs. The functions that the body calls are there, and
    what the pass does to them is not taken over: they have a run of their own.

    Raises:
        ModelExportError: the pass failed, or changed the signature.
    """
    of = f"{function.domain}::{function.name}"
    body = _as_model(model, function)
    untyped = _type_outputs(body)
    before = {node: (node.name or "", node.op_type) for node in owned_nodes(body.graph)}
    try:
        result = pass_(body)
    except Exception as error:
        # A pass is foreign code and may raise anything; what is known here is which function it was.
        raise ModelExportError(f"apply-inside: failed in the body of {of}: {first_line(innermost(error))}") from error
    graph = result.model.graph
    what = "apply-inside: what the pass left"
    check_values(graph.inputs, function.inputs, "input", what, of)
    check_values(graph.outputs, function.outputs, "output", what, of)
    constants_for_initializers(graph)
    separate_outputs(graph)
    for at in untyped:
        graph.outputs[at].type = graph.outputs[at].shape = None
    name_apart(graph, function)
    if MODULE_KEY in function.metadata_props:
        from_root(graph)
    imports = dict(graph.opset_imports)
    graph.metadata_props.update(function.metadata_props)
    new = ir.Function(*function.identifier(), graph=graph, attributes=[])
    new.opset_imports.clear()
    new.opset_imports.update({domain: imports[domain] for domain in _domains(graph, imports)})
    notes = result.notes if isinstance(result, Outcome) else []
    return Inside(new, result.model, _kept(before, graph), [f"{of}: {note}" for note in notes])


def _as_model(model: ir.Model, function: ir.Function) -> ir.Model:
    """The body as a model of its own; nothing in it is the given model's but tensors."""
    graph = function.graph.clone()
    callees = [model.functions[key].clone() for key in sorted(reachable(model, [function]))]
    graph.opset_imports.update({callee.domain: model.opset_imports[callee.domain] for callee in callees})
    if "" in model.opset_imports:
        graph.opset_imports.setdefault("", model.opset_imports[""])
    props = {key: text for key, text in model.metadata_props.items() if key != LEDGER_KEY}
    if MODULE_KEY in function.metadata_props:
        to_root(graph, function.metadata_props[MODULE_KEY])
    return ir.Model(graph, ir_version=model.ir_version, functions=callees, metadata_props=props)


def _type_outputs(body: ir.Model) -> list[int]:
    """Infer the types of outputs that have none, as the outputs of a model must; returns which these are."""
    untyped = [at for at, value in enumerate(body.graph.outputs) if value.dtype is None]
    if untyped:
        typed = body.clone()
        infer_types(typed)
        for at in untyped:
            body.graph.outputs[at].type = typed.graph.outputs[at].type
    return untyped


def _domains(graph: ir.Graph, imports: Mapping[str, int]) -> list[str]:
    """The domains of a body, sorted. A pass may use one that it has not imported: then the model's version holds."""
    return sorted({node.domain for node in owned_nodes(graph)} & imports.keys())


def _kept(before: Mapping[ir.Node, tuple[str, str]], graph: ir.Graph) -> dict[str, str]:
    """Old name -> new name: of the same nodes, or of new ones that have name and operator of an old one."""
    known = set(before.values())
    kept: dict[str, str] = {}
    for node in owned_nodes(graph):
        name = node.name or ""
        if node in before:
            kept[before[node][0]] = name
        elif (name, node.op_type) in known:
            kept.setdefault(name, name)
    return kept


def take_over(model: ir.Model, inside: Inside) -> None:
    """Put a function that a pass changed into the model, with what else it brings: functions, opsets, metadata.

    Raises:
        ModelExportError: it uses another version of an opset than the model.
    """
    of = f"apply-inside: the body of {inside.function.domain}::{inside.function.name}"
    for key, callee in inside.model.functions.items():
        if key not in model.functions:
            model.functions[key] = callee
            model.opset_imports.setdefault(callee.domain, 1)
            import_opsets(model, callee, dict(callee.opset_imports), of)
    model.functions[inside.function.identifier()] = inside.function
    import_opsets(model, inside.function, dict(inside.function.opset_imports), of)
    model.metadata_props.update(inside.model.metadata_props)
    model.ir_version = max(model.ir_version, inside.model.ir_version)
    # onnx_ir leaves the types of its stores open.
    meta = cast("Mapping[str, object]", inside.model.meta)  # pyright: ignore[reportUnknownMemberType]
    for key, value in meta.items():
        model.meta[key] = value
