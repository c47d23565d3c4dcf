"""One function for each distinct layer, in families for which tools that edit model files still make one per layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import modelexport_passes as mx
from modelexport_passes.exporting.record import record_of
from tests.round_trip import differences, round_trip

LAYERS = 4
_SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
_WIDE: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 48}
# The default way to run experts branches on data, which torch's exporter does not take.
_EXPERTS: dict[str, Any] = {**_WIDE, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertLayer", {**_SIZES, "intermediate_size": 48}),
    "codegen": (
        "CodeGenModel",
        "CodeGenBlock",
        {
            "vocab_size": 40,
            "n_embd": 32,
            "n_layer": LAYERS,
            "n_head": 4,
            "n_positions": 32,
            "n_ctx": 32,
            "rotary_dim": 4,
        },
    ),
    "gpt_oss": ("GptOssModel", "GptOssDecoderLayer", {**_EXPERTS, "sliding_window": 4}),
    "mixtral": ("MixtralModel", "MixtralDecoderLayer", _EXPERTS),
    "phi": ("PhiModel", "PhiDecoderLayer", {**_SIZES, "intermediate_size": 48}),
    "starcoder2": ("Starcoder2Model", "Starcoder2DecoderLayer", _WIDE),
}


@pytest.mark.parametrize("optimize", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("name", CASES)
def test_like_layers_are_one_function(name: str, optimize: bool) -> None:
    """Four layers of one kind are one function, called four times, and the model is still the same one."""
    model_class, layer, sizes = CASES[name]
    torch.manual_seed(0)
    kind = getattr(transformers, model_class)
    model = kind(kind.config_class(**sizes, pad_token_id=0)).eval()
    model.config.use_cache = False
    if hasattr(model.config, "num_local_experts"):
        model.config._experts_implementation = "batched_mm"
    ids = torch.arange(12).reshape(2, 6) % 40
    exported = mx.export(model, kwargs={"input_ids": ids}, optimize=optimize)
    record = record_of(exported)
    assert record is not None
    stages = round_trip(exported)
    nodes = [*stages.outlined.graph.node, *(node for function in stages.outlined.functions for node in function.node)]
    assert [function.name for function in stages.outlined.functions if function.name.startswith(layer)] == [layer]
    assert [node.op_type for node in nodes].count(layer) == LAYERS
    assert differences(stages.plain, stages.outlined, record.inputs) == []
    assert differences(stages.plain, stages.inlined, record.inputs) == []
