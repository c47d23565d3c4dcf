"""Encoder-decoder models in parts: the encoder, the decoder's first run, and its later runs on its caches."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.huggingface.caches import cache_tensors, empty_cache, filled_cache
from modelexport_passes.exporting.huggingface.decoder import PAST, PRESENT
from modelexport_passes.exporting.huggingface.inputs import AXES, example_inputs
from modelexport_passes.exporting.huggingface.signature import Signature

_OWN, _CROSS = ".decoder", ".encoder"
"""Between a cache's layer and ``.key``: of the decoder's own tokens, and of what the encoder gave."""

_AXES = {
    "input_ids": {0: "batch", 1: "decoder_sequence"},
    "encoder_hidden_states": {0: "batch", 1: "encoder_sequence"},
    "encoder_attention_mask": {0: "batch", 1: "encoder_sequence"},
}


def seq2seq_part(model: torch.nn.Module, part: str, inputs: Mapping[str, torch.Tensor] | None) -> Signature:
    """One part of an encoder-decoder model.

    - ``encoder``: what the model reads -> ``last_hidden_state``;
    - ``decoder``: ``input_ids``, ``encoder_hidden_states``, ``encoder_attention_mask`` (for text) -> ``logits``,
      ``present.0.decoder.key``, ``present.0.encoder.key``, ...;
    - ``decoder-with-past``: ``input_ids``, ``encoder_attention_mask``, ``past_key_values.0.decoder.key``,
      ``past_key_values.0.encoder.key``, ... -> ``logits``, ``present.0.decoder.key``, ...

    Raises:
        ConfigError: there is no such part.
        ModelExportError: its cache is not keys and values.
    """
    makers: Mapping[str, Callable[[_Parts], Signature]] = {
        "encoder": _Parts.encoder,
        "decoder": _Parts.decoder,
        "decoder-with-past": _Parts.decoder_with_past,
    }
    if part not in makers:
        raise ConfigError(f"export_hf: part {part!r}; expected one of {', '.join(makers)}")
    return makers[part](_Parts(model, dict(inputs) if inputs is not None else example_inputs(model)))


class _Parts:
    """The parts of one model, with the inputs of the whole."""

    def __init__(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        self.model = cast("Any", model)
        self.tokens = inputs.pop("decoder_input_ids")
        self.read = inputs
        self.mask = inputs.get("attention_mask") if "input_ids" in inputs else None

    def encoder(self) -> Signature:
        encoder = self.model.get_encoder()

        def run(**tensors: torch.Tensor) -> Mapping[str, Any]:
            return encoder(**tensors, return_dict=True)

        return Signature(encoder, self.read, AXES, run)

    def decoder(self) -> Signature:
        given = {"input_ids": self.tokens, "encoder_hidden_states": self._hidden()} | self._masks()

        def run(**tensors: torch.Tensor) -> dict[str, Any]:
            hidden = tensors["encoder_hidden_states"]
            return self._decode(tensors, hidden, _both(empty_cache(), empty_cache()), (_OWN, _CROSS))

        return Signature(self.model, given, _AXES, run)

    def decoder_with_past(self) -> Signature:
        first = self.decoder()
        with torch.no_grad():
            present = first.run(**first.inputs)
        past = {name.replace(PRESENT, PAST): tensor for name, tensor in present.items() if name.startswith(PRESENT)}
        given = {"input_ids": self.tokens[:, :2]} | self._masks() | past
        axes: dict[str, dict[int, str]] = dict(_AXES)
        for name in past:
            axes[name] = {0: "batch", 2: "past_decoder_sequence" if f"{_OWN}." in name else "encoder_sequence"}
        width = first.inputs["encoder_hidden_states"].shape[-1]

        def run(**tensors: torch.Tensor) -> dict[str, Any]:
            own, cross = filled_cache(tensors, PAST, _OWN), filled_cache(tensors, PAST, _CROSS)
            # The model asks for the encoder's states and reads but their shape: what it needs of them is in the cache.
            shape = cross.layers[0].keys[:, 0, :, :1]
            return self._decode(tensors, shape.expand(-1, -1, width), _both(own, cross), (_OWN,))

        return Signature(self.model, given, axes, run)

    def _hidden(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model.get_encoder()(**self.read, return_dict=True).last_hidden_state

    def _masks(self) -> dict[str, torch.Tensor]:
        return {} if self.mask is None else {"encoder_attention_mask": self.mask}

    def _decode(
        self, tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor, cache: Any, kept: tuple[str, ...]
    ) -> dict[str, Any]:
        outputs = importlib.import_module("transformers.modeling_outputs").BaseModelOutput(last_hidden_state=hidden)
        masks = {"attention_mask": tensors["encoder_attention_mask"]} if self.mask is not None else {}
        result = self.model(
            decoder_input_ids=tensors["input_ids"],
            encoder_outputs=outputs,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
            **masks,
        )
        caches = {_OWN: cache.self_attention_cache, _CROSS: cache.cross_attention_cache}
        given = {name: value for name, value in result.items() if name in ("logits", "last_hidden_state")}
        for middle in kept:
            given |= dict(cache_tensors(caches[middle], PRESENT, middle))
        return given


def _both(own: Any, cross: Any) -> Any:
    return importlib.import_module("transformers.cache_utils").EncoderDecoderCache(own, cross)
