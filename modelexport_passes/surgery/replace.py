"""Another body for a function: read from a file, a model, a function or an onnxscript function, and checked to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import onnx
import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.files import load
from modelexport_passes.scopes.ledger import MODULE_KEY, ORIGIN_KEY
from modelexport_passes.scopes.scope import Scope, Source, scope_of, set_scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.surgery.body import (
    check_values,
    constants_for_initializers,
    import_opsets,
    name_apart,
    reachable,
    separate_outputs,
)
from modelexport_passes.surgery.rooting import from_root


@runtime_checkable
class ScriptFunction(Protocol):
    """An ``onnxscript`` function: what ``@onnxscript.script()`` makes."""

    def to_function_proto(self) -> onnx.FunctionProto:
        """The function."""
        ...

    def to_model_proto(self) -> onnx.ModelProto:
        """The function as a model, with the functions that it calls."""
        ...


BodySource: TypeAlias = "Path | ir.Model | ir.Function | ScriptFunction"


@dataclass
class Body:
    """A body to put into functions, and what it brings along.

    Attributes:
        what: how errors call it.
        graph: the body; never changed.
        imports: the opsets it was written for.
        attributes: those of a function.
        functions: what it calls.
    """

    what: str
    graph: ir.Graph
    imports: dict[str, int]
    attributes: Sequence[ir.Attr] = ()
    functions: list[ir.Function] = field(default_factory=list[ir.Function])


def read_body(source: BodySource, entry: str | None) -> Body:
    """Read a body.

    Args:
        source: an .onnx file or model, whose main graph is the body; or a function.
        entry: take this function of the file or model, ``domain.name``, and not its main graph.

    Raises:
        ModelExportError: the file cannot be read, or has no such function.
    """
    what = f"body {source}" if isinstance(source, Path) else "the body"
    model = load(source) if isinstance(source, Path) else source
    if isinstance(model, ir.Model):
        if entry is not None:
            return _entry(model, entry, what)
        functions = [model.functions[key] for key in sorted(reachable(model))]
        return Body(what, model.graph, dict(model.opset_imports), (), functions)
    if isinstance(model, ir.Function):
        return _of_function(model, what, [])
    if isinstance(model, ScriptFunction):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        callees = [ir.from_proto(proto) for proto in model.to_model_proto().functions]
        return _of_function(ir.from_proto(model.to_function_proto()), what, callees)
    raise ModelExportError(f"replace: {source!r} is no body; expected a path, a Model, a Function or a script function")


def _entry(model: ir.Model, entry: str, what: str) -> Body:
    named = {f"{domain}.{name}": function for (domain, name, _), function in model.functions.items()}
    if entry not in named:
        raise ModelExportError(
            f"replace: {what} has no function {entry!r}; it has {', '.join(sorted(named)) or 'none'}"
        )
    callees = [model.functions[key] for key in sorted(reachable(model, [named[entry]]))]
    return _of_function(named[entry], f"{what} ({entry})", callees)


def _of_function(function: ir.Function, what: str, callees: list[ir.Function]) -> Body:
    return Body(what, function.graph, dict(function.opset_imports), list(function.attributes.values()), callees)


def replaced(model: ir.Model, function: ir.Function, body: Body) -> ir.Function:
    """A function of the same name, inputs and metadata with another body. What the body calls joins the model.

    An initializer of the body that has the name of an input of the function is that input: its value comes from each
    call. Other initializers become constants. All other inputs fit by position.

    Raises:
        ModelExportError: the body does not fit.
    """
    of = f"{function.domain}::{function.name}"
    what = f"replace: {body.what}"
    graph = body.graph.clone()
    _bind_by_name(graph, function, what, of)
    check_values(graph.inputs, function.inputs, "input", what, of)
    check_values(graph.outputs, function.outputs, "output", what, of)
    constants_for_initializers(graph)
    separate_outputs(graph)
    name_apart(graph, function)
    for new, old in zip((*graph.inputs, *graph.outputs), (*function.inputs, *function.outputs), strict=True):
        new.type, new.shape = old.type or new.type, new.shape if old.shape is None else old.shape.copy()
    graph.name = function.name
    graph.metadata_props.clear()
    graph.metadata_props.update(function.metadata_props)
    _place(graph, own=MODULE_KEY in function.metadata_props)
    attributes = _attributes(body, function, what, of)
    new_function = ir.Function(function.domain, function.name, function.overload, graph=graph, attributes=attributes)
    for callee in body.functions:
        _adopt(model, callee, body)
    import_opsets(model, new_function, body.imports, what)
    return new_function


def _attributes(body: Body, function: ir.Function, what: str, of: str) -> list[ir.Attr]:
    """The attributes of a function with another body: what calls pass stays declared, and the body needs no others."""
    own = {attribute.name: attribute for attribute in body.attributes}
    required = [name for name, attribute in own.items() if attribute.value is None and name not in function.attributes]
    if required:
        raise ModelExportError(
            f"{what} needs the attributes {', '.join(required)}, and calls of {of} pass none; give defaults"
        )
    return list({**function.attributes, **own}.values())


def _bind_by_name(graph: ir.Graph, function: ir.Function, what: str, of: str) -> None:
    """Make initializers named as inputs of the function inputs, in their place among the others."""
    others = [value for value in graph.inputs if value.name not in graph.initializers]
    shared = [str(value.name) for value in function.inputs if value.name in graph.initializers]
    weights = {name: graph.initializers.pop(name) for name in shared}
    free = [value for value in function.inputs if value.name not in weights]
    check_values(others, free, "input", what, of)
    by_position = dict(zip((value.name for value in free), others, strict=True))
    graph.inputs.clear()
    for formal in function.inputs:
        value = by_position[formal.name] if formal.name in by_position else weights[str(formal.name)]
        value.const_value = None
        graph.inputs.append(value)


def _place(graph: ir.Graph, *, own: bool) -> None:
    """Scopes of a model whose root is the module become relative to it; operations that have none are the module's."""
    if own:
        from_root(graph)
    for node in owned_nodes(graph):
        node.metadata_props.pop(ORIGIN_KEY, None)
        if not own or scope_of(node) is None:
            set_scope(node, Scope((), Source.INHERITED, relative=True) if own else None)


def _adopt(model: ir.Model, callee: ir.Function, body: Body) -> None:
    known = model.functions.get(callee.identifier())
    if known is not None:
        if _bare(known) != _bare(callee):
            raise ModelExportError(
                f"replace: {body.what} calls {callee.domain}::{callee.name}, and the model has another function of "
                "that name; rename one of them"
            )
        return
    copy = callee.clone()
    model.functions[copy.identifier()] = copy
    model.opset_imports.setdefault(copy.domain, 1)
    import_opsets(model, copy, {**body.imports, **copy.opset_imports}, f"replace: {body.what}")


def _bare(function: ir.Function) -> bytes:
    """A function without metadata and types, to compare."""
    proto = ir.to_proto(function)
    del proto.metadata_props[:], proto.value_info[:]
    for node in proto.node:
        del node.metadata_props[:]
    return proto.SerializeToString(deterministic=True)
