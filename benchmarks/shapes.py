"""Inputs of other shapes for a model of Hugging Face: another batch, another sequence length, where these may vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir
import torch

from modelexport_passes.exporting.huggingface.inputs import AXES

_MORE = 1
"""Rows that a batch gets."""

_FEWER = 2
"""By how much a sequence gets shorter; longer ones may be more than a tiny model has positions for."""


def other_shapes(
    exported: ir.Model, inputs: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """What varies, in words, and the inputs: everything that may in this graph first, then less.

    Nothing is made up: longer axes repeat what is there. A batch varies only where every input has it; an image that
    belongs to a row by its number alone would not follow.
    """
    constant = set(_constant(exported))
    varying = {
        name: {axis: symbol for axis, symbol in AXES.get(name, {}).items() if symbol not in constant} for name in inputs
    }
    batched = all("batch" in axes.values() for axes in varying.values())
    symbols = sorted({symbol for axes in varying.values() for symbol in axes.values()} - {"batch"})
    every = {"batch", *symbols} if batched else set(symbols)
    for chosen in dict.fromkeys(map(frozenset, [every, every & {"batch"}, set(symbols)])):
        if chosen:
            yield " and ".join(sorted(chosen)), _resized(inputs, varying, chosen)


def _constant(exported: ir.Model) -> Iterator[str]:
    """Symbols of axes that are a number in the graph."""
    for value in exported.graph.inputs:
        for axis, symbol in AXES.get(str(value.name), {}).items():
            if value.shape is not None and isinstance(value.shape[axis], int):
                yield symbol


def _resized(
    inputs: Mapping[str, torch.Tensor], varying: Mapping[str, Mapping[int, str]], chosen: frozenset[str]
) -> dict[str, torch.Tensor]:
    shortest: dict[str, int] = {}
    for name, tensor in inputs.items():
        for axis, symbol in varying[name].items():
            shortest[symbol] = min(shortest.get(symbol, tensor.shape[axis]), tensor.shape[axis])
    change = {
        symbol: -_FEWER if symbol != "batch" and size > _FEWER + 1 else _MORE for symbol, size in shortest.items()
    }
    made = dict(inputs)
    for name, tensor in inputs.items():
        for axis, symbol in varying[name].items():
            if symbol in chosen:
                size = tensor.shape[axis]
                made[name] = made[name].index_select(axis, torch.arange(size + change[symbol]) % size)
    return made
