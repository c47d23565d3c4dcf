"""Node names from scopes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from modelexport_passes.registry import Registry
from modelexport_passes.scopes.scope import Frame, Scope, set_scope

ROOT = Frame("", "m.Net")
LAYER = Frame("layers.0", "m.Block")

NameByModule: Any = Registry([Path(__file__).parents[2] / "passes"]).load("name_by_module")


@pytest.fixture
def model(chain) -> ir.Model:
    """Relu of layers.0, Neg of its second call, Exp of the root, Exp and Exp unknown."""
    nodes = list(chain.graph)
    set_scope(nodes[0], Scope((ROOT, LAYER)))
    set_scope(nodes[1], Scope((ROOT, LAYER._replace(call=1))))
    set_scope(nodes[2], Scope((ROOT,)))
    nodes[2].name = "old"
    chain.graph.append(ir.node("Exp", [nodes[0].outputs[0]], name="Exp"))
    chain.graph.append(ir.node("Exp", [nodes[0].outputs[0]], name="layers.0/Relu"))
    return chain


def test_nodes_are_named_by_module_call_and_operation(model):
    """The call index is part of it, the root has no path, and a name that is taken gets a number."""
    result = NameByModule()(model)
    assert [node.name for node in model.graph] == ["layers.0/Relu_1", "layers.0@1/Neg", "Exp_1", "Exp", "layers.0/Relu"]
    assert result.figures == {"renamed": 3, "kept": 2}
    assert not NameByModule()(model).modified


def test_names_are_unique_over_subgraphs_and_relative_in_functions(model):
    """A body of an If shares its graph's names; a function has its own, from relative scopes."""
    then = ir.Graph([], [], nodes=[inner := ir.node("Relu", [model.graph[0].outputs[0]])], opset_imports={"": 20})
    set_scope(inner, Scope((ROOT, LAYER)))
    model.graph.append(ir.node("If", [model.graph[1].outputs[0]], {"then_branch": then}))
    argument = ir.val("x")
    body = ir.Graph([argument], [], nodes=[linear := ir.node("MatMul", [argument, argument])], opset_imports={"": 20})
    set_scope(linear, Scope((Frame("query", "m.Linear"),), relative=True))
    function = ir.Function("m", "Block", graph=body, attributes=[])
    model.functions[function.identifier()] = function
    NameByModule(separator=".")(model)
    assert inner.name == "layers.0.Relu_1"
    assert linear.name == "query.MatMul"
