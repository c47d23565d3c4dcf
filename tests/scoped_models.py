"""Small models in ONNX text with scopes written beside them, and what tests ask of outlined ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from modelexport_passes.outlining.canonical import attributes_key
from modelexport_passes.scopes.ledger import CALLS_KEY
from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of, set_scope
from modelexport_passes.scopes.tags import parse_tag, render_tag
from modelexport_passes.scopes.walk import all_nodes, owned_nodes
from modelexport_passes.testing import model_of

# The text format wants names with dots quoted.
_DOTTED = re.compile(r'(?<![\w."])([a-z]\w*(?:\.\w+)+)')

Arrays = Mapping[str, np.ndarray[Any, Any]]


def scoped(text: str, scopes: Mapping[str, str], *, source: Source = Source.EXPORT) -> ir.Model:
    """A model of this text, each node with the scope that ``scopes`` gives for its first output, as a tag.

    Classes of the tags get the Python module ``pkg``. Names with dots need no quotes. Nodes that are not named are of
    unknown scope.
    """
    model = model_of(_DOTTED.sub(r'"\1"', text))
    for node in owned_nodes(model.graph):
        tag = scopes.get(str(node.outputs[0].name))
        if tag is not None:
            frames = parse_tag(tag).frames
            set_scope(node, Scope(tuple(Frame(f.path, f"pkg.{f.class_name}", f.call) for f in frames), source))
    return model


def function_calls(model: ir.Model) -> dict[str, str]:
    """Name of each function -> the module calls that it serves."""
    return {function.name: function.metadata_props[CALLS_KEY] for function in model.functions.values()}


def tags_in(nodes: ir.Graph | ir.Function) -> list[tuple[str, str | None]]:
    """Operator and tag of each node, in order."""
    return [(node.op_type, None if (scope := scope_of(node)) is None else render_tag(scope)) for node in nodes]


def fingerprint(model: ir.Model) -> list[str]:
    """Operator, attributes, scope and source of every node, in no order: what a round trip must keep."""
    rows = ((node.op_type, attributes_key(node), scope_of(node)) for node in all_nodes(model))
    return sorted(repr((op, attributes, scope, scope and scope.source)) for op, attributes, scope in rows)


def run(model: ir.Model, inputs: Arrays) -> list[bytes]:
    """Outputs, bit by bit, of onnxruntime with its optimizations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, dict(inputs))
    return [repr(out.tolist()).encode() if out.dtype == object else out.tobytes() for out in outputs]


def check(model: ir.Model) -> None:
    """The model passes onnx's checker, strict shape inference included."""
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def fault_of(model: ir.Model) -> str | None:
    """What onnx's checker finds, in one line; None if the model passes."""
    try:
        check(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).splitlines()[0]
    return None
