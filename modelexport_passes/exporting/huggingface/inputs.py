"""Example inputs of a Hugging Face model, made from its configuration and the signature of its forward."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from modelexport_passes.errors import ConfigError, MissingDependencyError

BATCH, SEQUENCE = 2, 7
"""Sizes of the example; unlike each other, so that an exporter does not take one for the other."""

AXES: Mapping[str, dict[int, str]] = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "sequence"},
    "token_type_ids": {0: "batch", 1: "sequence"},
    "position_ids": {0: "batch", 1: "sequence"},
    "bbox": {0: "batch", 1: "sequence"},
    "decoder_input_ids": {0: "batch", 1: "decoder_sequence"},
    "decoder_attention_mask": {0: "batch", 1: "decoder_sequence"},
    "pixel_values": {0: "batch"},
    "pixel_mask": {0: "batch"},
    "input_features": {0: "batch"},
    "input_values": {0: "batch"},
}
"""Input -> axis -> name, of those that may vary."""


def example_inputs(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs that the model's forward takes, by name: the modalities that its configuration has.

    Deterministic. What a model needs besides is not guessed.

    Raises:
        ConfigError: nothing is known to make for this model.
    """
    config: Any = model.config
    takes = inspect.signature(model.forward).parameters
    main = str(getattr(model, "main_input_name", "input_ids"))
    generator = torch.Generator().manual_seed(seed)
    wanted = [main]
    if main in ("input_ids", "pixel_values") and hasattr(config, "vision_config") and hasattr(config, "text_config"):
        wanted = [name for name in ("input_ids", "pixel_values") if name in takes]
    if "input_ids" in wanted:
        wanted += [name for name in ("attention_mask", "token_type_ids", "bbox") if name in takes]
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        wanted.append("decoder_input_ids")
    if not getattr(config, "type_vocab_size", 0):
        wanted = [name for name in wanted if name != "token_type_ids"]
    unknown = [name for name in wanted if name not in _MAKERS]
    if unknown:
        raise ConfigError(
            f"export_hf: nothing is known to make for {unknown} of {type(model).__name__}; give inputs={{name: tensor}}"
        )
    dtype = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    made = {name: _MAKERS[name](config, generator) for name in wanted}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in made.items()}


def _tokens(config: Any, generator: torch.Generator) -> torch.Tensor:
    text = _part(config, "text_config")
    low = min(3, text.vocab_size - 1)  # behind what is commonly padding, start and end
    return torch.randint(low, text.vocab_size, (BATCH, SEQUENCE), generator=generator)


def _ones(_config: Any, _generator: torch.Generator) -> torch.Tensor:
    return torch.ones(BATCH, SEQUENCE, dtype=torch.int64)


def _zeros(_config: Any, _generator: torch.Generator) -> torch.Tensor:
    return torch.zeros(BATCH, SEQUENCE, dtype=torch.int64)


def _boxes(_config: Any, _generator: torch.Generator) -> torch.Tensor:
    return torch.tensor([1, 2, 3, 4]).expand(BATCH, SEQUENCE, 4).clone()


def _image(config: Any, generator: torch.Generator) -> torch.Tensor:
    vision = _part(config, "vision_config")
    size: Any = getattr(vision, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(BATCH, getattr(vision, "num_channels", None) or 3, height, width, generator=generator)


def _sound(config: Any, generator: torch.Generator) -> torch.Tensor:
    """A second of samples, or of a spectrogram where the model takes one under this name."""
    audio = _part(config, "audio_config")
    if hasattr(audio, "num_mel_bins") and hasattr(audio, "max_length"):
        return torch.randn(BATCH, audio.max_length, audio.num_mel_bins, generator=generator)
    return torch.randn(BATCH, 16000, generator=generator)


def _spectrogram(config: Any, generator: torch.Generator) -> torch.Tensor:
    audio = _part(config, "audio_config")
    frames = 2 * getattr(audio, "max_source_positions", 500)
    return torch.randn(BATCH, getattr(audio, "num_mel_bins", 80), frames, generator=generator)


def _part(config: Any, name: str) -> Any:
    return getattr(config, name, None) or config


_MAKERS: Mapping[str, Callable[[Any, torch.Generator], torch.Tensor]] = {
    "attention_mask": _ones,
    "bbox": _boxes,
    "decoder_input_ids": _tokens,
    "input_features": _spectrogram,
    "input_ids": _tokens,
    "input_values": _sound,
    "pixel_values": _image,
    "token_type_ids": _zeros,
}


def prepared(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The inputs with what transformers can compute from them ahead: positions and lengths of images and sounds.

    A model computes these with loops over the data, which exporters cannot follow; given them, it does not.

    Returns:
        tensors, and what is no tensor (sizes of images as numbers) and is fixed in the graph.

    Raises:
        MissingDependencyError: the installed transformers cannot.
    """
    try:
        utils = importlib.import_module("transformers.exporters.utils")
        precompute = utils.precompute_export_inputs
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(f"export_hf: transformers prepares no inputs: {error}; 5.23 does") from error
    more: dict[str, Any] = dict(inputs)
    with torch.no_grad():
        precompute(model, more)
    tensors = {name: value for name, value in more.items() if isinstance(value, torch.Tensor)}
    return tensors, {name: value for name, value in more.items() if name not in tensors}
