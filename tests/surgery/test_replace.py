"""What replace puts in place of a function's body, what it refuses, and that results stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnxscript import opset20 as op
from onnxscript import script, values

import modelexport_passes as mx
from modelexport_passes.testing import model_of
from tests.scoped_models import check, function_calls, run, scoped, tags_in

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}

NET = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.fc.weight = {1,2,3,4,5,6,7,8,9}, float[3,3] layers.1.fc.weight = {9,8,7,6,5,4,3,2,1}>
{
    a0 = MatMul(x, layers.0.fc.weight)
    s0 = Sigmoid(a0)
    b0 = Mul(a0, s0)
    a1 = MatMul(b0, layers.1.fc.weight)
    s1 = Sigmoid(a1)
    y = Mul(a1, s1)
}
"""
SCOPES = {
    "a0": "/Net/Block.layers.0/Linear.fc",
    "s0": "/Net/Block.layers.0/SiLU.act",
    "b0": "/Net/Block.layers.0/SiLU.act",
    "a1": "/Net/Block.layers.1/Linear.fc",
    "s1": "/Net/Block.layers.1/SiLU.act",
    "y": "/Net/Block.layers.1/SiLU.act",
}
SWISH = "g (float[M,N] h) => (float[M,N] z) { s = Sigmoid(h)  t = Mul(s, h)  z = Identity(t) }"


def outlined() -> ir.Model:
    model = scoped(NET, SCOPES)
    mx.InjectTags()(model)
    mx.Outline()(model)
    return model


def replace(model: ir.Model, **options: Any) -> ir.passes.PassResult:
    """Replace, and check what holds for every replacement: a valid model, and a second run that changes nothing."""
    result = mx.Replace(**options)(model)
    check(model)
    assert result.modified
    assert not mx.Replace(**options)(model).modified
    return result


def silu_is_replaced(model: ir.Model) -> None:
    """The function has the new body, and the model the same results, inlined or not."""
    expected = run(scoped(NET, SCOPES), X)
    assert run(model, X) == expected
    mx.Inline()(model)
    check(model)
    assert run(model, X) == expected


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_a_file_is_the_body_of_every_function_of_the_class(tmp_path: Path) -> None:
    """Calls, inputs and names of the function stay; operations of the body are the module's; tags follow."""
    mx.save(model_of(SWISH), tmp_path / "swish.onnx")
    model = outlined()
    result = replace(model, modules=["*.SiLU"], body=tmp_path / "swish.onnx")
    assert isinstance(result, mx.Outcome)
    assert result.figures == {"functions": 1, "calls": 1}
    function = model.functions["pkg", "SiLU", ""]
    assert tags_in(function) == [("Sigmoid", "."), ("Mul", "."), ("Identity", ".")]
    assert [node.metadata_props["hierarchy_tag"] for node in function] == [".", ".", "."]
    assert [value.name for value in function.inputs] == ["input_0"]
    silu_is_replaced(model)
    assert {tag for _, tag in tags_in(model.graph)} == {
        f"/Net/Block.layers.{at}/{inner}" for at in (0, 1) for inner in ("Linear.fc", "SiLU.act")
    }


VENDOR = values.Opset("vendor", 1)


@script(VENDOR)
def gate(h):
    return op.Sigmoid(h)


@script(VENDOR)
def swish(h):
    return op.Mul(h, gate(h))  # pyright: ignore[reportArgumentType] - a script is not run as Python


def test_an_onnxscript_function_brings_the_functions_that_it_calls() -> None:
    """And the domain that they are in."""
    model = outlined()
    replace(model, modules=["*.SiLU"], function=swish)
    assert ("vendor", "gate", "") in model.functions
    assert model.opset_imports["vendor"] == 1
    assert [node.op_type for node in model.functions["pkg", "SiLU", ""]] == ["gate", "Mul"]
    silu_is_replaced(model)


def test_a_function_of_another_model() -> None:
    """Its attributes keep their defaults; ``entry`` picks it out of a file."""
    other = model_of("""
    <ir_version: 10, opset_import: ["": 20, "lib": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = lib.Swish(x) }
    <opset_import: ["": 20], domain: "lib">
    Swish <beta: float = 1.0> (h) => (z) {
        b = Constant <value_float: float = @beta> ()
        c = Mul(b, h)
        s = Sigmoid(c)
        z = Mul(h, s)
    }
    """)
    model = outlined()
    replace(model, modules=["*.SiLU"], function=other, entry="lib.Swish")
    silu_is_replaced(model)
    with pytest.raises(mx.ModelExportError, match=r"has no function 'lib.No'; it has lib.Swish"):
        mx.Replace(modules=["*.SiLU"], function=other, entry="lib.No")(outlined())


def test_what_extract_takes_out_can_come_back_changed() -> None:
    """Initializers named as inputs are the inputs, so each call keeps its own weights; scopes below the module stay."""
    model = outlined()
    part = mx.extract(scoped(NET, SCOPES), "layers.1")
    next(node for node in part.graph if node.op_type == "Sigmoid").name = "changed"
    replace(model, modules=["*.Block"], function=part)
    block = model.functions["pkg", "Block", ""]
    assert tags_in(block) == [("MatMul", "Linear.fc"), ("Sigmoid", "SiLU.act"), ("Mul", "SiLU.act")]
    assert [value.name for value in block.inputs] == ["input_0", "fc.weight"]
    assert function_calls(model) == {"Block": '["layers.0","layers.1"]'}
    silu_is_replaced(model)


def test_an_outlined_part_shares_the_functions_that_the_model_has() -> None:
    """The same callee comes back as the same function; another one of its name is refused."""
    model = outlined()
    part = mx.extract(model, "layers.1")
    mx.Replace(modules=["*.Block"], function=part)(model)
    assert function_calls(model) == function_calls(outlined())
    silu_is_replaced(model)
    other = mx.extract(outlined(), "layers.1")
    node = other.functions["pkg", "SiLU", ""][0]
    node.op_type = "Tanh"
    with pytest.raises(mx.ModelExportError, match="another function of that name"):
        mx.Replace(modules=["*.Block"], function=other)(outlined())


def test_weights_of_the_body_itself_become_constants_and_outputs_stay_apart() -> None:
    """A function has no initializers, and returns no input and nothing twice."""
    text = "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Neg(x)  z = Relu(x) }"
    model = scoped(text, {"y": "/Net/Two.two", "z": "/Net/Two.two"})
    mx.Outline()(model)
    body = model_of(
        "g (float[2,3] h) => (float[2,3] a, float[2,3] b) <float[3] w = {1, 2, 3}> { a = Mul(h, w)  b = Neg(h) }"
    )
    body.graph.outputs[1] = body.graph.inputs[0]
    replace(model, modules=["*.Two"], function=body)
    assert [node.op_type for node in model.functions["pkg", "Two", ""]] == ["Constant", "Mul", "Neg", "Identity"]
    assert run(model, X) == [(X["x"] * np.array([1, 2, 3], np.float32)).tobytes(), X["x"].tobytes()]


def test_the_ledger_forgets_the_nodes_of_the_old_body() -> None:
    """What it says of one call's nodes must not hit a new node of the same name."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Neg(a)  c = Relu(b)  y = Neg(c) }"
    scopes = {"a": "/Net/B.b/C.c", "b": "/Net/B.b", "c": "/Net/B.b@1/C.other", "y": "/Net/B.b@1"}
    model = scoped(text, scopes)
    for at, node in enumerate(model.graph):
        node.name = f"n{at}"
    mx.Outline(modules=["*.B"])(model)
    (name,) = (node.name for node in model.functions["pkg", "B", ""] if node.op_type == "Relu")
    body = model_of("g (float[2,3] h) => (float[2,3] z) { r = Relu(h)  z = Neg(r) }")
    body.graph[0].name = name
    replace(model, modules=["*.B"], function=body)
    mx.Inline()(model)
    assert tags_in(model.graph) == [(name, f"/Net/B.b{at}") for at in ("", "@1") for name in ("Relu", "Neg")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("g (float[2,3] a, float[2,3] b) => (float[2,3] y) { y = Mul(a, b) }", r"has 2 inputs, expected 1 \(input_0\)"),
        ("g (float[2,3] a) => (float[2,3] y, float[2,3] z) { y = Neg(a)  z = Neg(a) }", "has 2 outputs, expected 1"),
        ("g (double[2,3] a) => (double[2,3] y) { y = Neg(a) }", r"input 0 \(a\) is DOUBLE, expected FLOAT"),
        ("g (float[6] a) => (float[6] y) { y = Neg(a) }", r"input 0 \(a\) is of rank 1, expected of rank 2"),
        (
            '<ir_version: 10, opset_import: ["": 21]> g (float[2,3] a) => (float[2,3] y) { y = Neg(a) }',
            "uses opset 21 of ai.onnx, the model 20",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused(body: str, message: str) -> None:
    """The message names both; the model is as it was."""
    text = "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"
    model = scoped(text, {"y": "/Net/Act.act"})
    mx.Outline()(model)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(mx.ModelExportError, match=f"does not fit pkg::Act: it {message}|pkg::Act: {message}|{message}"):
        mx.Replace(modules=["*.Act"], function=model_of(body))(model)
    assert ir.to_proto(model).SerializeToString() == before


# --- operations ------------------------------------------------------------------------------------------------------


def test_calls_become_operations_of_a_backend() -> None:
    """The functions go, and those that only they called; weights, scopes and tags stay on the nodes."""
    model = outlined()
    replace_options: dict[str, Any] = {
        "modules": ["*.Block"],
        "as_op": "vendor.Block",
        "attributes": {"eps": 0.5, "n": [1, 2]},
    }
    mx.Replace(**replace_options)(model)
    check(model)
    assert not model.functions
    assert dict(model.opset_imports) == {"": 20, "vendor": 1}
    assert tags_in(model.graph) == [("Block", "/Net/Block.layers.0"), ("Block", "/Net/Block.layers.1")]
    node = model.graph[1]
    assert [value.name for value in node.inputs if value] == ["b0", "layers.1.fc.weight"]
    assert (node.attributes["eps"].value, tuple(node.attributes["n"].value)) == (0.5, (1, 2))
    assert not mx.Replace(**replace_options)(model).modified


def test_an_operation_that_the_runtime_has_gives_what_the_body_gave() -> None:
    """QuickGelu of onnxruntime with alpha 1 is this body; it is called from inside another function."""
    model = outlined()
    expected = np.frombuffer(run(model, X)[0], np.float32)
    options = {"modules": ["*.SiLU"], "as_op": "com.microsoft.QuickGelu", "attributes": {"alpha": 1.0}}
    mx.Replace(**options)(model)  # type: ignore[arg-type]
    block = model.functions["pkg", "Block", ""]
    assert block.opset_imports["com.microsoft"] == 1
    assert tags_in(block) == [("Linear", "Linear.fc"), ("QuickGelu", "SiLU.act")]
    np.testing.assert_allclose(np.frombuffer(run(model, X)[0], np.float32), expected, rtol=1e-6)


def test_the_domain_of_an_operation_must_not_be_that_of_functions() -> None:
    """There, an operation without a body would be a call of a function that is not there."""
    with pytest.raises(mx.ModelExportError, match="domain 'pkg' of as_op is that of the functions pkg::"):
        mx.Replace(modules=["*.SiLU"], as_op="pkg.Fast")(outlined())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"as_op": "NoDomain"},
        {"as_op": "a.B", "body": Path("x.onnx")},
        {"body": Path("x.onnx"), "attributes": {"a": 1}},
        {"modules": "*.A", "as_op": "a.B"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Each has one meaning or none."""
    with pytest.raises(mx.ConfigError, match="replace: "):
        mx.Replace(**{"modules": ["*"], **options})


def test_no_function_that_fits_is_a_note() -> None:
    """Nothing is changed, and the note says why."""
    result = mx.Replace(modules=["*.Nope"], as_op="a.B")(outlined())
    assert not result.modified
    assert isinstance(result, mx.Outcome)
    assert result.notes == ["no function fits *.Nope; outline makes functions of modules"]
