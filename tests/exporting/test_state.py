"""An export leaves the model as it was, and the file holds the state from before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.record import record_of
from modelexport_passes.exporting.state import state_kept


class Counting(torch.nn.Module):
    """Writes its buffers in place."""

    step: torch.Tensor
    cache: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(3, 2))

    def forward(self, x: torch.Tensor) -> Any:
        self.step += 1
        self.cache.add_(x)
        return self.cache + self.step


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_an_export_leaves_buffers_and_random_numbers_as_they_were(exporter: Any) -> None:
    """To the bit, after the export and after torch's outputs were asked for."""
    net = Counting().eval()
    random = torch.get_rng_state()
    model = mx.export(net, (torch.ones(3, 2),), exporter=exporter)
    record = record_of(model)
    assert record is not None
    np.testing.assert_array_equal(record.outputs[0], np.full((3, 2), 2, np.float32))
    held = [model.graph.initializers[name].const_value for name in ("step", "cache")]
    assert all(tensor is not None and not tensor.numpy().any() for tensor in held)
    assert {name: value.sum().item() for name, value in net.state_dict().items()} == {"step": 0, "cache": 0}
    assert torch.equal(random, torch.get_rng_state())


def test_torch_runs_only_when_its_outputs_are_read_and_once() -> None:
    """No export by dynamo runs the model a second time; the outputs are those of the state before."""
    net = Counting().eval()
    model = mx.export(net, (torch.ones(3, 2),))
    record = record_of(model)
    assert record is not None
    calls: list[int] = []
    net.register_forward_hook(lambda *_: calls.append(1))
    assert calls == []
    for _ in range(2):
        np.testing.assert_array_equal(record.outputs[0], np.full((3, 2), 2, np.float32))
    assert calls == [1]


def test_an_export_by_dynamo_runs_torch_only_to_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that forward is called it is with tensors that have no values."""
    eager: list[bool] = []
    forward = Counting.forward

    def counted(self: Counting, x: torch.Tensor) -> Any:
        eager.append(type(x) is torch.Tensor)
        return forward(self, x)

    monkeypatch.setattr(Counting, "forward", counted)
    mx.export(Counting().eval(), (torch.ones(3, 2),))
    assert eager
    assert not any(eager)


def test_tensors_in_attributes_and_lists_and_written_through_data_are_given_back() -> None:
    """Whatever holds them, and also where torch counts no write; views of one memory together."""
    net: Any = torch.nn.Module()
    whole = torch.arange(4.0)
    net.plain, net.listed, net.named = whole, [whole[1:]], {"k": torch.full((2,), float("nan"))}
    with state_kept(net):
        net.plain.data.zero_()
        net.named["k"].zero_()
    assert net.listed[0].tolist() == [1, 2, 3]
    assert net.named["k"].isnan().all()


@pytest.mark.parametrize("opset", [26, 99])
def test_an_opset_that_cannot_be_had_is_an_error_that_says_the_range(opset: int) -> None:
    """Torch writes 18 then, with operators of 20, and says nothing."""
    with pytest.raises(mx.ModelExportError, match=rf"opset {opset} was asked for.*18 to 25"):
        mx.export(torch.nn.GELU(), (torch.ones(1),), opset=opset)
    assert mx.export(torch.nn.GELU(), (torch.ones(1),), opset=25).opset_imports[""] == 25
