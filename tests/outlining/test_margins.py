"""Like bodies that differ in light operations at their edges are one function; these operations lie in the caller."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from tests.outlining.test_outline import outlined
from tests.scoped_models import function_calls

FIRST, SECOND = "/Net/Block.layers.0", "/Net/Block.layers.1"

FOLDED = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.weight = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[3,3] layers.1.weight = {3, 2, 3, 1, 5, 6, 7, 1, 9}> {
    a = MatMul(x, layers.0.weight)
    k = Constant <value = int64[3] {2, 3, 1}> ()
    b = Reshape(a, k)
    c = Softmax <axis = -1> (b)
    l = Constant <value = int64[2] {2, 3}> ()
    m = Reshape(c, l)
    d = MatMul(m, layers.1.weight)
    s = Shape(m)
    i = Constant <value = int64[1] {0}> ()
    n = Gather <axis = 0> (s, i)
    r = Constant <value = int64[2] {3, 1}> ()
    q = Concat <axis = 0> (n, r)
    e = Reshape(d, q)
    f = Softmax <axis = -1> (e)
    o = Constant <value = int64[2] {2, 3}> ()
    y = Reshape(f, o)
}
"""
"""The shape that layer 1 computes from its input is a constant in layer 0."""

FOLDED_SCOPES = dict.fromkeys("akbclm", FIRST) | dict.fromkeys("dsinrqefoy", SECOND)

MOVED = """
g (float[2,3] x) => (float[3,2] y) {
    t = Transpose <perm = [1, 0]> (x)
    a = Softmax <axis = 0> (t)
    b = Tanh(a)
    c = Softmax <axis = 0> (b)
    d = Tanh(c)
    u = Transpose <perm = [1, 0]> (d)
    v = Transpose <perm = [1, 0]> (u)
    y = Tanh(v)
}
"""
"""Layer 0 begins with a Transpose, layer 1 ends with two."""

MOVED_SCOPES = dict.fromkeys("tab", FIRST) | dict.fromkeys("cduv", SECOND) | {"y": "/Net"}


def _kinds(nodes: ir.Graph | ir.Function) -> list[str]:
    return [node.op_type for node in nodes]


def _work(nodes: ir.Graph | ir.Function) -> list[str]:
    return [kind for kind in _kinds(nodes) if kind != "Constant"]


def test_a_folded_shape_and_a_computed_one_share() -> None:
    """The constant stands in front of the one call, the computation in front of the other; the rest is the body."""
    model = outlined(FOLDED, FOLDED_SCOPES)
    assert set(function_calls(model)) == {"Block"}
    body = model.functions["pkg", "Block", ""]
    assert _work(body) == ["MatMul", "Reshape", "Softmax", "Reshape"]
    assert _work(model.graph) == [
        "Block",
        "Shape",
        "Gather",
        "Concat",
        "Block",
    ]


def test_what_all_bodies_have_at_their_edges_stays() -> None:
    """The last Reshape, and the constant that it takes, are in both layers, and so in the function."""
    model = outlined(FOLDED, FOLDED_SCOPES)
    assert _kinds(model.functions["pkg", "Block", ""]).count("Constant") == 1
    assert _kinds(model.graph).count("Constant") == 3


def test_data_is_moved_in_front_of_a_call_and_behind() -> None:
    """A Transpose that one layer begins or ends with lies outside, and the call gives what that takes."""
    model = outlined(MOVED, MOVED_SCOPES)
    assert _kinds(model.functions["pkg", "Block", ""]) == ["Softmax", "Tanh"]
    assert _kinds(model.graph) == ["Transpose", "Block", "Block", "Transpose", "Transpose", "Tanh"]


def test_what_only_the_back_of_each_body_takes_is_given() -> None:
    """One layer ends with a Transpose, the other with an Identity: the call gives what these take."""
    text = MOVED.replace("c = Softmax <axis = 0> (b)", "w = Identity(b)  c = Softmax <axis = 0> (w)")
    model = outlined(text, {**MOVED_SCOPES, "w": FIRST})
    assert _kinds(model.functions["pkg", "Block", ""]) == ["Softmax", "Tanh"]
    assert _kinds(model.graph) == ["Transpose", "Block", "Identity", "Block", "Transpose", "Transpose", "Tanh"]


def test_margins_go_out_through_all_modules_around() -> None:
    """A shape that a module in the module computes from the input of both lies in front of the outer call."""
    inner = {name: f"{scope}/Attention.attn" for name, scope in FOLDED_SCOPES.items()}
    text = FOLDED.replace("y = Reshape(f, o)", "p = Reshape(f, o)  y = Neg(p)").replace(
        "m = Reshape(c, l)", "h = Reshape(c, l)  m = Neg(h)"
    )
    scopes = {**inner, "m": FIRST, "y": SECOND, "h": inner["m"], "p": inner["y"]}
    model = outlined(text, scopes)
    assert set(function_calls(model)) == {"Attention", "Block"}
    assert _work(model.graph) == [
        "Block",
        "Shape",
        "Gather",
        "Concat",
        "Block",
    ]


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        # The shape is that of what the layer has made, and not known: it is not there before the call.
        (FOLDED.replace("s = Shape(m)", "s = Shape(d)").replace("float[2,3] x", "float[N,3] x"), FOLDED_SCOPES),
        # Softmax is a layer's work.
        (MOVED.replace("t = Transpose <perm = [1, 0]> (x)", "t0 = Softmax(x)  t = Transpose <perm = [1, 0]> (t0)"),
         {**MOVED_SCOPES, "t0": FIRST}),
        # What only moves data may go behind a call, arithmetic not.
        (MOVED.replace("v = Transpose <perm = [1, 0]> (u)", "v = Neg(u)").replace("[3,2]", "[2,3]"), MOVED_SCOPES),
        # What the body's work needs cannot run behind the call.
        (MOVED.replace("b = Tanh(a)", "p = Transpose <perm = [0, 1]> (a)  b = Tanh(p)"), {**MOVED_SCOPES, "p": FIRST}),
    ],
    ids=["inner shape", "work", "arithmetic behind", "in the middle"],
)  # fmt: skip
def test_what_is_no_margin_keeps_bodies_apart(text: str, scopes: dict[str, str]) -> None:
    """Work, and what needs work that was done inside, stays inside."""
    assert set(function_calls(outlined(text, scopes))) == {"Block", "Block_1"}


@pytest.mark.parametrize(("text", "scopes"), [(FOLDED, FOLDED_SCOPES), (MOVED, MOVED_SCOPES)])
def test_what_lifts_nothing_leaves_margins_inside(text: str, scopes: dict[str, str]) -> None:
    """``lift: never`` moves nothing to the caller, so the bodies stay apart."""
    assert set(function_calls(outlined(text, scopes, lift="never"))) == {"Block", "Block_1"}


NESTED = """
g (float[2,3] x) => (float[2,3] y)
<int64[2] k = {3, 2}, int64[2] l = {6, 1}, int64[2] back = {2, 3}> {
    a = Reshape(x, k)
    b = Tanh(a)
    c = Reshape(b, back)
    d = Reshape(c, l)
    e = Tanh(d)
    y = Reshape(e, back)
}
"""


def test_a_folded_shape_goes_out_through_two_modules() -> None:
    """Calls of modules inside pass on the initializer that the main graph has."""
    scopes = {name: f"{block}/Inner.inner" for block, names in ((FIRST, "abc"), (SECOND, "dey")) for name in names}
    model = outlined(NESTED, scopes)
    assert set(function_calls(model)) == {"Block", "Inner"}
    assert [
        value.name for call in model.graph for value in call.inputs if value is not None and value.name in ("k", "l")
    ] == [
        "k",
        "l",
    ]


TABLES = """
g (float[2,3] x, float[2,3] z) => (float[2,3] y)
<float[3] %s = {1, 2, 3}> {
    t = Mul(z, %s)
    a = Softmax(t)
    b = Mul(x, a)
    c = Softmax(b)
    d = Mul(x, c)
    y = Neg(d)
}
"""
TABLE_SCOPES = dict.fromkeys("tab", FIRST) | dict.fromkeys("cd", SECOND) | {"y": "/Net"}


@pytest.mark.parametrize(
    ("name", "functions"), [("pow_5", {"Block"}), ("layers.0.scale", {"Block", "Block_1"})], ids=["folded", "parameter"]
)
def test_numbers_that_were_folded_are_no_weight(name: str, functions: set[str]) -> None:
    """A product with a row of numbers that is no parameter is light; one with a parameter is a layer's work."""
    assert set(function_calls(outlined(TABLES % (name, name), TABLE_SCOPES))) == functions


PARTLY_FOLDED = """
g (float[2,3] x) => (float[2,3] y)
<float[2,3] %s = {1, 2, 3, 4, 5, 6}, float[2,3] val_2 = {2, 3, 4, 5, 6, 7}> {
    one = Constant <value = float {1}> ()
    m = Add(%s, one)
    a = Mul(x, m)
    b = Softmax(a)
    c = Mul(b, val_2)
    y = Softmax(c)
}
"""


@pytest.mark.parametrize(
    ("name", "functions"), [("val_1", {"Block"}), ("layers.0.mask", {"Block", "Block_1"})], ids=["folded", "parameter"]
)
def test_what_is_made_of_folded_numbers_alone_is_no_work(name: str, functions: set[str]) -> None:
    """An optimizer folded a mask up to some step in one layer, and all of it in the next; a parameter is no mask."""
    scopes = {"one": FIRST, "m": FIRST, "a": FIRST, "b": FIRST, "c": SECOND, "y": SECOND}
    assert set(function_calls(outlined(PARTLY_FOLDED % (name, name), scopes))) == functions


DEAD_PART = """
g (float[2,3] x) => (float[2,3] y) {
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    a = Softmax(x)
    p = Slice(a, zero, one, zero)
    b = Mul(a, x)
    c = Softmax(b)
    d = Mul(c, b)
    y = Add(d, p)
}
"""


def test_a_part_that_only_one_layer_gives_is_cut_behind_its_call() -> None:
    """What a layer hands on besides is not used behind the last one: its exporter dropped the operation there."""
    scopes = dict.fromkeys(("zero", "one", "a", "p", "b"), FIRST) | dict.fromkeys("cd", SECOND) | {"y": "/Net"}
    model = outlined(DEAD_PART, scopes)
    assert set(function_calls(model)) == {"Block"}
    assert "Slice" in _kinds(model.graph)
