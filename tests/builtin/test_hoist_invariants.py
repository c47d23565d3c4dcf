"""What leaves repeated bodies, how far out it goes, what stays; and that results are the same to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelexport_passes as mx
from modelexport_passes.testing import model_of
from tests.outlining.test_random_groupings import GRAPH_INPUTS, graphs, group
from tests.scoped_models import check, function_calls, run, scoped, tags_in

X = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2,
    "m": np.array([[0.5, 1, 2], [3, 4, 5]], np.float32),
}

LAYER = """
    e{at} = Exp(m)
    t{at} = Mul(e{at}, m)
    a{at} = MatMul({x}, layers.{at}.w)
    y{at} = Mul(a{at}, t{at})
"""
WEIGHTS = ", ".join(f"float[3,3] layers.{at}.w = {{1,2,3,4,5,6,7,8,{at}}}" for at in range(3))
NET = f"""
g (float[2,3] x, float[2,3] m) => (float[2,3] y2) <{WEIGHTS}> {{
    {LAYER.format(at=0, x="x")} {LAYER.format(at=1, x="y0")} {LAYER.format(at=2, x="y1")}
}}
"""


def scopes(inner: str = "") -> dict[str, str]:
    """All of a layer is its own; with ``inner``, the work on the mask is that of a module in it."""
    return {
        f"{name}{at}": f"/Net/Block.layers.{at}{inner if name in 'et' else ''}" for at in range(3) for name in "etay"
    }


def outlined(text: str, tags: dict[str, str]) -> ir.Model:
    model = scoped(text, tags)
    mx.InjectTags()(model)
    mx.Outline()(model)
    return model


def hoisted(model: ir.Model) -> ir.Model:
    """The model after the pass, and after the checks that hold for every one."""
    inputs = {str(value.name): X[str(value.name)] for value in model.graph.inputs}
    expected = run(model, inputs)
    mx.HoistInvariants()(model)
    check(model)
    assert run(model, inputs) == expected
    assert not mx.HoistInvariants()(model).modified
    back = model.clone()
    mx.Inline()(back)
    check(back)
    assert run(back, inputs) == expected
    return model


def signature(model: ir.Model, name: str) -> list[str | None]:
    return [value.name for value in model.functions["pkg", name, ""].inputs]


def operators(model: ir.Model, name: str | None = None) -> list[str]:
    return [node.op_type for node in (model.functions["pkg", name, ""] if name else model.graph)]


# --- what leaves -----------------------------------------------------------------------------------------------------


def test_work_on_what_all_calls_share_is_done_once() -> None:
    """Its result is an input in front of the weights, its own input goes; it keeps the scope of the first call."""
    model = outlined(NET, scopes())
    assert signature(model, "Block") == ["input_0", "input_1", "w"]
    result = mx.HoistInvariants()(model.clone())
    assert isinstance(result, mx.Outcome)
    assert result.figures == {"functions": 1, "operations": 2, "executed": "12 -> 8"}
    hoisted(model)
    assert signature(model, "Block") == ["input_1", "t0", "w"]
    assert operators(model, "Block") == ["MatMul", "Mul"]
    assert tags_in(model.graph)[:2] == [("Exp", "/Net/Block.layers.0"), ("Mul", "/Net/Block.layers.0")]
    assert model.graph[0].metadata_props["hierarchy_tag"] == "/Net/Block.layers.0"


def test_a_whole_call_leaves() -> None:
    """A module in each block that all of them could share is called once; its function stays as it is."""
    model = outlined(NET, scopes("/Mask.mask"))
    assert operators(model, "Block") == ["Mask", "MatMul", "Mul"]
    hoisted(model)
    assert operators(model) == ["Mask", "Block", "Block", "Block"]
    assert operators(model, "Mask") == ["Exp", "Mul"]
    assert tags_in(model.graph)[0] == ("Mask", "/Net/Block.layers.0/Mask.mask")
    assert function_calls(model)["Mask"] == '["layers.0.mask"]'


def test_it_leaves_through_every_function_around() -> None:
    """Called once in a block, and the block three times: it goes out to where there is one."""
    tags = {name: tag + "/Inner.inner" if name[0] in "ety" else tag for name, tag in scopes().items()}
    model = hoisted(outlined(NET, tags))
    assert operators(model, "Inner") == ["Mul"]
    assert operators(model, "Block") == ["MatMul", "Inner"]
    assert operators(model) == ["Exp", "Mul", "Block", "Block", "Block"]
    assert tags_in(model.graph)[0] == ("Exp", "/Net/Block.layers.0/Inner.inner")


def test_it_goes_as_far_as_its_inputs_reach() -> None:
    """What all layers of an encoder share goes into the encoder, of which there are two with other masks."""
    text = """
    g (float[2,3] x, float[2,3] m) => (float[2,3] y) {
        n = Neg(m)
        e0 = Exp(m)  a0 = Mul(x, e0)   e1 = Exp(m)  a1 = Mul(a0, e1)
        e2 = Exp(n)  a2 = Mul(a1, e2)  e3 = Exp(n)  y = Mul(a2, e3)
    }
    """
    tags = {"n": "/Net"}
    for at, name in enumerate(("a0", "a1", "a2", "y")):
        tags |= dict.fromkeys((name, f"e{at}"), f"/Net/Encoder.e{at // 2}/Layer.l{at % 2}")
    model = hoisted(outlined(text, {**tags}))
    assert operators(model, "Encoder") == ["Exp", "Layer", "Layer"]
    assert operators(model, "Layer") == ["Mul"]
    assert operators(model) == ["Neg", "Encoder", "Encoder"]
    assert tags_in(model.functions["pkg", "Encoder", ""])[0] == ("Exp", "Layer.l0")


def test_a_large_table_made_of_constants_leaves() -> None:
    """Small ones stay, as do the constants themselves where they are still read."""
    text = """
    g (float[2,3] x) => (float[90,2,3] y) {
        s0 = Constant <value = int64[3] {90, 1, 1}> ()  o0 = ConstantOfShape(s0)  c0 = Cos(o0)  b0 = Add(x, c0)
        s1 = Constant <value = int64[3] {90, 1, 1}> ()  o1 = ConstantOfShape(s1)  c1 = Cos(o1)  b1 = Add(x, c1)
        y = Sub(b0, b1)
    }
    """
    model = scoped(text, {name: f"/Net/Rope.r{name[1]}" for name in ("s0", "o0", "c0", "b0", "s1", "o1", "c1", "b1")})
    for node in model.graph:
        if node.op_type in ("ConstantOfShape", "Cos"):
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([90, 1, 1])
    mx.Outline()(model)
    assert operators(model, "Rope") == ["Constant", "ConstantOfShape", "Cos", "Add"]
    hoisted(model)
    assert operators(model, "Rope") == ["Add"]
    assert operators(model) == ["Constant", "ConstantOfShape", "Cos", "Rope", "Rope", "Sub"]


# --- what stays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        "e{at} = Exp({x})  y{at} = Mul(e{at}, m)",
        "e{at} = RandomNormalLike <seed = 1.0> (m)  k{at} = Sub(e{at}, e{at})  y{at} = Add({x}, k{at})",
        "e{at} = Shape(m)  y{at} = Reshape({x}, e{at})",
    ],
    ids=["an activation", "random", "a small shape"],
)
def test_what_differs_by_call_or_is_cheap_stays(layer: str) -> None:
    """Activations, random numbers, shapes and axes."""
    body = f"{layer.format(at=0, x='x')}  {layer.format(at=1, x='y0')}  y = Identity(y1)"
    names = [f"{name}{at}" for at in (0, 1) for name in "eky"]
    model = scoped(
        f"g (float[2,3] x, float[2,3] m) => (float[2,3] y) {{ {body} }}",
        {name: f"/Net/Block.layers.{name[1]}" for name in names},
    )
    for node in model.graph:
        if node.op_type == "Shape":
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([2])
    mx.Outline()(model)
    assert len(model.functions) == 1
    assert not mx.HoistInvariants()(model).modified


def test_a_function_that_runs_once_keeps_its_work() -> None:
    """There is nothing to save."""
    text = "g (float[2,3] x, float[2,3] m) => (float[2,3] y) { e = Exp(m)  y = Mul(x, e) }"
    assert not mx.HoistInvariants()(outlined(text, {"e": "/Net/Block.b", "y": "/Net/Block.b"})).modified


def test_functions_that_run_as_often_as_their_callers_keep_their_work() -> None:
    """Two different blocks, once each, that call one function: in front of both calls it would run as often."""
    text = """
    g (float[2,3] x, float[2,3] m) => (float[2,3] y) {
        e = Exp(m)  a = Mul(x, e)  b = Neg(a)
        f = Exp(m)  c = Mul(b, f)  y = Relu(c)
    }
    """
    tags = {"e": "/Net/A.a/Gate.g", "a": "/Net/A.a/Gate.g", "b": "/Net/A.a"}
    tags |= {"f": "/Net/B.b/Gate.g", "c": "/Net/B.b/Gate.g", "y": "/Net/B.b"}
    model = outlined(text, tags)
    assert {name for _, name, _ in model.functions} == {"A", "B", "Gate"}
    assert not mx.HoistInvariants()(model).modified


def test_a_function_that_is_called_in_a_body_keeps_its_work() -> None:
    """An If might not run it at all. References to attributes stay as well: they differ by call."""
    model = model_of("""
    <ir_version: 10, opset_import: ["": 20, "lib": 1]>
    g (bool c, float[2,3] m) => (float[2,3] y) {
        y = If (c) <
            then_branch = t () => (float[2,3] a) { a = lib.Act <alpha = 0.5> (m) },
            else_branch = e () => (float[2,3] b) { b = lib.Act <alpha = 0.5> (m) }
        >
    }
    <opset_import: ["": 20], domain: "lib">
    Act <alpha> (h) => (z) { i = Exp(h)  z = LeakyRelu <alpha: float = @alpha> (i) }
    """)
    assert not mx.HoistInvariants()(model).modified


def test_a_flat_model_is_told_to_outline_first() -> None:
    """Nothing is done, and the note says why."""
    result = mx.HoistInvariants()(scoped(NET, scopes()))
    assert isinstance(result, mx.Outcome)
    assert not result.modified
    assert result.notes == ["the model has no functions; outline makes functions of modules"]


# --- any grouping ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=graphs(), seed=st.integers(0, 2**16))
def test_any_outlined_grouping_gives_the_same_bits(text: str, seed: int) -> None:
    """Whatever is shared, by whom, and called how often."""
    model = model_of(text)
    group(model, seed)
    mx.Outline()(model)
    inputs: dict[str, np.ndarray[Any, Any]] = dict(GRAPH_INPUTS)
    expected = run(model, inputs)
    mx.HoistInvariants()(model)
    check(model)
    assert run(model, inputs) == expected
    assert not mx.HoistInvariants()(model).modified
    mx.Inline()(model)
    assert run(model, inputs) == expected
