"""Constants that torch's optimizer makes and leaves out of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import modelexport_passes as mx
from modelexport_passes.builtin.optimizers import OnnxScriptOptimize
from modelexport_passes.exporting.lost_constants import register_lost_constants
from modelexport_passes.validation.session import open_session, run_session


class Clipping(torch.nn.Module):
    """Clips one value twice, by numbers that buffers hold."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds: Any
        self.register_buffer("bounds", torch.tensor([-1.0, 1.0, -0.5, 0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high, lower, higher = self.bounds
        x = x * 3
        return torch.clamp(x, low, high) + torch.clamp(x, lower, higher).exp()


def test_an_optimized_model_has_all_its_constants() -> None:
    """Each clip has its own bounds, and nothing is left to register."""
    module, x = Clipping().eval(), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    exported = mx.export(module, (x,), exporter="dynamo", optimize=True)
    assert register_lost_constants(exported) == 0
    (given,) = exported.graph.inputs
    (ours,) = run_session(open_session(exported), {str(given.name): x.numpy()})
    np.testing.assert_allclose(ours, module(x).numpy(), rtol=1e-6)


def test_onnxscripts_optimizer_as_a_step_leaves_all_constants() -> None:
    """It loses the same ones."""
    module, x = Clipping().eval(), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    optimized = OnnxScriptOptimize()(mx.export(module, (x,), exporter="dynamo")).model
    assert [node.op_type for node in optimized.graph].count("Clip") == 2
    (given,) = optimized.graph.inputs
    (ours,) = run_session(open_session(optimized), {str(given.name): x.numpy()})
    np.testing.assert_allclose(ours, module(x).numpy(), rtol=1e-6)
