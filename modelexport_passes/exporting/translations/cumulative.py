"""``cummax``, ``cummin`` and ``cumprod``: an ONNX ``Scan`` along the axis, linear in time and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelexport_passes.exporting.translations.opset import may_be_empty, op
from modelexport_passes.exporting.translations.scans import largest_so_far, product_so_far, smallest_so_far

_COMPUTED_AS = {
    ir.DataType.FLOAT: ir.DataType.FLOAT,
    ir.DataType.DOUBLE: ir.DataType.DOUBLE,
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
}
"""Dtypes that runtimes compute with; every other is a bool or an integer, and computed as int64."""


def cummax(self: Any, dim: int) -> Any:
    """``cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)``."""
    return _extreme_so_far(self, dim, largest_so_far, -1)


def cummin(self: Any, dim: int) -> Any:
    """``cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)``."""
    return _extreme_so_far(self, dim, smallest_so_far, 1)


def cumprod(self: Any, dim: int, dtype: int = -1) -> Any:
    """``cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor``."""
    result = dtype if dtype != -1 else (self.dtype if self.dtype in _COMPUTED_AS else ir.DataType.INT64).value
    if len(self.shape) == 0:
        return op.Cast(self, to=result)
    computed = _COMPUTED_AS.get(ir.DataType(result), ir.DataType.INT64)
    order = _axis_first(self, dim)
    numbers = op.Transpose(op.Cast(self, to=computed.value), perm=order)
    start = _one_step(numbers, np.array(1, dtype=computed.numpy()))
    short = may_be_empty(self, dim)
    products = product_so_far(start, _one_step_more(numbers, start) if short else numbers)
    if short:
        products = _without_last(products)
    return op.Cast(op.Transpose(products, perm=_inverse(order)), to=result)


def _extreme_so_far(self: Any, dim: int, so_far: Any, worst: int) -> Any:
    if len(self.shape) == 0:
        return op.Identity(self), op.Constant(value_int=0)
    dtype = _COMPUTED_AS.get(self.dtype, ir.DataType.INT64)
    order = _axis_first(self, dim)
    numbers = op.Transpose(op.Cast(self, to=dtype.value), perm=order)
    worst_of_all = np.array(worst * np.inf, dtype=dtype.numpy()) if dtype in _COMPUTED_AS else _limit(worst)
    start, first = _one_step(numbers, worst_of_all), _one_step(numbers, np.array(0))
    short = may_be_empty(self, dim)
    if short:
        numbers = _one_step_more(numbers, start)
    length = op.Squeeze(op.Shape(numbers, start=0, end=1))
    positions = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
    values, indices = so_far(start, first, numbers, positions)
    if short:
        values, indices = _without_last(values), _without_last(indices)
    back = _inverse(order)
    return op.Cast(op.Transpose(values, perm=back), to=self.dtype.value), op.Transpose(indices, perm=back)


def _limit(worst: int) -> Any:
    limits = np.iinfo(np.int64)
    return np.array(limits.max if worst > 0 else limits.min)


def _axis_first(self: Any, dim: int) -> list[int]:
    axes = list(range(len(self.shape)))
    return [axes.pop(dim), *axes]


def _inverse(order: list[int]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]


def _one_step(numbers: Any, value: Any) -> Any:
    """The value in the shape of one step along the first axis."""
    return op.Expand(op.Constant(value=ir.tensor(value)), op.Shape(numbers, start=1))


def _one_step_more(numbers: Any, step: Any) -> Any:
    """With a step behind, so that there is one: onnxruntime refuses a Scan of none."""
    return op.Concat(numbers, op.Unsqueeze(step, op.Constant(value_ints=[0])), axis=0)


def _without_last(steps: Any) -> Any:
    return op.Slice(steps, op.Constant(value_ints=[0]), op.Constant(value_ints=[-1]), op.Constant(value_ints=[0]))
