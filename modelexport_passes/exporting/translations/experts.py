"""``_grouped_mm``: the product of each group of rows with a matrix of its own, as mixtures of experts compute it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.translations.opset import op, torchlib


def grouped_mm(self: Any, mat2: Any, offs: Any = None, bias: Any = None, out_dtype: int = -1) -> Any:
    """``_grouped_mm(Tensor self, Tensor mat2, *, Tensor? offs=None, Tensor? bias=None, ScalarType? out_dtype=None)``.

    With ``offs``, where each group ends, the groups are

    - rows of the first: (M, K) and a matrix for each group (G, K, N) -> (M, N); rows behind the last group give zeros;
    - columns of the second: (G, M, K) and (K, N) -> (M, N);
    - what is summed over: (M, K) and (K, N) -> (G, M, N).

    One product for each group: nothing is computed that is not needed, and no weight is copied for each row.

    Raises:
        NotImplementedError: the number of groups is not static, so the graph cannot be written.
    """
    if offs is None:
        return torchlib.aten_grouped_mm(self, mat2, offs, bias, out_dtype)
    groups = offs.shape[0]
    if not isinstance(groups, int):
        raise NotImplementedError(f"_grouped_mm: {groups} groups; a graph needs a fixed number")
    ranks = (len(self.shape), len(mat2.shape))
    ends = op.Cast(offs, to=ir.DataType.INT64.value)
    start = op.Constant(value_ints=[0])
    parts: list[Any] = []
    for group in range(groups):
        end = _between(ends, op.Constant(value_ints=[group]), op.Constant(value_ints=[group + 1]), axis=0)
        rows = _between(self, start, end, axis=0 if ranks == (2, 3) else 1) if ranks[0] == 2 else _item(self, group)
        columns = _item(mat2, group) if ranks[1] == 3 else _between(mat2, start, end, axis=1 if ranks[0] == 3 else 0)
        parts.append(op.MatMul(rows, columns))
        start = end
    if ranks == (2, 2):
        result = op.Concat(*(op.Unsqueeze(part, op.Constant(value_ints=[0])) for part in parts), axis=0)
    elif ranks == (3, 2):
        result = op.Concat(*parts, axis=1)
    else:
        result = op.Concat(*parts, _zeros_behind(self, mat2, start), axis=0)
    if bias is not None:
        result = op.Add(result, bias)
    return result if out_dtype in (None, -1) else op.Cast(result, to=out_dtype)


def _between(values: Any, start: Any, end: Any, axis: int) -> Any:
    return op.Slice(values, start, end, op.Constant(value_ints=[axis]))


def _item(values: Any, index: int) -> Any:
    return op.Gather(values, op.Constant(value_int=index), axis=0)


def _zeros_behind(self: Any, mat2: Any, end: Any) -> Any:
    rows = op.Sub(op.Shape(self, start=0, end=1), end)
    zero = op.CastLike(op.Constant(value_float=0.0), self)
    return op.Expand(zero, op.Concat(rows, op.Shape(mat2, start=2, end=3), axis=0))
