"""One model through the whole pipeline, each stage kept: what the tests over cases and real models look at.

Nothing here trusts the package's own validation: scopes are read from the nodes, results are compared bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

import modelexport_passes as mx
from modelexport_passes.scopes.scope import SCOPE_KEY

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class RoundTrip:
    """A model plain, outlined and inlined again.

    Attributes:
        plain: the model before outlining, with scopes and tags.
        outlined: after `mx.Outline`.
        inlined: after `mx.Inline`.
        outlined_twice: whether a second outlining claimed to change anything.
        inlined_twice: whether a second inlining did.
    """

    plain: onnx.ModelProto
    outlined: onnx.ModelProto
    inlined: onnx.ModelProto
    outlined_twice: bool
    inlined_twice: bool


def round_trip(model: ir.Model, **outline_options: Any) -> RoundTrip:
    """Recover, tag, outline and inline; the model is changed in place and ends up inlined."""
    mx.RecoverScopes()(model)
    mx.InjectTags()(model)
    plain = ir.to_proto(model)
    outline, inline = mx.Outline(**outline_options), mx.Inline()
    outline(model)
    outlined = ir.to_proto(model)
    outlined_twice = outline(model).modified
    inline(model)
    inlined = ir.to_proto(model)
    return RoundTrip(plain, outlined, inlined, outlined_twice, inline(model).modified)


def nodes_of(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """All nodes, those of subgraphs included."""
    for node in graph:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from nodes_of(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for subgraph in attribute.as_graphs():
                    yield from nodes_of(subgraph)


def operations(proto: onnx.ModelProto) -> Counter[tuple[str, str | None]]:
    """(op type, chain of module calls) of every node of the main graph and its subgraphs; None is unknown."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for node in nodes_of(ir.from_proto(proto).graph):
        scope = mx.scope_of(node)
        counts[node.op_type, None if scope is None else chain(scope)] += 1
    return counts


def tags(proto: onnx.ModelProto) -> Counter[tuple[str, str | None]]:
    """(op type, tag) of every node of the main graph and its subgraphs."""
    nodes = nodes_of(ir.from_proto(proto).graph)
    return Counter((node.op_type, node.metadata_props.get("hierarchy_tag")) for node in nodes)


def chain(scope: mx.Scope) -> str:
    """Module calls below the root, as in ``block@1 > block.linear@1``; ``""`` for the root's own operations."""
    root, *frames = scope.frames
    return " > ".join(map(str, frames)) if root.path == "" else f"not below the root: {scope}"


def classes(proto: onnx.ModelProto) -> dict[str, set[str]]:
    """Module path -> the classes that scopes give it."""
    found: dict[str, set[str]] = {}
    for node in nodes_of(ir.from_proto(proto).graph):
        scope = mx.scope_of(node)
        for frame in scope.frames if scope is not None else ():
            found.setdefault(frame.path, set()).add(frame.class_name)
    return found


def function_counts(proto: onnx.ModelProto) -> dict[str, int]:
    """Class name (without its Python module) -> how many functions were made of it."""
    keys = [{entry.key: entry.value for entry in function.metadata_props} for function in proto.functions]
    return dict(Counter(key["pkg.modelexport_passes.module"].rpartition(".")[2] for key in keys))


def recovered(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with our own scopes taken away, as a file of another program, and recovered from what is left."""
    model = ir.from_proto(proto)
    for node in nodes_of(model.graph):
        node.metadata_props.pop(SCOPE_KEY, None)
    mx.RecoverScopes()(model)
    return ir.to_proto(model)


def run(proto: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    """Outputs on onnxruntime's CPU provider with its optimizations off, where equal models give equal bits."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def differences(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Arrays) -> list[str]:
    """Output names whose bits differ, each with the largest difference; also names that differ themselves."""
    names = [value.name for value in before.graph.output]
    assert names == [value.name for value in after.graph.output]
    return [
        f"{name}: {np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))}"
        for name, a, b in zip(names, run(before, feeds), run(after, feeds), strict=True)
        if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes()
    ]
