"""Axes taken away: torch leaves one that has more than one element, where ONNX's ``Squeeze`` refuses the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelexport_passes.exporting.translations.opset import op


def squeeze_dim(self: Any, dim: int) -> Any:
    """``squeeze.dim(Tensor self, int dim) -> Tensor``."""
    return squeeze_dims(self, [dim])


def squeeze_dims(self: Any, dim: Sequence[int]) -> Any:
    """``squeeze.dims(Tensor self, int[] dim) -> Tensor``.

    A size that varies is none of one element: torch takes the axis for a longer one when it captures the model.
    """
    rank = len(self.shape)
    axes = sorted({axis % rank for axis in dim}) if rank else []
    single = [axis for axis in axes if self.shape[axis] == 1]
    return op.Squeeze(self, op.Constant(value_ints=single)) if single else op.Identity(self)
