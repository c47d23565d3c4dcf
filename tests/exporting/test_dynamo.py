"""Scopes that dynamo's exporter would lose."""

from __future__ import annotations

import torch

import modelexport_passes as mx


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


class _HalfFrozen(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = _Block()
        self.trained = _Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.frozen(x)
        return self.trained(x)


def test_what_runs_without_gradients_keeps_its_modules() -> None:
    """Modules called under ``torch.no_grad()`` own their operations as any others do."""
    model = mx.export(_HalfFrozen().eval(), (torch.randn(2, 4),))
    scopes = [mx.scope_of(node) for node in model.graph]
    assert [scope.path for scope in scopes if scope] == ["frozen.linear", "frozen", "trained.linear", "trained"]
