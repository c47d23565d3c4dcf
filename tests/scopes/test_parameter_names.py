"""Scopes of a file that kept its parameters' names and nothing else: which call, and how far it can be told."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

import modelexport_passes as mx
from modelexport_passes.scopes.parameters import ParameterOwners, read_initializers
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.walk import all_nodes


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).sin())


class _Ended(nn.Module):
    """A pair, and a projection that only some callers want; a scale that is a constant of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = _Pair()
        self.end = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, end: bool) -> Tensor:
        x = self.pair(x)
        return self.end(x) if end else x


class _Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh()


def nameless(model: nn.Module, *args: Tensor, exporter: str = "dynamo") -> dict[str, set[str]]:
    """Operator -> the calls it is given to, after all names but those of parameters are gone."""
    # TorchScript transposes weights, and names them anew, where it is asked to fold constants.
    folds = exporter == "torchscript"
    exported = mx.export(model.eval(), args, exporter=exporter, optimize=folds)  # pyright: ignore[reportArgumentType]
    for count, node in enumerate(exported.graph):
        node.name = f"node_{count}"
        node.metadata_props.clear()
        for value in node.outputs:
            if value not in exported.graph.outputs:
                value.name = f"value_{count}"
    for count, value in enumerate(list(exported.graph.initializers.values())):
        if "::" in str(value.name):
            value.name = f"weight_{count}"
    recover(exported, source="parameter")
    found: dict[str, set[str]] = {}
    for node in exported.graph:
        found.setdefault(node.op_type, set()).add(_call(node))
    return found


def _call(node: ir.Node) -> str:
    scope = mx.scope_of(node)
    return "?" if scope is None else str(scope.frames[-1])


def test_a_call_in_which_most_is_read_again_may_be_two() -> None:
    """The second call does without its last part: both are known only as far as their caller."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.ended = nn.Linear(4, 4), _Ended()

        def forward(self, x: Tensor) -> Tensor:
            return self.ended(self.ended(self.head(x), end=True).exp(), end=False)

    found = nameless(Net(), torch.randn(2, 4))
    assert found["Sin"] == found["Exp"] == {""}


def test_what_is_read_once_before_a_loop_leaves_the_module_one_call() -> None:
    """A call begins with what it reads first: where that is not read again, the rest ran again in one call."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.pair = nn.Linear(4, 4), _Pair()

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(self.pair(self.start(x)).exp())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loop, self.end = Loop(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.loop(x))

    found = nameless(Net(), torch.randn(2, 4))
    assert found["Sin"] == {"loop.pair", "loop.pair@1"}


def test_a_weight_without_a_name_does_not_hide_another_call() -> None:
    """TorchScript keeps a bias by name and the weight by a number; both calls are told by the biases."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.pair, self.end = nn.Linear(4, 4), _Pair(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.pair(self.pair(self.start(x)).exp()))

    found = nameless(Net(), torch.randn(2, 3, 4), exporter="torchscript")
    assert found["Sin"] == {"pair", "pair@1"}


def test_a_lifted_constant_is_read_by_another_name_in_each_call() -> None:
    """Torch lifts a tensor in a module's code once for each call: it tells nothing of calls."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = _Pair()

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x) / torch.tensor([1.0, 2.0, 3.0, 4.0])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.scaled = nn.Linear(4, 4), Scaled()

        def forward(self, x: Tensor) -> Tensor:
            return self.scaled(self.scaled(self.head(x)).exp())

    found = nameless(Net(), torch.randn(2, 4))
    assert found["Sin"] == {"scaled.pair", "scaled.pair@1"}
    assert found["Div"] == {"scaled", "scaled@1"}
    assert found["Exp"] == {""}


def test_what_runs_while_another_module_runs_is_not_given_to_a_module_called_in_part() -> None:
    """A caller that takes only the embedding of its text model works on it itself."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text, self.picture = _Text(), nn.Linear(4, 4)

        def forward(self, tokens: Tensor, picture: Tensor) -> Tensor:
            words = self.text.embedding(tokens)
            seen = self.picture(picture)
            return self.text(words.exp()) + seen

    found = nameless(Net(), torch.tensor([[1, 2]]), torch.randn(1, 2, 4))
    assert found["Exp"] == {""}


def test_the_last_projection_of_torchs_attention_is_never_called() -> None:
    """The attention reads its parameters itself."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.attention, self.end = nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.start(x)
            return self.end(self.attention(x, x, x)[0])

    found = nameless(Net(), torch.randn(3, 2, 4))
    assert not any("out_proj" in call for operator in found.values() for call in operator)


def test_a_table_that_is_only_resized_is_read_by_the_module_around() -> None:
    """Its own module would look up rows in it."""

    class Embeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.position = nn.Conv2d(3, 4, 2), nn.Embedding(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            table = self.position.weight.reshape(1, 4, 2, 2)
            return self.patch(x) + nn.functional.interpolate(table, size=(3, 3), mode="bilinear")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings, self.end = Embeddings(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.embeddings(x))

    found = nameless(Net(), torch.randn(1, 3, 4, 4))
    assert found["Resize"] == {"embeddings"}


def test_what_is_computed_of_a_weight_alone_is_no_second_call() -> None:
    """A convolution whose kernel's size is asked for is called once, and known."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 20]> g (float[1,1,4,4] x) => (float[1,1,4,4] y) '
        "<float[1,1,1,1] v = {1.0}, float[1,1,1,1] w = {1.0}> {"
        " a = Conv(x, v) s = Shape(w) b = Conv(a, w) y = Relu(b) }"
    )
    model.graph.initializers["v"].name = "start.weight"
    model.graph.initializers["w"].name = "conv.weight"
    recover(model, source="parameter")
    assert _call(model.graph[2]) == "conv"


def scopes_of_readers(*parameters: str) -> list[str | None]:
    """The innermost call of each of a row of operations that read one parameter each, which nothing else tells."""
    data = np.ones(1, np.float32)
    weights = [ir.val(name, const_value=ir.tensor(data, name=name)) for name in parameters]
    x = ir.val("x", ir.DataType.FLOAT, [1])
    value, nodes = x, []
    for place, weight in enumerate(weights):
        nodes.append(ir.node("Mul", [value, weight], name=f"n{place}"))
        value = nodes[-1].outputs[0]
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 20})
    recover(ir.Model(graph, ir_version=10))
    return [None if mx.scope_of(node) is None else _call(node) for node in graph]


def test_an_item_of_a_list_of_parameters_is_read_by_the_module_around_the_list() -> None:
    """`mix.scales.0` and `mix.scales.1` are of `mix`, which `mix.lin` shows; a list has no calls."""
    assert scopes_of_readers("mix.lin.weight", "mix.scales.0", "mix.scales.1", "out.weight") == [
        "mix.lin",
        "mix",
        "mix",
        "out",
    ]


def test_constants_that_an_exporter_numbers_are_of_no_module() -> None:
    """Paddle's exporter names constants like items of a list; no other parameter shows such a module."""
    told = scopes_of_readers("helper.constant.1", "conv2d_0.w_0", "p2o.pd_op.reshape.2.0", "fc.w_0", "auto.cast.3")
    assert told == [None, "conv2d_0", "", "fc", None]


def test_what_nodes_read_is_found_from_the_parameters() -> None:
    """Through views and copies as far as from the node's side, in the order of inputs; bodies have their own."""
    views = " ".join(f"v{at + 1} = Transpose(v{at})" for at in range(7))
    reads = " ".join(f"r{at} = Add(x, v{at})" for at in range(8))
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]>'
            "g (float[1] x, bool c) => (float[1] y) <float[1] a_w = {1.0}, float[1] b_w = {2.0}> {"
            f"  v0 = Identity(a_w) {views} {reads}"
            "  copy_w = Identity(b_w) t = Cast<to = 1>(copy_w)"
            "  three = Sum(t, x, a_w, copy_w, a_w)"
            "  y = If(c) <then_branch = t1 () => (float[1] p) <float[1] own = {3.0}> { p = Sum(own, b_w) },"
            "             else_branch = t2 () => (float[1] q) { q = Neg(x) }>"
            "}"
        )
    )
    for value in (*model.graph.initializers.values(), *(node.outputs[0] for node in model.graph)):
        value.name = str(value.name).replace("_w", ".w")  # the text form has no dots
    owners = ParameterOwners(model.graph)
    read = {node.outputs[0].name: list(owners.read(node)) for node in all_nodes(model)}
    assert read == {node.outputs[0].name: read_initializers(node) for node in all_nodes(model)}
    names = {name: [value.name for value in values] for name, values in read.items()}
    assert names["three"] == ["copy.w", "a.w", "copy.w", "a.w"]
    assert names["p"] == ["own", "b.w"]
    assert [at for at in range(8) if names[f"r{at}"]] == [0, 1, 2, 3, 4]
