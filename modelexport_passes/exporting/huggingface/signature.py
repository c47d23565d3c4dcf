"""What a Hugging Face model is exported as: inputs, what may vary, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from modelexport_passes.exporting.huggingface.flat import Run


@dataclass(frozen=True)
class Signature:
    """A model with one way to call it.

    Attributes:
        model: the module that is the root of all scopes.
        inputs: example inputs, by name.
        axes: input -> axis -> name of the dimension, of those that may vary.
        run: runs the model on tensors by name, gives outputs by name.
        may_be_fixed: axes that may vary may also be left as they are in the example, where the model's code loops over
            them; not those of a cache, which would be of no use.
    """

    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    axes: Mapping[str, dict[int, str]]
    run: Run
    may_be_fixed: bool = False
