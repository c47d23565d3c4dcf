"""Bodies that are equal up to order, or up to a copy or transposition of a weight, are one function."""

from __future__ import annotations

import pytest

from tests.outlining.test_outline import outlined
from tests.scoped_models import function_calls

REORDERED = """
g (float[2,3] x) => (float[2,3] y) {
    a = Neg(x)
    b = Exp(x)
    c = Sub(a, b)
    d = Exp(c)
    e = Neg(c)
    y = Sub(e, d)
}
"""
BLOCKS = {name: f"/Net/Block.layers.{layer}" for layer, names in enumerate(("abc", "dey")) for name in names}

PAIRS = """
g (float[2,3] x) => (float[2,3] y) {
    s = Exp(x)
    a = Neg(x)
    b = Neg(x)
    c = Sub(a, s)
    d = Sub(b, s)
    e = Sub(c, d)
    t = Exp(e)
    f = Neg(e)
    h = Neg(e)
    i = Sub(h, t)
    j = Sub(f, t)
    y = Sub(j, i)
}
"""
"""What c, d, i and j do is equal, and all are read outside: only what they are made of tells which come first."""

WEIGHTS = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.lin.weight = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3] layers.0.lin.bias = {1, 2, 3},
 float[3,3] layers.1.lin.weight = {3, 2, 3, 1, 5, 6, 7, 1, 9}> {
    a = MatMul(x, layers.0.lin.weight)
    b = Add(a, layers.0.lin.bias)
    c = Neg(b)
    t = Transpose <perm = [1, 0]> (layers.1.lin.weight)
    copy = Identity(layers.0.lin.bias)
    d = MatMul(c, t)
    e = Add(d, copy)
    y = Neg(e)
}
"""
WEIGHT_SCOPES = {
    **dict.fromkeys("ab", "/Net/Block.layers.0/Linear.lin"),
    "c": "/Net/Block.layers.0",
    **dict.fromkeys(("t", "copy", "d", "e"), "/Net/Block.layers.1/Linear.lin"),
    "y": "/Net/Block.layers.1",
}


@pytest.mark.parametrize(
    ("text", "scopes", "functions"),
    [
        (REORDERED, BLOCKS, {"Block"}),
        (
            PAIRS,
            {name: f"/Net/Block.layers.{at}" for at, names in enumerate(("sabcd", "tfhij")) for name in names}
            | {"e": "/Net", "y": "/Net"},
            {"Block"},
        ),
        (WEIGHTS, WEIGHT_SCOPES, {"Block", "Linear"}),
    ],
    ids=["reordered", "pairs", "weights"],
)
def test_equal_bodies_share_and_come_back(text: str, scopes: dict[str, str], functions: set[str]) -> None:
    """One function for each class; results, operations and scopes are as before."""
    assert set(function_calls(outlined(text, scopes))) == functions


def test_the_first_keeps_its_order() -> None:
    """The body of a function is the first call's, as the exporter wrote it."""
    model = outlined(REORDERED, BLOCKS)
    assert [node.op_type for node in model.functions["pkg", "Block", ""]] == ["Neg", "Exp", "Sub"]


def test_views_of_weights_are_passed_as_weights() -> None:
    """They lie in front of the call, and the input has the weight's name."""
    model = outlined(WEIGHTS, WEIGHT_SCOPES)
    assert sorted(node.op_type for node in model.graph) == ["Block", "Block", "Identity", "Transpose"]
    assert [value.name for value in model.functions["pkg", "Block", ""].inputs] == ["input_0", "lin.bias", "lin.weight"]


def test_views_stay_where_all_have_them() -> None:
    """A Linear that transposes its weight in every layer does so in its body."""
    both = WEIGHTS.replace(
        "a = MatMul(x, layers.0.lin.weight)", "s = Transpose <perm = [1, 0]> (layers.0.lin.weight)  a = MatMul(x, s)"
    )
    model = outlined(
        both.replace("copy = Identity(layers.0.lin.bias)", "").replace("copy", "layers.0.lin.bias"),
        {**WEIGHT_SCOPES, "s": WEIGHT_SCOPES["a"]},
    )
    assert [node.op_type for node in model.graph] == ["Block", "Block"]


def test_what_lifts_nothing_leaves_views_inside() -> None:
    """``lift: never`` moves nothing to the caller, so the bodies stay apart."""
    model = outlined(WEIGHTS, WEIGHT_SCOPES, lift="never")
    assert set(function_calls(model)) == {"Block", "Block_1", "Linear", "Linear_1"}


@pytest.mark.parametrize(
    "second",
    [
        "d = Exp(c)  e = Neg(c)  y = Sub(d, e)",
        "d = Exp(c)  e = Neg(d)  y = Sub(e, d)",
        "d = Exp(c)  e = Neg(c)  y = Sub(e, e)",
    ],
)
def test_another_wiring_is_another_body(second: str) -> None:
    """The same operations, wired in another way, are not equal in any order."""
    text = REORDERED.replace("d = Exp(c)\n    e = Neg(c)\n    y = Sub(e, d)", second)
    model = outlined(text, BLOCKS)
    assert set(function_calls(model)) == {"Block", "Block_1"}


def test_a_call_stands_where_its_first_operation_stood() -> None:
    """Not where a constant stood that it has a copy of: the order of the file is kept where it can be."""
    text = """
    g (float[2,3] x) => (float[2,3] y) {
        two = Constant <value = float {2.0}> ()
        a = Neg(x)
        b = Mul(x, two)
        c = Exp(b)
        y = Add(a, c)
    }
    """
    model = outlined(text, {"two": "/Net", "a": "/Net", **dict.fromkeys("bc", "/Net/Block.block"), "y": "/Net"})
    assert [node.op_type for node in model.graph] == ["Neg", "Block", "Add"]
