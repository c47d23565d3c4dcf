"""Inputs of other sizes: another batch, another sequence length, where these may vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

Axes = Mapping[str, Mapping[int, str]]
"""Input -> axis -> name of the dimension, of those that may vary."""

_MORE = 1
"""Rows that a batch gets."""

_FEWER = 2
"""By how much a sequence gets shorter; longer ones may be more than a tiny model has positions for."""


def other_sizes(inputs: Mapping[str, torch.Tensor], axes: Axes) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """What varies, in words, and the inputs: everything that may first, then less.

    Nothing is made up: longer axes repeat what is there. A batch varies only where every input has it; an image that
    belongs to a row by its number alone would not follow.
    """
    varying = {name: axes.get(name, {}) for name in inputs}
    batched = all("batch" in symbols.values() for symbols in varying.values())
    lengths = {symbol for symbols in varying.values() for symbol in symbols.values()} - {"batch"}
    every = {"batch", *lengths} if batched else lengths
    for chosen in dict.fromkeys(map(frozenset, [every, every & {"batch"}, lengths])):
        if chosen:
            yield " and ".join(sorted(chosen)), _resized(inputs, varying, chosen)


def _resized(inputs: Mapping[str, torch.Tensor], varying: Axes, chosen: frozenset[str]) -> dict[str, torch.Tensor]:
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
