"""A captured program against the model it was captured from: after rewrites, and for inputs of other sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ModelExportError, root_cause

ONE_SIZE = "capture: it holds for the sizes of the example only"
"""How the error begins of what may vary and does not."""

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
                f"capture: output {number} has shape {list(ours.shape)}, in torch {list(theirs.shape)}"
            )
        off = _relative_error(ours, theirs)
        if not off <= _TOLERANCE:
            raise ModelExportError(f"capture: output {number} is {off:.1e} of its spread off torch's")


def check_elsewhere(
    captured: torch.export.ExportedProgram, model: torch.nn.Module, others: Iterable[tuple[Any, ...]]
) -> None:
    """Compare on the first arguments that the model takes: torch may make a constant of a size that shall vary.

    Raises:
        ModelExportError: the captured program does not take them, or differs.
    """
    for args in others:
        # The model's own code runs here, and may raise anything.
        with suppress(Exception):
            expected = results_of(model, args, {})
            break
    else:
        return
    try:
        check_same(results_of(captured.module(check_guards=False), args, {}), expected)
    except Exception as error:
        raise ModelExportError(f"{ONE_SIZE}: {root_cause(error)}") from error


def _relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference as a part of the spread; what is infinite or no number has to be the same.

    Where all numbers are the same, as in an output of one, their size stands for the spread if it is above one.
    """
    left, right = ours.double(), theirs.double()
    differ = (left != right) & ~(left.isnan() & right.isnan())
    if not bool(differ.any()):
        return 0.0
    finite = right[right.isfinite()]
    spread = float(finite.std(correction=0)) if finite.numel() else 0.0
    if spread == 0 and finite.numel():
        spread = max(1.0, float(finite.abs().max()))
    return float((left - right)[differ].abs().max()) / (spread or 1.0)
