"""Down to an opset that the exporter writes only by a conversion that strips metadata: scopes are carried across."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants  # pyright: ignore[reportUnknownVariableType]
from onnxscript.version_converter._version_converter import SUPPORTED_MAX_ONNX_OPSET

from modelexport_passes.errors import ModelExportError, first_line
from modelexport_passes.scopes.carry import carry
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.snapshot import take_snapshot

_DYNAMO = range(18, SUPPORTED_MAX_ONNX_OPSET + 1)
"""The opsets that dynamo writes; onnx converts to lower ones where it can."""

_TORCHSCRIPT = range(7, 21)
"""The opsets that torch says its TorchScript exporter writes."""


def convert_opset(model: ir.Model, opset: int) -> ir.Model:
    """The model at another opset of the default domain, each node with its scope. Its constants are folded first.

    Raises:
        ModelExportError: onnx has no conversion for one of the operators.
    """
    # The converter turns inputs into attributes where they are constants; a plain export computes some of them.
    fold_constants(model)
    RemoveUnusedNodesPass()(model)
    snapshot = take_snapshot(model)
    try:
        converted = version_converter.convert_version(ir.to_proto(model), opset)
    except (RuntimeError, version_converter.ConvertError, onnx.checker.ValidationError) as error:
        reason = f"no conversion to opset {opset}: {first_line(error)}"
        raise ModelExportError(f"export: {reason}; export at a higher opset") from error
    result = ir.from_proto(converted)
    carry(result, snapshot)
    recover(result)
    return result


def check_opset(model: ir.Model, asked: int | None, exporter: str) -> None:
    """Refuse a model at another opset than the one asked for, or with operators that its opset does not have.

    Raises:
        ModelExportError: it is such a model; the message says which opsets can be had.
    """
    written = model.opset_imports.get("")
    if asked is not None and written != asked:
        raise ModelExportError(
            f"export: opset {asked} was asked for, {exporter} wrote opset {written}; {_range(exporter)}"
        )
    if written is None:
        return
    operators = {node.op_type for node in model.graph.all_nodes() if node.domain == ""}
    for function in model.functions.values():
        operators |= {node.op_type for node in function.all_nodes() if node.domain == ""}
    unknown = sorted(name for name in operators if not onnx.defs.has(name, written, ""))
    if unknown:
        raise ModelExportError(
            f"export: {exporter} wrote opset {written}, which has no {', '.join(unknown)}; {_range(exporter)}"
        )


def _range(exporter: str) -> str:
    if exporter == "torchscript":
        return f"torchscript writes {_TORCHSCRIPT.start} to {_TORCHSCRIPT.stop - 1}, so ask for one of these"
    lowest, highest = _DYNAMO.start, _DYNAMO.stop - 1
    return f"{exporter} writes {lowest} to {highest}, and lower ones where onnx can convert; ask for one of these"
