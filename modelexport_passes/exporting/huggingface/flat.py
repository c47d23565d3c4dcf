"""Named tensors in, a tuple of named tensors out: the form of a Hugging Face model that every exporter takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch

Run = Callable[..., Mapping[str, Any]]
"""Takes tensors by name, gives outputs by name; they may be nested."""


class Flat(torch.nn.Module):
    """A module around a model, made for export only: the model is ``model``, the root of all scopes.

    Args:
        model: the model.
        names: names of the inputs, in order.
        run: runs the model.
    """

    def __init__(self, model: torch.nn.Module, names: Sequence[str], run: Run) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

        def forward(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            results = run(**dict(zip(names, tensors, strict=True)))
            return tuple(_each_its_own([*tensors], [tensor for _, tensor in named_tensors(results)]))

        parameters = [inspect.Parameter(_identifier(name), inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        # torch.export and the TorchScript exporter read the names of inputs from the signature.
        vars(forward)["__signature__"] = inspect.Signature(parameters)
        self.forward = forward


def _each_its_own(inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The outputs, copied where one is an input or another output: a value of a graph has one name."""
    seen = {id(tensor) for tensor in inputs}
    for tensor in outputs:
        yield tensor.clone() if id(tensor) in seen else tensor
        seen.add(id(tensor))


def by_argument(shapes: Mapping[str, Mapping[int, str]], names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Dynamic axes by input name -> the same by argument of `Flat`'s forward, one for each."""
    return {_identifier(name): dict(shapes.get(name, {})) for name in names}


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model's output with its name: ``logits``, ``hidden_states.0``, ``vision_model_output.pooler``.

    What is no tensor and holds none is skipped.
    """
    if isinstance(value, torch.Tensor):
        yield name or "output", value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from named_tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield from named_tensors(item, f"{name}.{index}" if name else f"output.{index}")


def _identifier(name: str) -> str:
    return name.replace(".", "_")
