"""Operations in bodies of If and Loop that carry torch's own metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
import pytest
import torch
from torch import nn

import modelexport_passes as mx
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.torch_metadata import CLASS_HIERARCHY, NAME_SCOPES
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of


class Layer(nn.Module):
    """Has a linear layer that it calls twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """An operation of its own between the two calls."""
        return self.fc(torch.relu(self.fc(x)))


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        for layer in self.layers:
            x = layer(x)
        return x


def exported() -> ir.Model:
    """A plain export, without the scopes that `mx.export` writes."""
    model = mx.export(Net().eval(), (torch.randn(2, 4),))
    for node in model.graph:
        del node.metadata_props[SCOPE_KEY]
    return model


def moved(model: ir.Model, suffix: str, read: Mapping[str, ir.Value]) -> ir.Graph:
    """The operations of an export as a body; its inputs and weights are values from around the body."""
    values: dict[str, ir.Value] = dict(read)
    nodes: list[ir.Node] = []
    for node in model.graph:
        inputs = [None if value is None else values[str(value.name)] for value in node.inputs]
        copy = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        copy.name = f"{node.name}{suffix}"
        copy.metadata_props.update(node.metadata_props)
        for value, old in zip(copy.outputs, node.outputs, strict=True):
            value.name = f"{old.name}{suffix}"
            values[str(old.name)] = value
        nodes.append(copy)
    return ir.Graph([], [values[str(value.name)] for value in model.graph.outputs], nodes=nodes, name=f"body{suffix}")


def merged(model: ir.Model, owners: int = 1) -> ir.Model:
    """As many Ifs as asked for, with the export in both branches of each. The Ifs carry nothing."""
    condition = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 4]))
    weights = list(model.graph.initializers.values())
    read = {str(model.graph.inputs[0].name): x} | {str(value.name): value for value in weights}
    nodes: list[ir.Node] = []
    for number in range(owners):
        branches = [ir.AttrGraph(f"{kind}_branch", moved(model, f"_{kind}{number}", read)) for kind in ("then", "else")]
        nodes.append(ir.Node("", "If", [condition], branches, num_outputs=1, name=f"if{number}"))
    graph = ir.Graph([condition, x], [node.outputs[0] for node in nodes], nodes=nodes, name="merged")
    for value in weights:
        model.graph.initializers.pop(str(value.name))
        graph.initializers[str(value.name)] = value
    graph.opset_imports.update(model.graph.opset_imports)
    return ir.Model(graph, ir_version=10)


def told(nodes: Iterable[ir.Node]) -> list[tuple[str, str, bool]]:
    """Operator, scope without its source, and whether it is exact."""
    found = [(node.op_type, mx.scope_of(node)) for node in nodes]
    return [(kind, str(scope).partition("|")[2], scope is not None and scope.source.exact) for kind, scope in found]


def test_both_branches_are_read_as_the_graph_outside_would_be() -> None:
    """Calls are numbered in each branch anew, as only one of them runs; the If itself has no scope to tell."""
    plain = exported()
    mx.RecoverScopes()(plain)
    expected = told(plain.graph)
    model = merged(exported())
    mx.RecoverScopes()(model)
    (owner,) = model.graph
    assert mx.scope_of(owner) is None
    for body in subgraphs_of(owner):
        assert told(body) == expected
    assert any("@1" in text for _, text, _ in expected)


def test_calls_in_the_bodies_of_several_operations_are_numbered_in_doubt() -> None:
    """Two Ifs call the same modules: which call is the second is not told, so their numbers are inferred."""
    model = merged(exported(), owners=2)
    mx.RecoverScopes()(model)
    for owner in model.graph:
        for body in subgraphs_of(owner):
            scopes = [scope for node in body if (scope := mx.scope_of(node)) is not None]
            assert len(scopes) == len(body)
            assert not any(scope.source.exact for scope in scopes if len(scope.frames) > 1)


BODIES = """<ir_version: 10, opset_import: ["" : 20]>
g (float[2] x, bool c) => (float[2] y) {
  [owner] y = If (c) <
    then_branch = t () => (float[2] p) { [n0] a = Neg(x)  [n1] b = Relu(a)  [n2] p = Neg(b) },
    else_branch = e () => (float[2] q) { [inner] q = If (c) <
      then_branch = u () => (float[2] r) { [n3] r = Neg(x) },
      else_branch = v () => (float[2] s) { [n4] s = Relu(x) }> }>
}"""


def in_bodies(modules: Mapping[str, str]) -> tuple[ir.Model, dict[str, ir.Node]]:
    """The model above and its operations by name; those named have torch's metadata: paths of modules, root first."""
    model = ir.from_onnx_text(BODIES)
    nodes = {str(node.name): node for node in owned_nodes(model.graph)}
    for name, paths in modules.items():
        stack = ["", *paths.split()]
        nodes[name].metadata_props[NAME_SCOPES] = repr([*stack, "op"])
        nodes[name].metadata_props[CLASS_HIERARCHY] = repr([f"C{len(path)}" for path in stack] + ["aten.op"])
    return model, nodes


def test_a_body_in_a_body_is_read_too() -> None:
    """At any depth, and without the scope of the operation around."""
    model, nodes = in_bodies({"n3": "a", "n4": "b"})
    mx.RecoverScopes()(model)
    assert [str(mx.scope_of(nodes[name])) for name in ("n3", "n4")] == ["metadata|C0:/C1:a", "metadata|C0:/C1:b"]


@pytest.mark.parametrize(("call", "exact"), [("", True), ("@1", False)])
def test_a_body_is_in_the_call_of_its_operation(call: str, *, exact: bool) -> None:
    """An If in the second call of ``a``: its body runs there, and which call of ``a.b`` runs there is inferred."""
    model, nodes = in_bodies({"n0": "a", "n1": "a a.b"})
    nodes["owner"].metadata_props[SCOPE_KEY] = f"metadata|C0:/C1:a{call}"
    mx.RecoverScopes()(model)
    assert str(mx.scope_of(nodes["n0"])) == f"metadata|C0:/C1:a{call}"
    source = "metadata" if exact else "dataflow"
    assert str(mx.scope_of(nodes["n1"])) == f"{source}|C0:/C1:a{call}/C3:a.b"


def test_an_operation_without_metadata_is_concluded_from_those_around_it_in_its_body() -> None:
    """As outside: what runs between two operations of a call runs in it."""
    model, nodes = in_bodies({"n0": "a", "n2": "a"})
    mx.RecoverScopes()(model)
    assert str(mx.scope_of(nodes["n1"])) == "dataflow|C0:/C1:a"
