"""Decoders with a key-value cache: one graph for the first run (a past of length 0) and for every later one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from modelexport_passes.exporting.huggingface.caches import cache_tensors, empty_cache, filled_cache
from modelexport_passes.exporting.huggingface.inputs import example_inputs
from modelexport_passes.exporting.huggingface.signature import Signature

PAST, PRESENT = "past_key_values", "present"

_PAST_LENGTH = 5
"""Of the example: unlike its other sizes."""

_AXES = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "past_sequence + sequence"},
    "position_ids": {0: "batch", 1: "sequence"},
}


def cached_decoder(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor] | None) -> Signature:
    """``input_ids``, ``attention_mask``, ``position_ids``, ``past_key_values.*`` -> ``logits``, ``present.*``.

    Raises:
        ModelExportError: its cache is not keys and values.
    """
    given = dict(inputs) if inputs is not None else example_inputs(model)
    tokens = given["input_ids"]
    takes = inspect.signature(model.forward).parameters
    batch, sequence = tokens.shape
    made = {"input_ids": tokens, "attention_mask": torch.ones(batch, _PAST_LENGTH + sequence, dtype=torch.int64)}
    if "position_ids" in takes:
        made["position_ids"] = torch.arange(_PAST_LENGTH, _PAST_LENGTH + sequence).expand(batch, sequence).clone()
    past = dict(cache_tensors(_run_once(model, tokens), PAST))
    axes = {**_AXES, **{name: {0: "batch", 2: "past_sequence"} for name in past}}

    def run(**tensors: torch.Tensor) -> dict[str, Any]:
        plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(PAST)}
        cache = filled_cache(tensors, PAST)
        result: Mapping[str, Any] = model(**plain, past_key_values=cache, use_cache=True, return_dict=True)
        given = {name: value for name, value in result.items() if name != "past_key_values"}
        return given | dict(cache_tensors(cache, PRESENT))

    return Signature(model, made | past, axes, run)


def _run_once(model: torch.nn.Module, tokens: torch.Tensor) -> Any:
    """The cache after some tokens: real keys and values, for layers of whatever shape."""
    prompt = tokens[:, :1].expand(-1, _PAST_LENGTH)
    with torch.no_grad():
        result = model(input_ids=prompt, past_key_values=empty_cache(), use_cache=True, return_dict=True)
    return result.past_key_values
