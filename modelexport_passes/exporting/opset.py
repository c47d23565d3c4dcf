"""Down to an opset that the exporter writes only by a conversion that strips metadata: scopes are carried across."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants  # pyright: ignore[reportUnknownVariableType]

from modelexport_passes.errors import ModelExportError, first_line
from modelexport_passes.scopes.carry import carry
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.snapshot import take_snapshot


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
