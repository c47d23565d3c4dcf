"""Models that are unlike what exporters write: odd names, old versions, strings, graphs out of order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import modelexport_passes as mx
from modelexport_passes.builtin.validate import Parity
from modelexport_passes.scopes.copying import copy_model
from modelexport_passes.scopes.scope import Frame, Scope, set_scope
from modelexport_passes.testing import assert_rewrites
from tests.scoped_models import Arrays, fingerprint, run, scoped

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"modules": "auto"},
    {"modules": ["*"], "on_nonconvex": "split"},
    {"paths": ["*"], "lift": "attributes"},
    {"depth": 1, "lift": "never"},
    {"min_nodes": 2, "weights": "shape"},
    {"min_calls": 2},
]


def there_and_back(model: ir.Model, inputs: Arrays, path: Path, **options: Any) -> ir.Model:
    """Outline, save, load, inline, save, load: valid and bit-equal each time, nothing lost. Returns it outlined."""
    mx.InjectTags()(model)
    expected, kept = run(model, inputs), fingerprint(model)
    edges = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    mx.Outline(**options)(model)
    outlined = reloaded(model, path)
    assert run(outlined, inputs) == expected
    model = reloaded(outlined, path)
    mx.Inline()(model)
    model = reloaded(model, path)
    assert run(model, inputs) == expected
    assert fingerprint(model) == kept
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == edges
    return outlined


def reloaded(model: ir.Model, path: Path) -> ir.Model:
    mx.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    mx.Validate()(model)
    return mx.load(path)


def two_layers(*, domain: str = "", opset: int = 20, ir_version: int = 10, backwards: bool = False) -> ir.Model:
    """Two layers whose weights are graph inputs too, as files of IR version 3 have them."""
    weights = {f"l.{at}.w": np.full((3, 3), at + 0.5, np.float32) for at in (0, 1)}
    nodes = [
        helper.make_node("MatMul", ["x", "l.0.w"], ["a"], domain=domain),
        helper.make_node("Relu", ["a"], ["b"], domain=domain),
        helper.make_node("MatMul", ["b", "l.1.w"], ["c"], domain=domain),
        helper.make_node("Relu", ["c"], ["y"], domain=domain),
    ]
    shapes = {"x": [2, 3]} | {name: [3, 3] for name in weights}
    graph = helper.make_graph(
        nodes[::-1] if backwards else nodes,
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", 1, [2, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=ir_version)
    model = ir.from_proto(proto)
    name_modules(model, "pkg.Layer", ["l.0", "l.1"])
    return model


def name_modules(model: ir.Model, class_name: str, paths: list[str], inner: str = "") -> None:
    for node in model.graph:
        path = paths[0] if node.outputs[0].name in ("a", "b") else paths[1]
        frames = (Frame("", "pkg.Net"), Frame(path, class_name))
        set_scope(node, Scope((*frames, Frame(f"{path}.{inner}", "pkg.Inner")) if inner else frames))


@pytest.mark.parametrize("options", OPTIONS)
def test_old_files_and_the_long_name_of_the_default_domain(options: dict[str, Any], tmp_path: Path) -> None:
    """IR version 3 and opset 7, weights that callers may replace; ``ai.onnx`` for the empty domain."""
    there_and_back(two_layers(opset=7, ir_version=3), X, tmp_path / "m.onnx", **options)
    outlined = there_and_back(two_layers(domain="ai.onnx"), X, tmp_path / "m.onnx", **options)
    assert "ai.onnx" not in outlined.opset_imports
    assert {function.opset_imports[""] for function in outlined.functions.values()} <= {20}


def test_a_graph_that_is_not_in_order_is_put_in_order(tmp_path: Path) -> None:
    """A runtime may take such a graph; no function may be like it."""
    there_and_back(two_layers(backwards=True), X, tmp_path / "m.onnx")
    model = two_layers(backwards=True)
    assert mx.Outline(min_nodes=9)(model).modified
    assert [node.outputs[0].name for node in model.graph] == ["a", "b", "c", "y"]
    with pytest.raises(mx.ModelExportError, match=r"outline: 'c' is used before MatMul makes it"):
        mx.Outline().plan(two_layers(backwards=True))


def test_a_pipeline_compares_with_its_input_that_is_not_in_order(tmp_path: Path) -> None:
    """The input is kept for that, and onnx_ir copies graphs in order only."""
    mx.save(two_layers(backwards=True), tmp_path / "m.onnx")
    steps = [mx.Outline(), mx.Validate(parity=Parity(reference="input"))]
    result = mx.Pipeline(steps).run(mx.load(tmp_path / "m.onnx"))
    assert result.model.functions


def test_a_graph_that_goes_in_a_circle_is_refused() -> None:
    """No order helps."""
    model = two_layers()
    relu = model.graph[1]
    relu.replace_input_with(0, model.graph[3].outputs[0])
    with pytest.raises(mx.ModelExportError, match="and there is no order in which it does not"):
        mx.Outline()(model)
    with pytest.raises(mx.ModelExportError, match="in a circle"):
        copy_model(model)


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("__main__.Block", ("__main__", "Block")),
        ("pkg.make.<locals>.Block", ("pkg.make", "Block")),
        ("módulo.Blöck", ("módulo", "Bl_ck")),
        ("pkg.B\"l'o<c, k>", ("pkg", "B_l_o_c__k_")),
        ("Block", ("modules", "Block")),
        (".1Block", ("modules", "_1Block")),
        ("ai.onnx.Relu", ("modules", "Relu")),
        ("com.microsoft.Gelu", ("modules", "Gelu")),
        ("com.microsoftware.Gelu", ("com.microsoftware", "Gelu")),
    ],
)
def test_functions_have_names_that_runtimes_take(class_name: str, name: tuple[str, str], tmp_path: Path) -> None:
    """A C identifier, in a domain where no runtime has operators."""
    model = two_layers()
    name_modules(model, class_name, ["l.0", "l.1"])
    outlined = there_and_back(model, X, tmp_path / "m.onnx")
    assert [key[:2] for key in outlined.functions] == [name]


@pytest.mark.parametrize("path", ["d.a.b", "层", 'd.a"b', "d.a'b", "d.e f", "d.a/b@1", "d.c:d%20|^", "d.a\nb\tc", "^x"])
@pytest.mark.parametrize("inner", ["", "^x", "c.d"])
def test_module_paths_of_any_text_come_back(path: str, inner: str, tmp_path: Path) -> None:
    """Keys of a ModuleDict may be any text, also what the text form of a scope gives a meaning to."""
    model = two_layers()
    name_modules(model, "pkg.Layer", [path, "l.1"], inner)
    there_and_back(model, X, tmp_path / "m.onnx")


def test_names_with_slashes_quotes_and_colons(tmp_path: Path) -> None:
    """As the TorchScript exporter and others write them."""
    for options in OPTIONS:
        model = two_layers()
        for node in model.graph:
            node.name = f"/layers.0/{node.op_type}_{node.outputs[0].name}"
            if node.outputs[0].name != "y":
                node.outputs[0].name = f'/layers.0/{node.outputs[0].name}:0 é"'
        there_and_back(model, X, tmp_path / "m.onnx", **options)


def test_constants_of_text_are_compared_and_lifted(tmp_path: Path) -> None:
    """Text has no bytes of one length."""
    text = """g (string[2] x) => (string[2] y) {
        k = Constant <value = string[2] {"a", "b"}> ()
        e = Constant <value = string[2] {"a", "c"}> ()
        a = StringConcat(x, k)
        y = StringConcat(a, e)
    }"""
    scopes = {"k": "/N/A.a.0", "e": "/N/A.a.1", "a": "/N/A.a.0", "y": "/N/A.a.1"}
    inputs = {"x": np.array(["p", "q"], dtype=object)}
    for options, functions in (({}, 1), ({"lift": "never"}, 2)):
        outlined = there_and_back(scoped(text, scopes), inputs, tmp_path / "m.onnx", **options)
        assert len(outlined.functions) == functions
    model = scoped(text, scopes)
    assert_rewrites(mx.Outline(modules=["none"]), before=model, after=model.clone())


def test_outputs_that_are_left_out_keep_their_place(tmp_path: Path) -> None:
    """An LSTM that gives its last state only, after one that gives all but that; inputs left out, too."""
    weights = {
        f"l.{at}.{name}": np.full(shape, 0.1 * (at + 1), np.float32)
        for at in (0, 1)
        for name, shape in (("W", (1, 8, 3)), ("R", (1, 8, 2)))
    }
    graph = helper.make_graph(
        [
            helper.make_node("LSTM", ["x", "l.0.W", "l.0.R", "", "", ""], ["y", "", "c"], hidden_size=2),
            helper.make_node("LSTM", ["x", "l.1.W", "l.1.R", "", "", "", "c"], ["", "h"], hidden_size=2),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 1, 3])],
        [helper.make_tensor_value_info("y", 1, [2, 1, 1, 2]), helper.make_tensor_value_info("h", 1, [1, 1, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for options in OPTIONS:
        model = ir.from_proto(proto)
        for node, path in zip(model.graph, ("l.0", "l.1"), strict=True):
            set_scope(node, Scope((Frame("", "pkg.N"), Frame(path, "pkg.L"))))
        there_and_back(model, {"x": np.ones((2, 1, 3), np.float32)}, tmp_path / "m.onnx", **options)


CONTROL_FLOW = {
    "bodies in bodies": (
        """g (float[2,3] x, bool c, bool d) => (float[2,3] y) <float[3] m.bias = {1,2,3}, float[3] n.bias = {3,2,1}> {
            k = Neg(x)
            y = If(c) <
                then_branch = t () => (float[2,3] p) {
                    q = Add(k, m.bias)
                    p = If(d) <
                        then_branch = tt () => (float[2,3] r) { s = Mul(q, k)  r = Add(s, n.bias) },
                        else_branch = ee () => (float[2,3] u) { u = Neg(q) }
                    >
                },
                else_branch = e () => (float[2,3] o) { o = Abs(k) }
            >
        }""",
        dict.fromkeys("kypu", "/N/M.m") | {"q": "/N/M.m/L.l", "s": "/N/M.m/L.k", "r": "/N/M.m/L.k", "o": "/N/M.m/L.j"},
        {**X, "c": np.array(True), "d": np.array(True)},
    ),
    "modules in the body of the root's If": (
        """g (float[2,3] x, bool c) => (float[2,3] y) {
            k = Neg(x)
            z = If(c) <
                then_branch = t () => (float[2,3] p) { q = Add(k, k)  p = Relu(q) },
                else_branch = e () => (float[2,3] o) { o = Abs(k) }
            >
            y = Neg(z)
        }""",
        {"k": "/N/M.m", "z": "/N", "q": "/N/M.m@1", "p": "/N/M.m@1", "o": "/N/A.a", "y": "/N/M.m@2"},
        {**X, "c": np.array(True)},
    ),
    "Loop that captures": (
        """g (float[2,3] x, int64 n) => (float[2,3] y, float[k,2,3] s) <float[2,3] m.w = {1,2,3,4,5,6}> {
            t = Constant <value = bool {1}> ()
            b = Mul(x, m.w)
            y, s = Loop(n, t, b) <
                body = b (int64 i, bool ci, float[2,3] v) => (bool co, float[2,3] vo, float[2,3] so) {
                    co = Identity(ci)  vo = Add(v, b)  so = Mul(vo, m.w)
                }
            >
        }""",
        dict.fromkeys(("t", "b", "y", "co"), "/N/L.l") | {"vo": "/N/L.l/A.a", "so": "/N/L.l/A.b"},
        {**X, "n": np.array(3)},
    ),
    "like Scans": (
        """g (float[2,3] x) => (float[3] y, float[2,3] s, float[2,3] r) <float[3] z = {0,0,0}> {
            a = Neg(x)
            m, s = Scan <num_scan_inputs = 1, body = b (float[3] v, float[3] u) => (float[3] vo, float[3] so)
                { vo = Add(v, u)  so = Neg(vo) }> (z, a)
            c = Neg(s)
            y, r = Scan <num_scan_inputs = 1, body = b (float[3] v, float[3] u) => (float[3] wo, float[3] to)
                { wo = Add(v, u)  to = Neg(wo) }> (m, c)
        }""",
        {
            "a": "/N/L.l.0",
            "m": "/N/L.l.0",
            "vo": "/N/L.l.0/A.a",
            "c": "/N/L.l.1",
            "y": "/N/L.l.1",
            "wo": "/N/L.l.1/A.a",
        },
        X,
    ),
    "sequences": (
        """g (float[2,3] x) => (float[2,3] y) {
            s = SplitToSequence <axis = 0> (x)
            i = Constant <value = int64 {0}> ()
            e = SequenceAt(s, i)
            r = SequenceInsert(s, e)
            t = ConcatFromSequence <axis = 0> (s)
            y = Relu(t)
        }""",
        {"s": "/N/A.a", "i": "/N/B.b", "e": "/N/B.b", "r": "/N/B.b", "t": "/N/C.c", "y": "/N/C.c"},
        X,
    ),
}


@pytest.mark.parametrize("name", CONTROL_FLOW)
def test_control_flow_and_sequences(name: str, tmp_path: Path) -> None:
    """In functions, through functions, with what they capture."""
    text, scopes, inputs = CONTROL_FLOW[name]
    for options in OPTIONS:
        there_and_back(scoped(text, scopes), inputs, tmp_path / "m.onnx", **options)


EDGES = {
    "an output that is an input": (
        "g (float[2,3] x) => (float[2,3] x, float[2,3] y) { a = Neg(x)  y = Relu(a) }",
        {"a": "/N/B.b.0", "y": "/N/B.b.1"},
    ),
    "an output that is a weight": (
        """g (float[2,3] x) => (float[3,3] w, float[2,3] y) <float[3,3] w = {1,2,3,4,5,6,7,8,9}> {
            a = MatMul(x, w)
            y = MatMul(a, w)
        }""",
        {"a": "/N/B.b.0", "y": "/N/B.b.1"},
    ),
    "one result under two names": (
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { a = Neg(x)  y = Identity(a)  z = Identity(a) }",
        {"a": "/N/B.b", "y": "/N/B.b", "z": "/N/B.b"},
    ),
    "a result that is used inside, too": (
        "g (float[2,3] x) => (float[2,3] a, float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }",
        {"a": "/N/B.b.0", "b": "/N/B.b.0", "c": "/N/B.b.1", "y": "/N/B.b.1"},
    ),
    "work that nothing uses": (
        "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  d = Abs(a)  e = Abs(d)  y = Relu(a) }",
        {"a": "/N/B.b.0", "d": "/N/B.b.0", "e": "/N/D.d", "y": "/N/B.b.1"},
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_of_graph_and_function(name: str, tmp_path: Path) -> None:
    """Names and order of the graph's outputs are as they were."""
    text, scopes = EDGES[name]
    for options in OPTIONS:
        there_and_back(scoped(text, scopes), X, tmp_path / "m.onnx", **options)


def test_the_name_of_a_function_that_is_there_is_not_taken_again(tmp_path: Path) -> None:
    """Somebody's function of the same domain and name stays what it is."""
    model = two_layers()
    proto = ir.to_proto(model)
    body = [helper.make_node("Neg", ["a"], ["b"])]
    proto.functions.append(helper.make_function("pkg", "Layer", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    proto.opset_import.append(helper.make_opsetid("pkg", 1))
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Layer", "pkg"
    model = ir.from_proto(proto)
    before = run(model, X)
    mx.Outline()(model)
    assert run(reloaded(model, tmp_path / "m.onnx"), X) == before
    assert [name for _, name, _ in model.functions] == ["Layer", "Layer_1", "Layer_2"]
