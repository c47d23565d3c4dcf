"""Operators on truths: ``_is_all_true``, ``_is_any_true``, and choices that onnxruntime has no kernel for."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.translations.opset import op


def is_all_true(self: Any) -> Any:
    """``_is_all_true(Tensor self) -> Tensor``: nothing is false; true for an empty tensor."""
    return op.Equal(count_true(op.Not(self)), op.Constant(value_int=0))


def is_any_true(self: Any) -> Any:
    """``_is_any_true(Tensor self) -> Tensor``: something is true; false for an empty tensor."""
    return op.Greater(count_true(self), op.Constant(value_int=0))


def count_true(truths: Any, axis: int | None = None) -> Any:
    """How many are true. A sum is the one reduction that every runtime defines for an empty tensor."""
    numbers = op.Cast(truths, to=ir.DataType.INT64.value)
    if axis is None:
        return op.ReduceSum(numbers, keepdims=0)
    return op.ReduceSum(numbers, op.Constant(value_ints=[axis]), keepdims=0)


def masked_fill(self: Any, mask: Any, value: Any) -> Any:
    """``masked_fill(Tensor self, Tensor mask, value) -> Tensor``: on truths without ``Where``."""
    filled = op.CastLike(value, self)
    if self.dtype is not ir.DataType.BOOL:
        return op.Where(mask, filled, self)
    return _choose(mask, filled, self)


def where(condition: Any, self: Any, other: Any) -> Any:
    """``where.self(Tensor condition, Tensor self, Tensor other) -> Tensor``: on truths without ``Where``."""
    if self.dtype is not ir.DataType.BOOL:
        return op.Where(condition, self, other)
    return _choose(condition, self, other)


def _choose(condition: Any, these: Any, others: Any) -> Any:
    """For want of a ``Where`` that chooses between truths in onnxruntime."""
    return op.Or(op.And(condition, these), op.And(op.Not(condition), others))
