"""Weights that two modules share, and what names cannot tell."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import modelexport_passes as mx
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.reference import scopes_from_reference
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope


class _Stack(nn.Module):
    def __init__(self, layer: nn.Module, *, noisy: bool) -> None:
        super().__init__()
        self.layer, self.last, self.noisy = layer, nn.Linear(4, 4), noisy

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh()
        return self.last(x.sin() if self.noisy else x)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Stack(nn.Linear(4, 4), noisy=False)
        self.decoder = _Stack(nn.Linear(4, 4), noisy=True)
        self.decoder.layer.weight, self.decoder.layer.bias = self.encoder.layer.weight, self.encoder.layer.bias
        self.decoder.last.weight, self.decoder.last.bias = self.encoder.last.weight, self.encoder.last.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x) + 1.0)


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.own = nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.inner(x).tanh())


class _TiedItems(nn.Module):
    """The second item of a list has the inner weight of the first one, too large for equal copies to be merged."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Scaled(), _Scaled()])
        layers = [layer for layer in self.layers if isinstance(layer, _Scaled)]
        layers[1].inner.weight = layers[0].inner.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _calls(model: ir.Model) -> dict[str | None, tuple[Frame, ...] | None]:
    return {node.name: scope.frames if (scope := mx.scope_of(node)) else None for node in model.graph}


def _forgotten(model: ir.Model) -> None:
    for count, node in enumerate(model.graph):
        node.name = f"node_{count}"
        node.metadata_props.clear()
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.name = f"value_{count}"


def test_modules_that_share_all_weights_are_not_taken_for_one_that_runs_twice() -> None:
    """The parameters have one owner by name: both are known only as far as their caller."""
    model = mx.export(_Tied().eval(), (torch.randn(2, 4),), exporter="dynamo")
    _forgotten(model)
    recover(model, source="parameter")
    assert {scope.path for node in model.graph if (scope := mx.scope_of(node))} == {""}


@pytest.mark.parametrize("optimize", [False, True])
def test_a_tied_weight_that_was_folded_for_each_reader_tells_no_module(optimize: bool) -> None:
    """The optimizer transposes it once for each layer, and each copy is folded from the weight of the same name."""
    model = mx.export(_TiedItems().eval(), (torch.randn(2, 3, 40),), exporter="dynamo", optimize=optimize)
    told = _calls(model)
    assert None not in told.values()
    for node in model.graph:
        set_scope(node, None)
    result = mx.RecoverScopes()(model)
    assert isinstance(result, mx.Outcome)
    assert _calls(model) == told
    assert result.figures["conflicts"] == 0


def test_a_reference_is_followed_along_the_wires() -> None:
    """Two operations of one kind stand between the same weights; which is left is told by what takes its value."""
    header = '<ir_version: 10, opset_import: ["": 20]>'
    reference = ir.from_onnx_text(
        f"{header} g (float[2,4] x) => (float[2,4] z) {{ a = Tanh(x) b = Relu(a) c = Sin(b) d = Relu(c) z = Cos(d) }}"
    )
    file = ir.from_onnx_text(f"{header} g (float[2,4] x) => (float[2,4] z) {{ q = Relu(x) z = Cos(q) }}")
    for place, node in enumerate(reference.graph):
        frames = (Frame("", "Net"), Frame(f"layer{place}", "Layer"))
        set_scope(node, Scope(frames, Source.EXPORT))
    found = scopes_from_reference(file.graph, reference.graph)
    assert [found[node].path for node in file.graph] == ["layer3", "layer4"]
