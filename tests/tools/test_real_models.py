"""Real models through real tools: BERT, Llama, ViT and RegNet."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.builtin.quantizers import QuantizeStatic
from modelexport_passes.scopes.origins import origins_of
from modelexport_passes.scopes.walk import owned_nodes
from tests.tools.carried import MODELS, OPTIMIZERS, OTHERS, carried, exported


@pytest.mark.parametrize("arch", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_lose_no_scope(name: str, arch: str) -> None:
    """A node whose output name survived has its scope, or that scope among its origins; every node has a tag."""
    model, found = carried(exported(arch), OPTIMIZERS[name]())
    assert found.surviving > found.nodes / 2
    assert (found.lost, found.misplaced) == ([], [])
    assert found.kept + found.fused == found.surviving
    assert found.tagged == found.nodes
    mx.Validate()(model)


@pytest.mark.parametrize("arch", ["vit", "regnet"])
@pytest.mark.parametrize("name", OTHERS)
def test_conversions_and_quantization_lose_no_scope(name: str, arch: str) -> None:
    """As for optimizers; what quantization puts in has a tag as well."""
    model, found = carried(exported(arch), OTHERS[name]())
    assert (found.lost, found.misplaced) == ([], [])
    assert found.tagged == found.nodes
    mx.Validate()(model)


def test_a_convolution_keeps_its_scope_when_the_normalization_is_folded_into_it() -> None:
    """It is the convolution's, not the normalization's whose output name it took; both are its origins."""
    model, _ = carried(exported("regnet"), OTHERS["onnxscript optimizer"]())
    folded = [node for node in owned_nodes(model.graph) if node.op_type == "Conv" and origins_of(node)]
    assert len(folded) == 20
    for node in folded:
        scope = mx.scope_of(node)
        assert scope is not None
        assert scope.class_name.endswith("Conv2d")
        assert [origin.class_name.rpartition(".")[2] for origin in origins_of(node)] == ["Conv2d", "BatchNorm2d"]


def test_what_quantization_puts_in_belongs_to_what_it_serves() -> None:
    """A pair on the way to one operation is of that operation's module call."""
    model, _ = carried(exported("vit"), QuantizeStatic())
    seen = 0
    for node in owned_nodes(model.graph):
        pair = _only_user(node) if node.op_type == "QuantizeLinear" else None
        if pair is not None and not pair.outputs[0].is_graph_output() and (served := _only_user(pair)) is not None:
            seen += 1
            assert mx.scope_of(node) == mx.scope_of(pair) == mx.scope_of(served), node.outputs[0].name
    assert seen > 50


def _only_user(node: ir.Node) -> ir.Node | None:
    users = {use.node for value in node.outputs for use in value.uses()}
    return users.pop() if len(users) == 1 else None
