"""``divide`` and ``multiply``, other names of ``div`` and ``mul``: torch's exporter gives only those a common dtype."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.translations.opset import op

_KINDS = ((ir.DataType.BOOL,), tuple(dtype for dtype in ir.DataType if dtype.is_integer()))


def divide(self: Any, other: Any) -> Any:
    """``divide.Tensor(Tensor self, Tensor other) -> Tensor``: true division, of integers too."""
    dtype = common_dtype(self, other)
    return _of_one_dtype(op.Div, self, other, dtype if _kind(dtype) == len(_KINDS) else ir.DataType.FLOAT)


def multiply(self: Any, other: Any) -> Any:
    """``multiply.Tensor(Tensor self, Tensor other) -> Tensor``."""
    dtype = common_dtype(self, other)
    if dtype is ir.DataType.BOOL:
        return op.And(self, other)
    return _of_one_dtype(op.Mul, self, other, dtype)


def common_dtype(self: Any, other: Any) -> ir.DataType:
    """The dtype that torch gives the result: by kind, then dimensioned before scalar, then by size (type promotion)."""
    left, right = self.dtype, other.dtype
    if left is right:
        return left
    if _kind(left) != _kind(right):
        return left if _kind(left) > _kind(right) else right
    ranked = (len(self.shape) > 0, len(other.shape) > 0)
    if ranked[0] != ranked[1]:
        return left if ranked[0] else right
    if left.itemsize == right.itemsize:
        # Of float16 and bfloat16 neither holds the other; nor do uint8 and int8.
        return ir.DataType.FLOAT if _kind(left) == len(_KINDS) else ir.DataType.INT16
    return left if left.itemsize > right.itemsize else right


def _kind(dtype: ir.DataType) -> int:
    """Truths, integers, floating-point numbers."""
    return next((number for number, dtypes in enumerate(_KINDS) if dtype in dtypes), len(_KINDS))


def _of_one_dtype(operator: Any, self: Any, other: Any, dtype: ir.DataType) -> Any:
    left, right = (each if each.dtype is dtype else op.Cast(each, to=dtype.value) for each in (self, other))
    return operator(left, right)
