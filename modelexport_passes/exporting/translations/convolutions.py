"""``conv3d`` without a bias, to which torch's exporter adds one of a wrong shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelexport_passes.exporting.translations.opset import op, torchlib


def conv3d(
    input: Any,  # noqa: A002 - the operator's own name for it
    weight: Any,
    bias: Any = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Any:
    """``conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor``."""
    if bias is None:
        bias = op.Expand(op.CastLike(op.Constant(value_float=0.0), input), op.Shape(weight, start=0, end=1))
    return torchlib.aten_conv3d(input, weight, bias, stride, padding, dilation, groups)
