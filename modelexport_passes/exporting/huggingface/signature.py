"""What a Hugging Face model is exported as: inputs, what may vary, and how it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from modelexport_passes.exporting.huggingface.flat import Run
from modelexport_passes.exporting.state import state_kept


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

    def with_second_row(self) -> Signature:
        """The same with each input's only row twice: torch takes a size of 1 for one that stays 1.

        Unchanged where there are more rows, an input has none, or the model does not take two.
        """
        rows = {
            name: next((axis for axis, symbol in self.axes.get(name, {}).items() if symbol == "batch"), None)
            for name in self.inputs
        }
        doubled = {
            name: tensor.repeat_interleave(2, dim=axis)
            for name, tensor in self.inputs.items()
            if (axis := rows[name]) is not None and tensor.shape[axis] == 1
        }
        if doubled.keys() != self.inputs.keys():
            return self
        try:
            with torch.no_grad(), state_kept(self.model):
                self.run(**{name: tensor.clone() for name, tensor in doubled.items()})
        # The model's own code runs here, and may raise anything.
        except Exception:  # noqa: BLE001
            return self
        return dataclasses.replace(self, inputs=doubled)
