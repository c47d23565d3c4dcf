"""``index_put`` with masks beside other axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.translations.opset import op, torchlib


def index_put(self: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """``index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor``.

    torch's exporter takes a mask only where it is the one index. Beside others (``x[:, mask] = y``) a mask stands for
    the places where it is true, an index for each of its axes.
    """
    if len(indices) > 1:
        indices = [place for index in indices for place in _as_places(index)]
    return torchlib.aten_index_put(self, indices, values, accumulate)


def _as_places(index: Any) -> list[Any]:
    if index is None or index.dtype is not ir.DataType.BOOL:
        return [index]
    places = op.NonZero(index)
    columns = [op.Gather(places, op.Constant(value_int=axis), axis=0) for axis in range(len(index.shape))]
    for column in columns:
        # What follows asks for the rank, which only values that torch's exporter made itself know.
        column.shape, column.dtype = ir.Shape([None]), ir.DataType.INT64
    return columns
