"""In what module calls may differ and share a function: attributes on request, shapes of weights unless told not to."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from tests.outlining.test_outline import X, outlined
from tests.scoped_models import check, fingerprint, function_calls, run, scoped

ACTS = """
g (float[2,3] x) => (float[2,3] y) {
    a = LeakyRelu <alpha = 0.1> (x)
    b = Neg(a)
    c = LeakyRelu <alpha = 0.2> (b)
    y = Neg(c)
}
"""
ACT_SCOPES = {
    "a": "/Net/Block.layers.0/Act.act",
    "b": "/Net/Block.layers.0",
    "c": "/Net/Block.layers.1/Act.act",
    "y": "/Net/Block.layers.1",
}


def values(node: ir.Node) -> dict[str, Any]:
    """Attributes of a node, references as ``@name``."""
    return {
        name: f"@{attribute.ref_attr_name}" if attribute.is_ref() else attribute.value
        for name, attribute in node.attributes.items()
    }


def alike(first: str, second: str, **options: Any) -> ir.Model:
    """Two blocks of one operation each, ``first`` and ``second`` with these attributes, outlined."""
    text = f"g (float[2,3] x) => (float[2,3] y) {{ a = {first}  y = {second} }}"
    return outlined(text, {"a": "/Net/M.m.0", "y": "/Net/M.m.1"}, **options)


def test_attributes_that_differ_become_attributes_of_the_function() -> None:
    """The calls pass them, through every function down to the operation."""
    model = outlined(ACTS, ACT_SCOPES, lift="attributes")
    assert function_calls(model) == {
        "Block": '["layers.0","layers.1"]',
        "Act": '["layers.0.act","layers.1.act"]',
    }
    assert [values(node)["alpha"] for node in model.graph] == pytest.approx([0.1, 0.2])
    assert values(model.functions["pkg", "Block", ""][0]) == {"alpha": "@alpha"}
    assert values(model.functions["pkg", "Act", ""][0]) == {"alpha": "@alpha"}
    for name in ("Block", "Act"):
        assert list(model.functions["pkg", name, ""].attributes) == ["alpha"]


def test_attributes_that_do_not_differ_stay_in_the_body() -> None:
    """Compilers read them there; and one call alone has nothing to differ from."""
    model = outlined(ACTS.replace("0.2", "0.1"), ACT_SCOPES, lift="attributes")
    assert values(model.functions["pkg", "Act", ""][0])["alpha"] == pytest.approx(0.1)
    assert not any(function.attributes for function in model.functions.values())


def test_without_the_request_they_keep_calls_apart() -> None:
    """By default an attribute is what the operation does."""
    assert set(function_calls(outlined(ACTS, ACT_SCOPES))) == {"Block", "Block_1", "Act", "Act_1"}


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ("Softmax <axis = 0> (x)", "Softmax <axis = 1> (a)", {"axis"}),
        ("Elu <alpha = 0.5> (x)", "Elu <alpha = 0.25> (a)", {"alpha"}),
        ('Gelu <approximate = "none"> (x)', 'Gelu <approximate = "tanh"> (a)', {"approximate"}),
        ("LpNormalization <axis = 0, p = 1> (x)", "LpNormalization <axis = 1, p = 2> (a)", {"axis", "p"}),
        ("Selu <alpha = 0.5, gamma = 0.5> (x)", "Selu <alpha = 0.25, gamma = 0.25> (a)", {"alpha"}),
        ("Selu <alpha = 0.5, gamma = 2.0> (x)", "Selu <alpha = 0.25, gamma = 2.0> (a)", {"alpha"}),
    ],
)
def test_numbers_and_texts_are_lifted(first: str, second: str, differs: set[str]) -> None:
    """Of any type; those that are equal to each other in every call are one attribute."""
    model = alike(first, second, lift="attributes")
    assert set(model.functions["pkg", "M", ""].attributes) == differs
    assert [set(values(node)) for node in model.graph] == [differs, differs]


def test_lists_are_lifted_and_ranks_may_differ() -> None:
    """A body says of its values only what is true at every call, types and ranks too."""
    text = """
    g (float[2,3] x) => (float[3,2] y, float[2] z, int64[2,3] i, double[2,3] d) {
        y = Transpose <perm = [1, 0]> (x)
        p = Transpose <perm = [0, 1]> (x)
        q = ArgMax <axis = 1, keepdims = 1> (p)
        r = ArgMax <axis = 1, keepdims = 0> (p)
        s = Cast <to = 1> (r)
        z = Neg(s)
        i = Cast <to = 7> (p)
        d = Cast <to = 11> (p)
        unused = Cast <to = 1> (q)
    }
    """
    scopes = {"y": "/Net/T.t.0", "p": "/Net/T.t.1", "q": "/Net/A.a.0", "r": "/Net/A.a.1", "s": "/Net", "z": "/Net"}
    scopes |= {"i": "/Net/C.c.0", "d": "/Net/C.c.1", "unused": "/Net"}
    model = outlined(text, scopes, lift="attributes")
    assert {function.name: set(function.attributes) for function in model.functions.values()} == {
        "T": {"perm"},
        "A": {"keepdims"},
        "C": {"to"},
    }
    assert model.functions["pkg", "C", ""].outputs[0].type is None


def test_attributes_with_other_names_or_in_bodies_of_control_flow_keep_calls_apart() -> None:
    """What one of the calls leaves out, no other can pass; and a body of an If is compared as it is."""
    assert len(alike("LeakyRelu(x)", "LeakyRelu <alpha = 0.2> (a)", lift="attributes").functions) == 2
    branch = (
        "If (c) <then_branch = t () => (float[2,3] {n}) {{ {n} = Elu <alpha = {v}> ({x}) }}, else_branch = e () => "
    )
    branch += "(float[2,3] e{n}) {{ e{n} = Neg({x}) }}>"
    first, second = branch.format(n="p", v="0.5", x="x"), branch.format(n="q", v="0.25", x="a")
    text = f"g (float[2,3] x) => (float[2,3] y) <bool c = {{1}}> {{ a = {first}  y = {second} }}"
    assert len(outlined(text, {"a": "/Net/M.m.0", "y": "/Net/M.m.1"}, lift="attributes").functions) == 2


def test_constants_are_lifted_besides() -> None:
    """``attributes`` does what ``auto`` does, and more; what a Constant holds becomes an input."""
    text = """
    g (float[2,3] x) => (float[2,3] y) {
        two = Constant <value = float {2}> ()
        a = Mul(x, two)
        b = LeakyRelu <alpha = 0.1> (a)
        three = Constant <value = float {3}> ()
        c = Mul(b, three)
        y = LeakyRelu <alpha = 0.2> (c)
    }
    """
    zero, one = "/Net/M.m.0", "/Net/M.m.1"
    scopes = {"two": zero, "a": zero, "b": zero, "three": one, "c": one, "y": one}
    model = outlined(text, scopes, lift="attributes")
    (function,) = model.functions.values()
    assert (list(function.attributes), len(function.inputs)) == (["alpha"], 2)


def test_inlining_in_stages_keeps_the_values() -> None:
    """A reference to an attribute of a function that stays stays one."""
    model = outlined(ACTS, ACT_SCOPES, lift="attributes")
    mx.Inline(modules=["*.Act"])(model)
    check(model)
    assert values(model.functions["pkg", "Block", ""][0]) == {"alpha": "@alpha"}
    mx.Inline()(model)
    assert fingerprint(model) == fingerprint(scoped(ACTS, ACT_SCOPES))


def test_calls_of_an_earlier_outlining_pass_attributes_too() -> None:
    """Modules first, their blocks later: what the calls pass is lifted in turn."""
    model = scoped(ACTS, ACT_SCOPES)
    before = run(model, X)
    mx.Outline(modules=["*.Act"], lift="attributes")(model)
    mx.Outline(modules=["*.Block"], lift="attributes")(model)
    check(model)
    assert {function.name for function in model.functions.values()} == {"Act", "Block"}
    assert run(model, X) == before


def test_a_module_taken_out_has_the_values_of_its_call() -> None:
    """`extract` leaves no reference: the main graph has nothing to refer to."""
    model = outlined(ACTS, ACT_SCOPES, lift="attributes")
    for path, alpha in (("layers.0", 0.1), ("layers.1.act", 0.2)):
        part = mx.extract(model, path)
        check(part)
        mx.Inline()(part)
        assert values(part.graph[0])["alpha"] == pytest.approx(alpha)


def test_another_body_takes_the_attributes_that_calls_pass() -> None:
    """It may refer to them, or not; what calls do not pass it cannot need."""
    body = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20, "b": 1]>
        g (float[2,3] x) => (float[2,3] y) { y = b.F <alpha = 1.0> (x) }
        <domain: "b", opset_import: ["": 20]>
        F <alpha> (x) => (y) { y = ThresholdedRelu <alpha: float = @alpha> (x) }"""
    ).functions["b", "F", ""]
    model = outlined(ACTS, ACT_SCOPES, lift="attributes")
    mx.Replace(modules=["*.Act"], function=body)(model)
    check(model)
    mx.Inline()(model)
    assert [node.op_type for node in model.graph] == ["ThresholdedRelu", "Neg"] * 2
    assert values(model.graph[2])["alpha"] == pytest.approx(0.2)

    model = outlined(ACTS, ACT_SCOPES, lift="attributes")
    mx.Replace(modules=["*.Act"], function=ir.from_onnx_text("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }"))(
        model
    )
    check(model)
    assert list(model.functions["pkg", "Act", ""].attributes) == ["alpha"]

    model = outlined(ACTS, ACT_SCOPES)
    with pytest.raises(mx.ModelExportError, match="needs the attributes alpha, and calls of pkg::Act pass none"):
        mx.Replace(modules=["*.Act"], function=body)(model)


def test_why_two_calls_do_not_share_names_no_attribute_that_is_lifted() -> None:
    """The first difference that counts."""
    text = ACTS.replace("y = Neg(c)", "y = Abs(c)")
    blocks, *_ = mx.Outline(lift="attributes").plan(scoped(text, ACT_SCOPES)).near_misses()
    assert str(blocks).endswith("differ: Neg of b and Abs of y")


# --- weights ---------------------------------------------------------------------------------------------------------

WEIGHTS = """
g (float[2,3] x) => (float[2,2] y) <float[3,3] m.0.w = {1,2,3,4,5,6,7,8,9}, float[3,2] m.1.w = {1,2,3,4,5,6}>
{ a = MatMul(x, m.0.w)  y = MatMul(a, m.1.w) }
"""
WEIGHT_SCOPES = {"a": "/Net/Linear.m.0", "y": "/Net/Linear.m.1"}


def test_weights_of_other_shapes_share_unless_told_otherwise() -> None:
    """A compiler that compiles a block once needs them equal, a reader does not."""
    assert len(outlined(WEIGHTS, WEIGHT_SCOPES).functions) == 1
    model = outlined(WEIGHTS, WEIGHT_SCOPES, weights="shape")
    assert [[str(dim) for dim in f.inputs[1].shape or ()] for f in model.functions.values()] == [["3", "3"], ["3", "2"]]


def test_weights_of_one_shape_share_in_either_case() -> None:
    """Their values are never compared."""
    text = WEIGHTS.replace("[3,2] m.1.w = {1,2,3,4,5,6}", "[3,3] m.1.w = {9,8,7,6,5,4,3,2,1}").replace(
        "[2,2] y", "[2,3] y"
    )
    assert len(outlined(text, WEIGHT_SCOPES, weights="shape").functions) == 1


def test_shapes_of_weights_are_told_as_a_reason() -> None:
    """With both shapes."""
    (miss,) = mx.Outline(weights="shape").plan(scoped(WEIGHTS, WEIGHT_SCOPES)).near_misses()
    assert miss.difference.startswith(
        "input 1 of MatMul of a is a weight FLOAT[3, 3], of MatMul of y a weight FLOAT[3, 2]"
    )


@pytest.mark.parametrize("options", [{"lift": "always"}, {"weights": "shapes"}])
def test_other_words_are_refused(options: dict[str, Any]) -> None:
    """In Python as in YAML."""
    with pytest.raises(mx.ConfigError, match=r"expected (auto|any) or"):
        mx.Outline(**options)
