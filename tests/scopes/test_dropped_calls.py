"""Calls that left no operation in a file: later calls of their module keep their numbers, or are not called exact."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import modelexport_passes as mx
from modelexport_passes.scopes.calls import Call
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.torch_metadata import NAME_SCOPES
from modelexport_passes.scopes.traced_calls import TracedCall, numbers_by_trace


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).sin() + x.cos()


class _Wasteful(nn.Module):
    """Uses the results of the first and the fourth call only."""

    def __init__(self) -> None:
        super().__init__()
        self.block = _Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x).exp()
        self.block(x)
        self.block(x)
        return self.block(x * 2)


class _Late(nn.Module):
    """Uses the result of the second call only, of a module of one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x)
        return self.norm(x + 1).exp()


class _Elsewhere(nn.Module):
    """Between two layers runs a third one whose result nothing uses; behind them, a block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.block = _Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.unused(x)
        return self.block(self.second(x))


class _Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.sin())


class _Reaching(nn.Module):
    """Calls a module that another one holds, twice, and uses the first result only; the holder calls it later."""

    def __init__(self) -> None:
        super().__init__()
        self.holder, self.norm = _Holder(), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.holder.norm(x)
        self.holder.norm(x)
        return self.holder(self.norm(x))


class _Pooled(nn.Module):
    """Normalizes its result, which it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        self.norm(x)
        return x.sin()


class _Repeating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pooled = _Pooled()

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled.norm(self.pooled(x))


class _Thrifty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = _Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x).exp())


def export(model: nn.Module, exporter: str) -> ir.Model:
    return mx.export(model.eval(), (torch.randn(2, 4),), exporter=exporter)  # pyright: ignore[reportArgumentType]


def alone(model: ir.Model) -> ir.Model:
    """Recovered from the file and nothing else."""
    for node in model.graph:
        node.metadata_props.pop(SCOPE_KEY, None)
    recover(model)
    return model


def calls(model: ir.Model, path: str) -> dict[tuple[int, bool], int]:
    """(call, exact) -> operations in these calls of a module."""
    found: dict[tuple[int, bool], int] = {}
    for node in model.graph:
        scope = mx.scope_of(node)
        for frame in () if scope is None else scope.frames:
            if frame.path == path:
                assert scope is not None
                found[frame.call, scope.source.exact] = found.get((frame.call, scope.source.exact), 0) + 1
    return found


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_export_knows_the_number_of_each_call(exporter: str) -> None:
    """Two calls between the two that left operations are counted."""
    assert set(calls(export(_Wasteful(), exporter), "block")) == {(0, True), (3, True)}


def test_missing_numbers_of_fx_nodes_tell_how_many_calls_are_missing() -> None:
    """A file alone: the later call is the fourth, and that is concluded."""
    assert set(calls(alone(export(_Wasteful(), "dynamo")), "block")) == {(0, True), (3, False)}


def test_constants_that_a_missing_call_left_are_not_its_successors_own() -> None:
    """An exporter keeps one of equal constants, the first: it may be of a call of which nothing else is left."""
    model = export(_Wasteful(), "dynamo")
    first = next(node for node in model.graph if node.name == "node_linear_3")
    for node in list(model.graph):
        if node.op_type in ("Sin", "Cos", "Add") and str(node.name).endswith("_3"):
            left = ir.Node("", "Constant", [], [ir.AttrFloat32("value_float", 1.0)], name=f"left_{node.name}")
            left.metadata_props.update(node.metadata_props)
            left.metadata_props[NAME_SCOPES] = left.metadata_props[NAME_SCOPES].replace("_3']", "_1']")
            model.graph.insert_before(first, [left])
    assert set(calls(alone(model), "block")) == {(0, True), (3, False)}


def test_a_missing_number_may_be_anything_of_its_kind() -> None:
    """One kind of node does not tell whose call is missing: the number stays, and is not called exact."""
    assert set(calls(alone(export(_Late(), "dynamo")), "norm")) == {(0, False)}


def test_a_module_is_not_called_before_its_caller_runs() -> None:
    """The missing number may be an earlier call of the second layer, but not of the layer in the block behind it."""
    model = alone(export(_Elsewhere(), "dynamo"))
    assert {path: set(calls(model, path)) for path in ("first", "second", "block.linear")} == {
        "first": {(0, True)},
        "second": {(0, False)},
        "block.linear": {(0, True)},
    }


def test_a_module_that_others_call_as_well_may_have_been_called_at_any_time() -> None:
    """Its holder was not running where a number is missing; but that is not its only caller."""
    assert set(calls(alone(export(_Reaching(), "dynamo")), "holder.norm")) == {(0, True), (1, False)}


def test_who_calls_what_another_module_holds_comes_behind_that_ones_own_call() -> None:
    """A number of the norm's kind is missing where the module that holds the norm ran."""
    assert set(calls(alone(export(_Repeating(), "dynamo")), "pooled.norm")) == {(1, False)}


def test_without_missing_numbers_calls_stay_exact() -> None:
    """A module that simply runs twice."""
    assert set(calls(alone(export(_Thrifty(), "dynamo")), "block")) == {(0, True), (1, True)}


def test_recording_the_calls_changes_no_name() -> None:
    """Torch names values after Python's variables: the file is the one that torch writes."""
    model = _Wasteful().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, (torch.randn(2, 4),), path, input_names=["x"], dynamo=False)
        theirs = onnx.load(path)
    ours = ir.to_proto(export(model, "torchscript"))
    assert [list(node.output) for node in ours.graph.node] == [list(node.output) for node in theirs.graph.node]


def test_calls_that_fit_a_run_in_several_ways_are_concluded() -> None:
    """One of two calls in a row is left: which one, nothing tells; the one between two others is certain."""
    root = Call("", None, events=[0, 1, 2])
    root.children = [Call(key, root, events=[place]) for place, key in enumerate("aba")]
    paths = {call: call.key for call in root.walk()}
    made = [TracedCall("a", 0), TracedCall("a", 1), TracedCall("b"), TracedCall("a", 2)]
    numbers = numbers_by_trace(root, paths, TracedCall("", made=made))
    assert [(numbers[call], call.concluded) for call in root.children] == [(0, True), (0, False), (2, False)]


def test_a_call_whose_result_nothing_uses_is_not_the_one_that_is_left() -> None:
    """The other one is."""
    root = Call("", None, events=[0])
    child = Call("a", root, events=[0])
    root.children = [child]
    made = [TracedCall("a", 0, used=False), TracedCall("a", 1)]
    assert numbers_by_trace(root, {child: "a"}, TracedCall("", made=made)) == {child: 1}
    assert not child.concluded


def test_calls_that_are_not_of_the_run_keep_the_numbers_of_their_names() -> None:
    """A run that does not fit tells nothing."""
    root = Call("", None, events=[0])
    root.children = [Call("a", root, events=[0])]
    assert not numbers_by_trace(root, {root.children[0]: "a"}, TracedCall("", made=[TracedCall("b")]))
