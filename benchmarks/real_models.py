"""Models of real size from configurations, with random weights: nothing is downloaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class RealModel:
    """How one model is built.

    Attributes:
        config: class of the configuration.
        model: class of the model.
        inputs: names of the example's inputs: ``tokens``, ``image``, or both.
        options: of the configuration.
        dtype: of the weights.
    """

    config: str
    model: str
    inputs: tuple[str, ...] = ("input_ids",)
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    dtype: torch.dtype = torch.float32

    def build(self) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        """The model in evaluation mode, and its example inputs by name."""
        config = getattr(transformers, self.config)(**self.options)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        torch.manual_seed(0)
        model = getattr(transformers, self.model)(config).to(self.dtype).eval()
        if self.options.get("num_local_experts"):
            model.set_experts_implementation("batched_mm")  # the default kernel has no ONNX translation
        return model, {name: _INPUTS[name](self.dtype) for name in self.inputs}


_INPUTS: dict[str, Callable[[torch.dtype], torch.Tensor]] = {
    "input_ids": lambda _: torch.arange(1, 17).reshape(1, 16),
    "attention_mask": lambda _: torch.ones(1, 16, dtype=torch.long),
    "decoder_input_ids": lambda _: torch.arange(1, 9).reshape(1, 8),
    "pixel_values": lambda dtype: torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224).to(dtype),
}


class _Unet:
    """A diffusion UNet with two of its four levels, so that it fits; needs the extra ``bench``."""

    def build(self) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        diffusers: Any = importlib.import_module("diffusers")
        torch.manual_seed(0)
        model = diffusers.UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(320, 640),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=768,
        ).eval()
        inputs = {
            "sample": torch.linspace(-1, 1, 4 * 32 * 32).reshape(1, 4, 32, 32),
            "timestep": torch.tensor([10]),
            "encoder_hidden_states": torch.linspace(-1, 1, 77 * 768).reshape(1, 77, 768),
        }
        return model, inputs


_LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
_QWEN_05B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_EXPERTS = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "num_experts_per_tok": 2,
    "vocab_size": 8192,
}

MODELS: dict[str, RealModel | _Unet] = {
    "gpt2": RealModel("GPT2Config", "GPT2LMHeadModel"),
    "bert": RealModel("BertConfig", "BertModel", ("input_ids", "attention_mask")),
    "vit": RealModel("ViTConfig", "ViTModel", ("pixel_values",)),
    "clip": RealModel("CLIPConfig", "CLIPModel", ("input_ids", "pixel_values", "attention_mask")),
    "t5": RealModel(
        "T5Config",
        "T5Model",
        ("input_ids", "decoder_input_ids"),
        # Of its default attention torch.onnx.export makes a view that the strides do not allow.
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "attn_implementation": "eager"},
    ),
    "convnext": RealModel("ConvNextConfig", "ConvNextModel", ("pixel_values",)),
    "resnet50": RealModel("ResNetConfig", "ResNetModel", ("pixel_values",)),
    "qwen": RealModel("Qwen2Config", "Qwen2ForCausalLM", options=_QWEN_05B),
    "llama": RealModel("LlamaConfig", "LlamaForCausalLM", options=_LLAMA_1B, dtype=torch.float16),
    "experts": RealModel("MixtralConfig", "MixtralForCausalLM", options=_EXPERTS),
    "unet": _Unet(),
}
"""Name on the command line -> how it is built."""
