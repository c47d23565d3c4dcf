"""Scopes of models that were built with onnxscript's modules, which is no export of torch."""

import onnx_ir as ir
import pytest
from onnxscript import GraphBuilder, nn

import modelexport_passes as mx
from modelexport_passes.scopes.scope import Source


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter([4, 4], name="weight")

    def forward(self, op, x):
        return op.MatMul(x, self.weight)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Linear(), Linear()

    def forward(self, op, x):
        return op.Relu(self.b(op, self.a(op, x)))


class Net(nn.Module):
    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, op, x):
        for layer in (*self.layers, self.layers[0]):
            x = layer(op, x)
        return op.Neg(x)


def built(name: str | None) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="g")
    builder = GraphBuilder(graph)
    x = builder.input("x", ir.DataType.FLOAT, [2, 4])
    graph.outputs.append(builder.op.Abs(Net(name)(builder.op, x)))
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(("name", "prefix"), [(None, ""), ("model", "model.")])
def test_the_builders_stack_is_read(name: str | None, prefix: str) -> None:
    """Attributes become paths, a module called twice has two calls, and what is outside of modules has no module."""
    model = built(name)
    result = mx.RecoverScopes()(model)
    *scopes, outside = [mx.scope_of(node) for node in model.graph]
    calls = [(scope.path, scope.call, scope.class_name) for scope in scopes if scope is not None]
    block = [(f"{prefix}layers.0.a", "Linear"), (f"{prefix}layers.0.b", "Linear"), (f"{prefix}layers.0", "Block")]
    assert calls[:3] == [(path, 0, kind) for path, kind in block]
    assert calls[6:9] == [(path, 1, kind) for path, kind in block]
    assert calls[-1] == (prefix.rstrip("."), 0, "Net")
    assert all(scope is not None and scope.source is Source.METADATA for scope in scopes)
    assert outside is None or not outside.source.exact
    assert result.modified


def test_its_blocks_share_one_function() -> None:
    """Outlining works on such a model as on an export."""
    model = built(None)
    mx.RecoverScopes()(model)
    mx.Outline(modules=["Block"])(model)
    assert [function.name for function in model.functions.values()] == ["Block"]
    assert sum(node.op_type == "Block" for node in model.graph) == 3
