"""Graph optimizers: onnxslim, onnxsim, onnxruntime, onnxscript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.lost_constants import register_lost_constants
from modelexport_passes.tools.tool import LOSES_CALLS, Tool, import_tool, on_protobuf

Level = Literal["basic", "extended"]


def onnxslim(options: Mapping[str, Any]) -> Tool:
    """The optimizer of that name, with what ``onnxslim.slim`` takes as options."""
    package = import_tool("onnxslim", extra="tools")

    def transform(source: Path, target: Path) -> None:
        package.slim(str(source), str(target), **options)

    return Tool("onnxslim", transform)


def onnxsim(options: Mapping[str, Any]) -> Tool:
    """The optimizer also known as onnx-simplifier, with what ``onnxsim.simplify`` takes as options."""
    package = import_tool("onnxsim", extra="tools")

    def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
        result, same = package.simplify(proto, **options)
        if not same:
            raise ModelExportError("onnxsim: its own check found that the simplified model computes something else")
        return result

    return Tool("onnxsim", on_protobuf(simplify))


def ort_optimizer(level: Level) -> Tool:
    """The graph optimizations of onnxruntime's CPU provider, written to a file."""
    package = import_tool("onnxruntime")

    def transform(source: Path, target: Path) -> None:
        options = package.SessionOptions()
        options.graph_optimization_level = getattr(package.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        package.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return Tool("onnxruntime", transform, harm=LOSES_CALLS)


def onnxscript_optimizer() -> Tool:
    """Constant folding and rewriting by ``onnxscript.optimizer.optimize``."""
    package = import_tool("onnxscript.optimizer")

    def optimize(proto: onnx.ModelProto) -> onnx.ModelProto:
        model = ir.from_proto(proto)
        package.optimize(model)
        register_lost_constants(model)
        return ir.to_proto(model)

    return Tool("onnxscript.optimizer", on_protobuf(optimize), harm=LOSES_CALLS)
