"""Calls that an exporter merged into an equal call of an earlier module: later calls keep their numbers."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import modelexport_passes as mx
from modelexport_passes.scopes.scope import SCOPE_KEY


class _Residual(nn.Module):
    """As in a U-Net: one activation, for the features twice, and between for the embedding of time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.time, self.act = (*(nn.Linear(4, 4) for _ in range(3)), nn.SiLU())

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(self.act(x)) + self.time(self.act(time))
        return x + self.conv2(self.act(h))


class _Stage(nn.Module):
    """Holds blocks; it is not called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Residual(), _Residual()])


class _UNet(nn.Module):
    """Two lists of one name in different places, the second beside a block that takes another time."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = _Stage(), _Stage()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for number, block in enumerate((*self.down.blocks, *self.up.blocks)):
            x = block(x, time if number < 3 else time.sin())
        return x


@functools.cache
def _file(exporter: Literal["torchscript", "dynamo"]) -> onnx.ModelProto:
    torch.manual_seed(0)
    args = (torch.randn(2, 4), torch.randn(2, 4))
    if exporter == "torchscript":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            torch.onnx.export(_UNet().eval(), args, path, dynamo=False)
            return onnx.load(path)
    model = mx.export(_UNet().eval(), args, optimize=True)
    for node in model.graph:
        del node.metadata_props[SCOPE_KEY]
    return ir.to_proto(model)


def _recovered(exporter: Literal["torchscript", "dynamo"]) -> dict[str, list[tuple[str, bool]]]:
    """Path of an activation -> its calls that have operations, in order, and whether each is exact."""
    model = ir.from_proto(_file(exporter))
    mx.RecoverScopes()(model)
    found: dict[str, list[tuple[str, bool]]] = {}
    for node in model.graph:
        scope = mx.scope_of(node)
        if scope is not None and node.op_type == "Sigmoid":
            found.setdefault(scope.path, []).append((str(scope.frames[-1]), scope.source.exact))
    return found


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_call_that_was_merged_into_an_earlier_modules_is_counted(exporter: Literal["torchscript", "dynamo"]) -> None:
    """The activation of the embedding is made in the first block alone: the third call of the others is the third."""
    found = _recovered(exporter)
    act = "down.blocks.0.act"
    assert [call for call, _ in found[act]] == [act, f"{act}@1", f"{act}@2"]
    for act in ("down.blocks.1.act", "up.blocks.0.act"):
        assert [call for call, _ in found[act]] == [act, f"{act}@2"]
        assert not found[act][1][1]  # concluded


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_block_that_made_all_its_calls_is_left_alone(exporter: Literal["torchscript", "dynamo"]) -> None:
    """It reads nothing that the first block's activation made of the embedding."""
    act = "up.blocks.1.act"
    assert [call for call, _ in _recovered(exporter)[act]] == [act, f"{act}@1", f"{act}@2"]
