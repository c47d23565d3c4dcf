"""Modules that names of TorchScript's exporter do not tell, and the recorded calls of the trace do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import modelexport_passes as mx


class Head(nn.Module):
    """Never called itself: only its methods are."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(2)
        self.act = nn.ReLU()

    def pooled(self, x: Tensor) -> Tensor:
        """Calls what the head holds."""
        return self.act(self.pool(x))


class Heads(nn.Module):
    """A module, and two modules of its name in parents that are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Head(), Head()
        self.pool = nn.AvgPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Calls through methods, the later head first."""
        return self.first.pooled(self.second.pooled(self.pool(x))) + self.first.act(x[..., :1])


class Reused(nn.Module):
    """A module that a Sequential holds as well, beside another of its name."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.ModuleDict({"act": nn.Tanh()})
        self.act = nn.ReLU()
        self.net = nn.Sequential(nn.Linear(8, 8), self.act)

    def forward(self, x: Tensor) -> Tensor:
        """Calls it from both places."""
        return self.net(self.act(self.other["act"](x)))


def _calls(module: nn.Module) -> dict[str, str]:
    model = mx.export(module.eval(), (torch.randn(2, 4, 8),), exporter="torchscript")
    scopes = {str(node.name).rpartition("/")[0]: mx.scope_of(node) for node in model.graph}
    assert all(scope is not None and scope.source.exact for scope in scopes.values())
    return {name: " > ".join(map(str, scope.frames[1:])) for name, scope in scopes.items() if scope and name}


def test_modules_of_parents_that_are_not_called_are_told_by_the_trace() -> None:
    """`/pool_1` is a call of the second head's pool, not another of the root's, and is exact."""
    calls = _calls(Heads())
    assert calls["/pool"] == "pool"
    assert calls["/pool_1"] == "second.pool"
    assert calls["/act"] == "second.act"
    assert calls["/pool_2"] == "first.pool"
    assert [calls["/act_1"], calls["/act_2"]] == ["first.act", "first.act@1"]


def test_a_module_that_is_held_twice_is_told_by_the_trace() -> None:
    """Its caller is no part of its path: `/net/act` is the second call of the root's `act`."""
    calls = _calls(Reused())
    assert calls["/act"] == "other.act"
    assert calls["/act_1"] == "act"
    assert calls["/net/act"] == "net > act@1"
