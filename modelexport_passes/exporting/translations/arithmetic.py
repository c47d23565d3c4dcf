"""Operators on two tensors of different types: torch's exporter leaves these unlike under the operators' second names.

``torch.div`` of a float32 and an int64 is cast to one type before it is translated; ``torch.divide``, the same operator
by another name, is not, and ONNX has no ``Div`` of two types. The other aliases here, and ``pow``, are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from modelexport_passes.exporting.translations.opset import op

_TORCH = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
}
_ONNX = {theirs: ours for ours, theirs in _TORCH.items()}


def divide(self: Any, other: Any) -> Any:
    """``divide.Tensor(Tensor self, Tensor other) -> Tensor``: of whole numbers, too, as fractions."""
    return op.Div(*_alike(self, other, fractions=True))


def multiply(self: Any, other: Any) -> Any:
    """``multiply.Tensor(Tensor self, Tensor other) -> Tensor``; of truths, whether both are true."""
    left, right = _alike(self, other)
    return op.And(left, right) if _result_type(self, other) is ir.DataType.BOOL else op.Mul(left, right)


def subtract(self: Any, other: Any, alpha: float = 1) -> Any:
    """``subtract.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor``."""
    left, right = _alike(self, other)
    if alpha != 1:
        right = op.Mul(right, op.CastLike(op.Constant(value=ir.tensor(alpha)), right))
    return op.Sub(left, right)


def power(self: Any, exponent: Any) -> Any:
    """``pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor``."""
    return op.Pow(*_alike(self, exponent))


def compared(operator: Callable[..., Any]) -> Callable[..., Any]:
    """``greater.Tensor(Tensor self, Tensor other) -> Tensor`` and its like; truths are 0 and 1."""

    def translation(self: Any, other: Any) -> Any:
        left, right = _alike(self, other)
        if _result_type(self, other) is ir.DataType.BOOL:
            left, right = (op.Cast(value, to=ir.DataType.INT32.value) for value in (left, right))
        return operator(left, right)

    return translation


def _alike(left: Any, right: Any, *, fractions: bool = False) -> tuple[Any, Any]:
    """Both in the type that torch computes in."""
    wanted = _result_type(left, right)
    if fractions and not wanted.is_floating_point():
        wanted = ir.DataType.FLOAT
    return _cast(left, wanted), _cast(right, wanted)


def _result_type(left: Any, right: Any) -> ir.DataType:
    """Torch's own word for it; a scalar weighs less than a tensor with axes."""
    examples = [
        torch.empty((1,) * len(value.shape), dtype=_TORCH[value.dtype], device="meta") for value in (left, right)
    ]
    return _ONNX[torch.result_type(*examples)]


def _cast(value: Any, wanted: ir.DataType) -> Any:
    return value if value.dtype is wanted else op.Cast(value, to=wanted.value)
