"""A whole model without a cache, on its inputs as they are or with what transformers can compute from them ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.huggingface.inputs import AXES, prepared
from modelexport_passes.exporting.huggingface.signature import Signature


def whole(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], constants: Mapping[str, Any] | None = None
) -> Signature:
    """The model on these inputs; ``constants``, what is no tensor, are fixed in the graph."""
    fixed: dict[str, Any] = {**(constants or {}), "return_dict": True}
    if hasattr(cast("Any", model).config, "use_cache"):
        fixed["use_cache"] = False

    def run(**tensors: torch.Tensor) -> Mapping[str, Any]:
        return model(**tensors, **fixed)

    return Signature(model, inputs, AXES, run, may_be_fixed=True)


def prepared_whole(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Signature:
    """The model on these inputs and on what transformers can compute from them ahead.

    Raises:
        ModelExportError: that is nothing.
        MissingDependencyError: the installed transformers cannot.
    """
    tensors, constants = prepared(model, inputs)
    if tensors.keys() == inputs.keys():
        raise ModelExportError(f"export_hf: transformers has nothing to prepare for {type(model).__name__}")
    return whole(model, tensors, constants)
