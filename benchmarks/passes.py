"""Seconds of each pass on flat models of growing size, beside the same steps of onnx and onnx_ir.

    python benchmarks/passes.py            # 1,000 and 10,000 nodes
    python benchmarks/passes.py 100000     # as many as you like

The model is a chain of equal blocks with scopes as torch's metadata writes them; weights are tiny, so the graph is what
costs. Every step should take ten times as long on ten times the nodes; the last column shows how far it is from that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

import modelexport_passes as mx

OPERATIONS_PER_BLOCK = 20
WIDTH = 4


def flat_model(nodes: int) -> ir.Model:
    """A chain of blocks, each of ten linear layers with an activation, with torch's metadata on every node."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", WIDTH]))
    made: list[ir.Node] = []
    weights: list[ir.Value] = []
    value = x
    for block in range(nodes // OPERATIONS_PER_BLOCK):
        for layer in range(OPERATIONS_PER_BLOCK // 2):
            path = f"blocks.{block}.layers.{layer}"
            weight = ir.tensor(np.eye(WIDTH, dtype=np.float32) + block + layer, name=f"{path}.weight")
            initializer = ir.Value(
                name=f"{path}.weight",
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape([WIDTH, WIDTH]),
                const_value=weight,
            )
            weights.append(initializer)
            linear = _node("MatMul", [value, initializer], [f"blocks.{block}", path], len(made))
            activation = _node("Relu", [linear.outputs[0]], [f"blocks.{block}"], len(made) + 1)
            made += [linear, activation]
            value = activation.outputs[0]
    graph = ir.Graph([x], [value], nodes=made, initializers=weights, opset_imports={"": 20}, name="main")
    return ir.Model(graph, ir_version=10)


def _node(op_type: str, inputs: list[ir.Value], paths: list[str], index: int) -> ir.Node:
    node = ir.node(op_type, inputs, name=f"node_{index}")
    node.outputs[0].name = f"v_{index}"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(["batch", WIDTH])
    node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(["", *paths, node.name])
    classes = ["bench.Net", "bench.Block", "torch.nn.modules.linear.Linear"][: len(paths) + 1]
    node.metadata_props["pkg.torch.onnx.class_hierarchy"] = repr([*classes, f"aten.{op_type.lower()}"])
    return node


def seconds(step: Callable[[], object]) -> float:
    """Wall-clock time of one run."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(nodes: int) -> dict[str, float]:
    """Seconds per step for a model of this many nodes."""
    model = flat_model(nodes)
    data = ir.to_proto(model).SerializeToString()
    times = {
        "onnx: parse": seconds(lambda: onnx.load_from_string(data)),
        "onnx_ir: from and to proto": seconds(lambda: ir.to_proto(ir.from_proto(onnx.load_from_string(data)))),
    }
    for step in (mx.RecoverScopes(), mx.InjectTags(), mx.Outline()):
        times[step.name] = seconds(lambda step=step: step(model))
    outlined = ir.to_proto(model)
    times["inline"] = seconds(lambda: mx.Inline()(model))
    times["onnx: inline_local_functions (C++)"] = seconds(lambda: onnx.inliner.inline_local_functions(outlined))
    return times


def main() -> None:
    """Print the table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or [1_000, 10_000]
    measure(OPERATIONS_PER_BLOCK)  # imports and caches
    results = [measure(size) for size in sizes]
    table = Table("step", *(f"{size:,} nodes, s" for size in sizes), "s per node, last / first")
    for step in results[0]:
        times = [result[step] for result in results]
        growth = (times[-1] / sizes[-1]) / (times[0] / sizes[0])
        table.add_row(step, *(f"{value:.3f}" for value in times), f"{growth:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
