"""Complex numbers with axes added, as rotary embeddings of Llama 4 have them."""

from __future__ import annotations

import numpy as np
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.complex_axes import add_complex_axes_by_stack
from modelexport_passes.exporting.record import record_of
from modelexport_passes.validation.session import open_session, run_session


class Rotating(torch.nn.Module):
    """Turns pairs of numbers by angles that are the same for all heads."""

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        turns = torch.polar(torch.ones_like(angles), angles)
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns[:, :, None, :]).flatten(3)


class Widening(torch.nn.Module):
    """Adds an axis to a real tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, None]


def rotating() -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return Rotating(), (torch.randn(2, 5, 3, 4, generator=generator), torch.rand(2, 5, 2, generator=generator))


def test_a_complex_tensor_may_get_an_axis() -> None:
    """The plain way stops there; the next one writes the axis in words that torch's exporter knows."""
    module, args = rotating()
    exported = mx.export(module, args, exporter="auto")
    record = record_of(exported)
    assert record is not None
    assert record.exporter == "dynamo+example"
    inputs = {str(value.name): tensor.numpy() for value, tensor in zip(exported.graph.inputs, args, strict=True)}
    (ours,) = run_session(open_session(exported), inputs)
    np.testing.assert_allclose(ours, module(*args).numpy(), atol=1e-6)


def test_axes_of_real_tensors_stay_as_they_are() -> None:
    """And what was written anew is not written again."""
    module, args = rotating()
    program = torch.export.export(module, args, strict=False)
    assert add_complex_axes_by_stack(program)
    assert not add_complex_axes_by_stack(program)
    torch.testing.assert_close(program.module()(*args), module(*args))
    real = torch.export.export(Widening(), (torch.ones(2, 3),), strict=False)
    assert not add_complex_axes_by_stack(real)
