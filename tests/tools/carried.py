"""What of a real model's scopes comes through a tool, counted without the code that carries them.

``python -m tests.tools.carried`` prints the table of ``docs/tools.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

import modelexport_passes as mx
from modelexport_passes.builtin.converters import ConvertOpset, Float16
from modelexport_passes.builtin.optimizers import OnnxRuntime, OnnxScriptOptimize, OnnxSim, OnnxSlim
from modelexport_passes.builtin.quantizers import QuantizeDynamic, QuantizeStatic
from modelexport_passes.exporting.record import record_of
from modelexport_passes.pass_base import RunContext
from modelexport_passes.scopes.origins import origins_of
from modelexport_passes.scopes.walk import owned_nodes
from tests.zoo import build, zoo_cases

MODELS = ("bert", "llama", "vit", "regnet")

OPTIMIZERS: dict[str, Callable[[], mx.ModelPass]] = {
    "onnxslim": OnnxSlim,
    "onnxsim": OnnxSim,
    "onnxruntime basic": OnnxRuntime,
    "onnxruntime extended": lambda: OnnxRuntime(level="extended"),
}

OTHERS: dict[str, Callable[[], mx.ModelPass]] = {
    "onnxscript optimizer": OnnxScriptOptimize,
    "onnx to opset 21": lambda: ConvertOpset(opset=21),
    "onnxscript to opset 21": lambda: ConvertOpset(opset=21, converter="onnxscript"),
    "float16": Float16,
    "quantize-dynamic": QuantizeDynamic,
    "quantize-static": QuantizeStatic,
}


@functools.cache
def exported(arch: str) -> ir.Model:
    """A plain export with tags; never changed, so that one export serves all tools."""
    (case,) = zoo_cases((arch,))
    model, inputs = build(case)
    exported = mx.export(model, kwargs=inputs)
    mx.InjectTags()(exported)
    return exported


@dataclass
class Carried:
    """Nodes of a model after a tool, by what became of their scopes.

    Attributes:
        nodes: all of them.
        tagged: those with a tag.
        surviving: those with an output name that was there before.
        kept: of these, those with the scope of the operation that made it.
        fused: of these, those with another scope that name that operation's scope among their origins.
        lost: of these, the rest.
        owned: new nodes that read a weight named after one module, with the scope of that module or one above it.
        misplaced: new nodes that read such a weight and have another scope.
    """

    nodes: int = 0
    tagged: int = 0
    surviving: int = 0
    kept: int = 0
    fused: int = 0
    lost: list[str] = field(default_factory=list[str])
    owned: int = 0
    misplaced: list[str] = field(default_factory=list[str])


def carried(plain: ir.Model, tool: mx.ModelPass) -> tuple[ir.Model, Carried]:
    """Run a tool on a copy of a model that has scopes and tags, and look at every node."""
    before = {value.name: mx.scope_of(node) for node in owned_nodes(plain.graph) for value in node.outputs}
    modules = {frame.path for scope in before.values() if scope is not None for frame in scope.frames if frame.path}
    model = plain.clone()
    context = RunContext(plain.clone, record_of(plain))
    tool.bind(context)(model)
    found = Carried()
    for node in owned_nodes(model.graph):
        scope = mx.scope_of(node)
        what = f"{node.op_type} {node.outputs[0].name}: {scope}"
        found.nodes += 1
        found.tagged += "hierarchy_tag" in node.metadata_props
        names = [value.name for value in node.outputs if value.name in before]
        owners = {str(value.name).rpartition(".")[0] for value in node.inputs if value is not None} & modules
        if names:
            found.surviving += 1
            was = before[names[0]]
            if scope == was:
                found.kept += 1
            elif was in origins_of(node):
                found.fused += 1
            else:
                found.lost.append(f"{what}, was {was}")
        elif len(owners) == 1:
            path = owners.pop()
            if scope is not None and scope.path in {path, *_above(path)}:
                found.owned += 1
            else:
                found.misplaced.append(f"{what}, reads a weight of {path}")
    return model, found


def _above(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:depth]) for depth in range(len(parts))}


def main() -> None:
    """Print the table of ``docs/tools.md``."""
    print("| tool | model | nodes | tagged | name survived | kept | fused | lost |")
    print("|---|---|---|---|---|---|---|---|")
    for name, tool in {**OPTIMIZERS, **OTHERS}.items():
        for arch in MODELS:
            _, found = carried(exported(arch), tool())
            row = (found.nodes, found.tagged, found.surviving, found.kept, found.fused, len(found.lost))
            print(f"| {name} | {arch} | {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
