"""``isin`` and ``searchsorted``: values among other values."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.translations.booleans import count_true
from modelexport_passes.exporting.translations.opset import may_be_empty, op

_FALSE = ir.tensor(False)


def isin(elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """``isin.Tensor_Tensor(elements, test_elements, *, assume_unique=False, invert=False) -> Tensor``.

    Every element is compared with every other: memory for all pairs. torch sorts when there are many, for which ONNX
    has no search.
    """
    del assume_unique  # a hint for sorting
    others = op.Reshape(test_elements, op.Constant(value_ints=[-1]))
    pairs = op.Equal(op.Unsqueeze(elements, op.Constant(value_ints=[-1])), others)
    empty = may_be_empty(elements) or may_be_empty(test_elements)
    if empty:  # onnxruntime sums wrongly over nothing; so there is always one, which nothing is equal to
        one_more = op.Concat(op.Shape(elements), op.Constant(value_ints=[1]), axis=0)
        pairs = op.Concat(pairs, op.Expand(op.Constant(value=_FALSE), one_more), axis=-1)
    found = op.Greater(count_true(pairs, axis=-1), op.Constant(value_int=0))
    if empty:
        found = op.Reshape(found, op.Shape(elements))
    return op.Not(found) if invert else found


def isin_tensor_scalar(elements: Any, test_element: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """``isin.Tensor_Scalar``: a comparison with one number."""
    del assume_unique
    found = op.Equal(elements, op.CastLike(test_element, elements))
    return op.Not(found) if invert else found


def isin_scalar_tensor(element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """``isin.Scalar_Tensor``: whether one number is among some."""
    return isin(op.CastLike(element, test_elements), test_elements, assume_unique, invert)


def searchsorted(
    sorted_sequence: Any,
    self: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """``searchsorted.Tensor(sorted_sequence, self, *, out_int32, right, side, sorter) -> Tensor``.

    How many of the sorted numbers lie before each value: all pairs are compared.
    """
    if sorter is not None:
        sorted_sequence = op.GatherElements(sorted_sequence, sorter, axis=-1)
    # Rows of numbers against rows of values; one row of numbers serves all values.
    numbers = (
        op.Unsqueeze(sorted_sequence, op.Constant(value_ints=[-2]))
        if len(sorted_sequence.shape) > 1
        else (sorted_sequence)
    )
    values = op.Unsqueeze(self, op.Constant(value_ints=[-1]))
    before = op.LessOrEqual if right or side == "right" else op.Less
    counts = count_true(before(numbers, values), axis=-1)
    return op.Cast(counts, to=ir.DataType.INT32.value) if out_int32 else counts
