"""A captured program against the model it was captured from: what rewrites and repairs made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ModelExportError

_TOLERANCE = 1e-3
"""Of an output's spread. A rewrite may sum in another order; one that leaves something out is off by far more."""


def results_of(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """What a model gives for copies of its inputs; numbers that it draws are the same every time."""
    copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
    drawing: Any = torch.random
    with torch.no_grad(), drawing.fork_rng(devices=[]):
        drawing.manual_seed(0)
        return [leaf for leaf in pytree.tree_leaves(model(*copied, **named)) if isinstance(leaf, torch.Tensor)]


def check_same(captured: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Compare the results of a captured program with the model's.

    Raises:
        ModelExportError: they differ: by how much, relative to the spread of the output.
    """
    for number, (ours, theirs) in enumerate(zip(captured, expected, strict=True)):
        if ours.shape != theirs.shape:
            raise ModelExportError(
                f"capture: output {number} has shape {list(ours.shape)} after rewrites, {list(theirs.shape)} in torch"
            )
        off = _relative_error(ours, theirs)
        if not off <= _TOLERANCE:
            raise ModelExportError(f"capture: output {number} is {off:.1e} of its spread off torch's after rewrites")


def _relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference as a part of the spread; what is infinite or no number has to be the same."""
    left, right = ours.double(), theirs.double()
    differ = (left != right) & ~(left.isnan() & right.isnan())
    if not bool(differ.any()):
        return 0.0
    finite = right[right.isfinite()]
    spread = float(finite.std(correction=0)) if finite.numel() else 0.0
    return float((left - right)[differ].abs().max()) / (spread or 1.0)
