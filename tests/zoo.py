"""Tiny Hugging Face models, rebuilt from data without network: real architectures with weights that tell errors apart.

``tests/data/hf_models.jsonl`` holds one case a line: model class, configuration, inputs. The weights are random, but no
two parameters are equal and outputs are of order one, so a swapped weight or a lost layer changes the result visibly.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).with_name("data") / "hf_models.jsonl"

CORE = ("bert", "llama", "gpt2", "vit", "t5")
"""The architectures that the whole pipeline is proven on, with and without the exporter's optimizer."""


@dataclass(frozen=True)
class ZooCase:
    """One architecture: what to build and what to feed it.

    Attributes:
        arch: short name (``bert``), unique in the file.
        model_class: name in ``transformers``.
        config_class: name in ``transformers``.
        config: the configuration as ``to_dict`` gave it.
        inputs: per input name its ``shape`` and ``dtype``, with ``values`` or ``fill``; standard normal otherwise.
    """

    arch: str
    model_class: str
    config_class: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, Any]]


def zoo_cases(archs: tuple[str, ...] | None = None) -> list[ZooCase]:
    """The cases of the data file in file order, or those named.

    Raises:
        KeyError: an architecture is not in the file.
    """
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    cases = {row["arch"]: ZooCase(**row) for row in rows}
    return [cases[arch] for arch in (archs or cases)]


def build(case: ZooCase, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model in eval mode with weights of its own, and its inputs by name."""
    import transformers

    config = getattr(transformers, case.config_class).from_dict(copy.deepcopy(case.config))
    for part in [config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))]:
        part._attn_implementation = "eager"
        part._experts_implementation = "batched_mm"  # the default experts kernel has no ONNX translation
        if hasattr(part, "use_cache"):
            part.use_cache = False
    torch.manual_seed(seed)
    model = getattr(transformers, case.model_class)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    randomise(model, generator)
    return model, {name: _tensor(spec, generator) for name, spec in case.inputs.items()}


class TensorsOut(nn.Module):
    """Named tensors in, tuple of tensors out: the form that the TorchScript exporter takes. The model is ``model``."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Every tensor of the model's output, depth first."""
        return tuple(tensors(self.model(**dict(zip(self.names, args, strict=True)))))


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor of a nested output, depth first; what is no tensor and no container is skipped."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter and every running statistic values of its own, at a scale that keeps activations near one.

    Matrices get variance 1 / fan-in, kernels twice that (a ReLU follows), norms a weight near one. Other vectors and
    state-space logarithms keep what the architecture put there (zeros in a bias, slopes) and are shaken around it.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if parameter.ndim >= 2 and not name.endswith("A_log"):
                gain = 1.0 if parameter.ndim == 2 else 2.0
                fan_in = max(parameter.shape[1:].numel(), 1)  # there may be none, as of no register tokens
                parameter.copy_(noise * (gain / fan_in) ** 0.5)
            elif name.endswith("weight"):
                parameter.copy_(1.0 + 0.1 * noise)
            else:
                parameter.add_(0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def _tensor(spec: dict[str, Any], generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec["dtype"])
    if "fill" in spec:
        return torch.full(spec["shape"], spec["fill"], dtype=dtype)
    if "values" in spec:
        return torch.tensor(spec["values"], dtype=dtype).reshape(spec["shape"])
    return torch.randn(spec["shape"], generator=generator, dtype=torch.float32).to(dtype)
