"""Converters: to another opset, to 16-bit floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx
import onnx_ir as ir
from onnx import version_converter

from modelexport_passes.tools.tool import LOSES_CALLS, Tool, import_tool, on_protobuf

_FLOAT16_HARM = "leaves constants in their bodies in 32 bits, so that no runtime loads what mixes them with 16"

Converter = Literal["onnx", "onnxscript"]


def opset_converter(opset: int, converter: Converter) -> Tool:
    """The conversion to another version of the default opset, by ``onnx`` or by ``onnxscript``."""
    if converter == "onnx":

        def convert(proto: onnx.ModelProto) -> onnx.ModelProto:
            return version_converter.convert_version(proto, opset)

        harm = "drops their bodies, so that no runtime loads the result"
        return Tool("onnx.version_converter", on_protobuf(convert), harm)

    package = import_tool("onnxscript.version_converter")

    def convert_with_onnxscript(proto: onnx.ModelProto) -> onnx.ModelProto:
        model = ir.from_proto(proto)
        package.convert_version(model, opset)
        return ir.to_proto(model)

    return Tool("onnxscript.version_converter", on_protobuf(convert_with_onnxscript), LOSES_CALLS)


def float16_converter(
    *, keep_io_types: bool, exclude_ops: Sequence[str] | None, exclude_nodes: Sequence[str] | None
) -> Tool:
    """The conversion of floats to 16 bits that comes with onnxruntime."""
    package = import_tool("onnxruntime.transformers.float16")

    def convert(proto: onnx.ModelProto) -> onnx.ModelProto:
        return package.convert_float_to_float16(
            proto,
            keep_io_types=keep_io_types,
            op_block_list=[*package.DEFAULT_OP_BLOCK_LIST, *(exclude_ops or ())],
            node_block_list=list(exclude_nodes or ()),
        )

    return Tool("float16", on_protobuf(convert), _FLOAT16_HARM)
