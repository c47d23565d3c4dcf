"""``sort.stable``: equal numbers keep their order."""

from __future__ import annotations

from typing import Any

from modelexport_passes.exporting.translations.opset import op, torchlib


def sort_stable(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor, Tensor)``.

    ONNX defines TopK to give equal numbers in the order of their indices, upwards and downwards: always stable.
    """
    del stable
    if len(self.shape) == 0:
        return op.Identity(self), op.Constant(value_int=0)
    return torchlib.aten_sort(self, dim, descending)
