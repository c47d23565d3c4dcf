"""The ONNX operators that translations are written with."""

from __future__ import annotations

import importlib
from typing import Any

from onnxscript.onnx_opset import opset18

op: Any = opset18
"""While torch's exporter traces, these make nodes; their declared types are those of eager execution."""

torchlib: Any = importlib.import_module("onnxscript.function_libs.torch_lib.ops.core")
"""Torch's own translations."""


def may_be_empty(value: Any, axis: int | None = None) -> bool:
    """Whether a dimension (that of the axis, or any) is zero or not known yet: there, runtimes need care."""
    if value.shape is None:
        return True
    dims = value.shape if axis is None else (value.shape[axis],)
    return any(not isinstance(dim, int) or dim == 0 for dim in dims)
