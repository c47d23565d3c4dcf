"""Names of TorchScript's exporter, on graphs that a test writes down."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

import modelexport_passes as mx


def model_of(*operations: tuple[str, str, tuple[str, ...]]) -> ir.Model:
    """A chain of operations: name, op type, parameters it reads."""
    parameters = dict.fromkeys(name for _, _, read in operations for name in read)
    nodes = [
        onnx.helper.make_node(op_type, [f"v{place}", *read], [f"v{place + 1}"], name=name)
        for place, (name, op_type, read) in enumerate(operations)
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("v0", 1, [1])],
        [value(f"v{len(operations)}", 1, [1])],
        [onnx.helper.make_tensor(name, 1, [1], [0.5]) for name in parameters],
    )
    return ir.from_proto(onnx.helper.make_model(graph))


def calls(model: ir.Model) -> list[str | None]:
    """The chain of calls of each operation below the root; None where unknown."""
    mx.RecoverScopes(source="name")(model)
    scopes = [mx.scope_of(node) for node in model.graph]
    return [scope and " > ".join(map(str, scope.frames[1:])) for scope in scopes]


CASES = {
    "module list": ([("/layers.0/query/MatMul", "MatMul", ("layers.0.query.weight",))], ["layers.0 > layers.0.query"]),
    "sequential": ([("/net/net.1/net.1.0/Relu", "Relu", ())], ["net > net.1 > net.1.0"]),
    "module dict": (
        [("/a/Gemm", "Gemm", ("heads.a.weight",)), ("/a_1/Gemm", "Gemm", ("others.a.weight",))],
        ["heads.a", "others.a"],
    ),
    "parent not called": ([("/w/Gemm", "Gemm", ("m.w.weight",))], ["m.w"]),
    "called twice": (
        [("/lin/Gemm", "Gemm", ("lin.weight",)), ("/lin_1/Gemm", "Gemm", ("lin.weight",))],
        ["lin", "lin@1"],
    ),
    "a number before its first call is a name": (
        [("/norm_1/Mul", "Mul", ()), ("/norm_2/Mul", "Mul", ()), ("/norm/Mul", "Mul", ())],
        ["norm_1", "norm_2", "norm"],
    ),
    "an attribute like a call": (
        [
            ("/lin/Gemm", "Gemm", ("lin.weight",)),
            ("/lin_1/Gemm", "Gemm", ("lin_1.weight",)),
            ("/lin_1/Gemm_1", "Gemm", ("lin.weight",)),
        ],
        ["lin", "lin_1", "lin@1"],
    ),
    "nested, called twice": (
        [
            ("/b/l/Gemm", "Gemm", ("b.l.weight",)),
            ("/b/Add", "Add", ()),
            ("/b/l_1/Gemm", "Gemm", ("b.l.weight",)),
            ("/b_1/Add", "Add", ()),
        ],
        ["b > b.l", "b", "b@1 > b.l@1", "b@1"],
    ),
    "two lists of equal items": (
        [
            ("/layers.0/fc/Gemm", "Gemm", ("encoder.layers.0.fc.weight",)),
            ("/layers.0/fc_1/Gemm", "Gemm", ("decoder.layers.0.fc.weight",)),
        ],
        ["encoder.layers.0 > encoder.layers.0.fc", "decoder.layers.0 > decoder.layers.0.fc"],
    ),
    "a tied weight": (
        [
            ("/layers.0/mlp/fc/MatMul", "MatMul", ("layers.0.mlp.fc.weight",)),
            ("/layers.1/mlp/fc/MatMul", "MatMul", ("layers.0.mlp.fc.weight",)),
            ("/layers.1/mlp/fc/Add", "Add", ("layers.1.mlp.fc.bias",)),
        ],
        [
            "layers.0 > layers.0.mlp > layers.0.mlp.fc",
            "layers.1 > layers.1.mlp > layers.1.mlp.fc",
            "layers.1 > layers.1.mlp > layers.1.mlp.fc",
        ],
    ),
    "a block without names of weights, beside one of its name further down": (
        [
            ("/net/layer.0/conv/Conv", "Conv", ("onnx::Conv_8",)),
            ("/net/layer.1/body/layer.0/norm/Mul", "Mul", ("net.layer.1.body.layer.0.norm.weight",)),
        ],
        [
            "net > net.layer.0 > net.layer.0.conv",
            "net > net.layer.1 > net.layer.1.body > net.layer.1.body.layer.0 > net.layer.1.body.layer.0.norm",
        ],
    ),
    "the same, beside two": (
        [
            ("/net/layer.0/conv/Conv", "Conv", ("onnx::Conv_8",)),
            ("/net/layer.1/body/layer.0/norm/Mul", "Mul", ("net.layer.1.body.layer.0.norm.weight",)),
            ("/net/layer.2/body/layer.0/norm/Mul", "Mul", ("net.layer.2.body.layer.0.norm.weight",)),
        ],
        [
            "net > net.layer.0 > net.layer.0.conv",
            "net > net.layer.1 > net.layer.1.body > net.layer.1.body.layer.0 > net.layer.1.body.layer.0.norm",
            "net > net.layer.2 > net.layer.2.body > net.layer.2.body.layer.0 > net.layer.2.body.layer.0.norm",
        ],
    ),
    "a module with the end of another one's path, whose own weight lost its name": (
        [
            ("/layers.0/norm/Mul", "Mul", ("onnx::Mul_7",)),
            ("/layers.0/mixer/Exp", "Exp", ()),
            ("/layers.0/mixer/norm/Mul", "Mul", ("layers.0.mixer.norm.weight",)),
        ],
        ["layers.0 > layers.0.norm", "layers.0 > layers.0.mixer", "layers.0 > layers.0.mixer > layers.0.mixer.norm"],
    ),
    "called by the caller of its holder": (
        [
            ("/layers.0/norm/Cast", "Cast", ()),
            ("/layers.0/mixer/Exp", "Exp", ()),
            ("/layers.0/norm/Mul", "Mul", ("layers.0.mixer.norm.weight",)),
        ],
        ["layers.0 > layers.0.mixer.norm", "layers.0 > layers.0.mixer", "layers.0 > layers.0.mixer.norm"],
    ),
    "quantized": (
        [
            ("/q/Add", "Add", ("q.bias",)),
            ("/q/MatMul_quant", "MatMulInteger", ()),
            ("/k/MatMul_quant", "QLinearMatMul", ("k.weight",)),
        ],
        ["q", "q", "k"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_names_and_parameters_tell_the_calls(case: str) -> None:
    """Each row of what the exporter does to names comes back as the calls that were made."""
    operations, expected = CASES[case]
    assert calls(model_of(*operations)) == expected


def test_names_of_old_exporters_tell_nothing() -> None:
    """``MatMul_123`` holds no module, and an operation that no source tells stays unknown."""
    assert calls(model_of(("MatMul_123", "MatMul", ("onnx::MatMul_7",)), ("Add_124", "Add", ()))) == [None, None]


def _layers() -> onnx.ModelProto:
    """Two linear layers below a module, and an operation of the root, as TorchScript's exporter names them."""
    model = model_of(
        ("/enc/layers.0/Gemm", "Gemm", ("enc.layers.0.weight",)),
        ("/enc/layers.1/Gemm", "Gemm", ("enc.layers.1.weight",)),
        ("/Relu", "Relu", ()),
    )
    for node in list(model.graph)[:-1]:
        node.outputs[0].name = f"{node.name}_output_0"
    return ir.to_proto(model)


@pytest.mark.parametrize("prefix", ["m1_", "sub/", "a.b/"])
def test_a_prefix_before_every_name_is_read_over(prefix: str) -> None:
    """`onnx.compose.add_prefix` writes it before nodes, values and parameters."""
    told = [calls(ir.from_proto(model)) for model in (_layers(), onnx.compose.add_prefix(_layers(), prefix))]
    assert told[1] == told[0] == ["enc > enc.layers.0", "enc > enc.layers.1", ""]


def test_two_prefixes_are_two_models_and_tell_nothing() -> None:
    """Modules of the same path would be taken for calls of one module."""
    first, second = (onnx.compose.add_prefix(_layers(), prefix) for prefix in ("m1_", "m2_"))
    merged = onnx.compose.merge_models(first, second, io_map=[("m1_v3", "m2_v0")])
    assert calls(ir.from_proto(merged)) == [None] * 6


def test_slashes_of_another_exporter_are_no_prefix() -> None:
    """`model/dense/MatMul` of an exporter that does not name results after operations is left alone."""
    model = _layers()
    for node in model.graph.node:
        node.name = f"model{node.name}"
    assert calls(ir.from_proto(model)) == [None] * 3


def test_a_prefix_with_a_slash_inside_is_not_cut_there() -> None:
    """`a/b_` before every name: `b_` is not taken for a module, as the names of parameters show."""
    model = onnx.compose.add_prefix(_layers(), "a/b_")
    assert calls(ir.from_proto(model)) == [None] * 3
