"""A shape that one layer has as a constant and the next computes from what it made: both compute it, if proven."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.outlining.flow import read_graph
from modelexport_passes.outlining.known_values import KnownValues
from modelexport_passes.outlining.regions import Region
from modelexport_passes.scopes.ledger import format_tensor, parse_tensor, read_ledger
from modelexport_passes.surgery.upkeep import LedgerUpkeep
from tests.outlining.test_margins import FIRST, SECOND
from tests.outlining.test_margins import FOLDED as FOLDED_OUTSIDE
from tests.outlining.test_margins import FOLDED_SCOPES as SCOPES
from tests.outlining.test_outline import X, outlined
from tests.scoped_models import fingerprint, function_calls, run, scoped

FOLDED = FOLDED_OUTSIDE.replace("s = Shape(m)", "s = Shape(d)")
"""Layer 1 computes the shape of its product; in layer 0 it is folded."""

READ_INSIDE = FOLDED.replace("b = Reshape(a, k)", "t = Tanh(a)  b = Reshape(t, k)").replace(
    "e = Reshape(d, q)", "u = Tanh(d)  e = Reshape(u, q)"
)
READ_INSIDE_SCOPES = {
    name: f"{scope}/Attention.attn" if name in "tbcuef" else scope
    for name, scope in (SCOPES | {"t": FIRST, "u": SECOND}).items()
}
"""The shape is computed in the layer, and read in a module of it."""

ALL_INSIDE = FOLDED.replace("m = Reshape(c, l)", "h = Reshape(c, l)  m = Tanh(h)").replace(
    "y = Reshape(f, o)", "p = Reshape(f, o)  y = Tanh(p)"
)
ALL_INSIDE_SCOPES = {
    **{name: f"{scope}/Attention.attn" for name, scope in (SCOPES | {"h": FIRST, "p": SECOND}).items()},
    "m": FIRST,
    "y": SECOND,
}
"""The shape is computed and read in a module of the layer."""


def test_what_is_proven_equal_is_computed_in_both() -> None:
    """Layer 0 takes stand-ins for what the exporter folded; inlining gives it its constant back (in `outlined`)."""
    model = outlined(FOLDED, SCOPES)
    assert set(function_calls(model)) == {"Block"}
    assert [node.op_type for node in model.graph] == ["Block", "Block"]
    assert "Shape" in [node.op_type for node in model.functions["pkg", "Block", ""]]


def test_what_is_moved_for_its_shape_alone_is_part_of_the_shape() -> None:
    """An exporter fuses a Transpose with the next one, and leaves it where a shape is taken of it."""
    text = FOLDED.replace("s = Shape(d)", "t = Transpose <perm = [1, 0]> (d)  s = Shape(t)")
    text = text.replace("int64[1] {0}", "int64[1] {1}")
    model = outlined(text, SCOPES | {"t": SECOND})
    assert set(function_calls(model)) == {"Block"}
    assert len(model.graph) == 2


def test_a_table_of_distances_is_computed_in_both() -> None:
    """A constant of as many elements as pairs of positions is followed as shapes are."""
    rows = 10
    distances = ", ".join(str(row - column) for row in range(rows) for column in range(rows))
    size = f"float[{rows},{rows}]"
    text = f"""
    g ({size} x) => ({size} y) {{
        a = MatMul(x, x)
        k = Constant <value = int64[{rows},{rows}] {{{distances}}}> ()
        b = Cast <to = 1> (k)
        c = Mul(a, b)
        m = Softmax(c)
        d = MatMul(m, m)
        s = Shape(d)
        i = Constant <value = int64 {{0}}> ()
        n = Gather(s, i)
        o = Constant <value = int64 {{1}}> ()
        q = Range(i, n, o)
        u = Constant <value = int64[1] {{1}}> ()
        r = Unsqueeze(q, u)
        e = Sub(r, q)
        f = Cast <to = 1> (e)
        h = Mul(d, f)
        y = Softmax(h)
    }}
    """
    scopes = dict.fromkeys("akbcm", FIRST) | dict.fromkeys("dsinoqurefhy", SECOND)
    inputs = {"x": np.linspace(0, 1, rows * rows, dtype=np.float32).reshape(rows, rows)}
    model = scoped(text, scopes)
    before, kept = run(model, inputs), fingerprint(model)
    mx.Outline()(model)
    assert set(function_calls(model)) == {"Block"}
    assert run(model, inputs) == before
    mx.Inline()(model)
    assert fingerprint(model) == kept


def test_an_initializer_comes_back_as_one() -> None:
    """An optimizer folds shapes to initializers."""
    text = FOLDED.replace("k = Constant <value = int64[3] {2, 3, 1}> ()", "")
    text = text.replace("7, 1, 9}> {", "7, 1, 9}, int64[3] k = {2, 3, 1}> {")
    scopes = {name: scope for name, scope in SCOPES.items() if name != "k"}
    assert set(function_calls(outlined(text, scopes))) == {"Block"}


def test_a_module_inside_may_be_what_reads_the_shape() -> None:
    """A call inside takes the shape as an input."""
    assert set(function_calls(outlined(READ_INSIDE, READ_INSIDE_SCOPES))) == {"Block", "Attention"}


def _attention(number: int, x: str, tail: str, *, folded: bool) -> str:
    """A product in a shape that is a constant, or computed from the product and a constant."""
    computed = f"""
        s{number} = Shape(a{number})
        i{number} = Constant <value = int64[1] {{0}}> ()
        n{number} = Gather <axis = 0> (s{number}, i{number})
        r{number} = Constant <value = int64[2] {{{tail}}}> ()
        k{number} = Concat <axis = 0> (n{number}, r{number})"""
    constant = f"k{number} = Constant <value = int64[3] {{2, {tail}}}> ()"
    return f"""
        a{number} = MatMul({x}, w)
        {constant if folded else computed}
        b{number} = Reshape(a{number}, k{number})
        c{number} = Softmax <axis = -1> (b{number})
        o{number} = Constant <value = int64[2] {{2, 3}}> ()
        d{number} = Reshape(c{number}, o{number})"""


def test_what_stand_ins_need_may_come_from_the_caller() -> None:
    """Attentions in a layer differ in a constant that their shapes are made of: the layer passes it."""
    parts = [
        _attention(0, "x", "3, 1", folded=True), _attention(1, "d0", "1, 3", folded=True),
        _attention(2, "d1", "3, 1", folded=False), _attention(3, "d2", "1, 3", folded=False),
    ]  # fmt: skip
    weight = "<float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>"
    text = f"g (float[2,3] x) => (float[2,3] y) {weight} {{ {''.join(parts)} y = Identity(d3) }}"
    scopes = {
        f"{name}{number}": f"{(FIRST, SECOND)[number // 2]}/Attention.{('self', 'cross')[number % 2]}"
        for name in "asinrkbcod"
        for number in range(4)
    }
    model = outlined(text, {name: scope for name, scope in scopes.items() if f"{name} = " in text})
    assert set(function_calls(model)) == {"Block", "Attention"}
    calls = read_ledger(model).calls
    assert any("Attention" not in key and call.stand_ins for key, call in calls.items())


@pytest.mark.parametrize(
    "text",
    [
        FOLDED.replace("{2, 3, 1}", "{3, 2, 1}"),
        FOLDED.replace("float[2,3] x", "float[N,3] x"),
        FOLDED.replace(
            "m = Reshape(c, l)",
            "t = Reshape(c, k)  u = Softmax(t)  m = Reshape(u, l)",
        ).replace(
            "y = Reshape(f, o)",
            "v = Constant <value = int64[3] {2, 3, 1}> ()  w = Reshape(f, v)  z = Softmax(w)  y = Reshape(z, o)",
        ),
    ],
    ids=["another", "unknown", "otherwise used"],
)
def test_what_is_not_proven_keeps_bodies_apart(text: str) -> None:
    """The computed shape is another, or depends on the input; or the constant is needed for something else."""
    scopes = SCOPES | dict.fromkeys("tu", FIRST) | dict.fromkeys("vwz", SECOND)
    assert set(function_calls(outlined(text, scopes))) == {"Block", "Block_1"}


@pytest.mark.parametrize(
    ("text", "scopes"),
    [(READ_INSIDE, READ_INSIDE_SCOPES), (ALL_INSIDE, ALL_INSIDE_SCOPES)],
    ids=["read inside", "all inside"],
)
@pytest.mark.parametrize("first", ["*.Attention", "*.Block"])
def test_constants_come_back_also_step_by_step(first: str, text: str, scopes: dict[str, str]) -> None:
    """What is written out in a function that stays is remembered for the calls of that."""
    model = scoped(text, scopes)
    before, kept = run(model, X), fingerprint(model)
    mx.Outline()(model)
    mx.Inline(modules=[first])(model)
    assert run(model, X) == before
    mx.Inline()(model)
    assert run(model, X) == before
    assert fingerprint(model) == kept


def test_a_body_that_changed_computes_at_every_call() -> None:
    """What reads a stand-in now, the ledger does not know of: nothing is left out."""
    model = scoped(FOLDED, SCOPES)
    before = run(model, X)
    mx.Outline()(model)
    body = model.functions["pkg", "Block", ""]
    concat = next(node for node in body if node.op_type == "Concat")
    ((reader, _),) = concat.outputs[0].uses()
    copied = ir.Node("", "Identity", [reader.inputs[1]], name="between")
    copied.outputs[0].name = "between"
    reader.replace_input_with(1, copied.outputs[0])
    body.graph.insert_before(reader, [copied])
    mx.Inline()(model)
    assert run(model, X) == before
    assert [node.op_type for node in model.graph].count("Shape") == 2


def test_the_ledger_forgets_constants_of_bodies_that_a_pass_changes() -> None:
    """A pass may let a body compute something else under the same names."""
    model = scoped(FOLDED, SCOPES)
    mx.Outline()(model)
    assert any(call.stand_ins and call.constants for call in read_ledger(model).calls.values())
    upkeep = LedgerUpkeep(model)
    upkeep.follow({key: {str(node.name): str(node.name) for node in body} for key, body in model.functions.items()})
    assert not any(call.stand_ins or call.constants for call in read_ledger(model).calls.values())


KNOWN = """
g (float[2,3,N] x, int64[2] given) => (int64[2] y) {
    s = Shape(x)
    part = Shape <start = 0, end = 2> (x)
    i = Constant <value = int64[1] {1}> ()
    three = Gather <axis = 0> (part, i)
    minus = Neg(three)
    two = Constant <value = int64[1] {2}> ()
    half = Div(three, two)
    negative = Div(minus, two)
    sum = Add(given, three)
    flat = Flatten(x)
    moved = Transpose <perm = [1, 0, 2]> (x)
    turned = Shape <end = 2> (moved)
    drawn = RandomUniformLike(x)
    z = Shape <end = 1> (drawn)
    float = Cast <to = 1> (three)
    y = Add(given, turned)
}
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s", None), ("part", [2, 3]), ("three", [3]), ("half", [1]), ("negative", None), ("sum", None),
        ("turned", [3, 2]), ("z", None), ("float", None), ("given", None),
    ],
)  # fmt: skip
def test_what_is_known_before_anything_runs(name: str, expected: list[int] | None) -> None:
    """Sizes are, and what is computed of them in integers; nothing that depends on inputs, or on how runtimes round."""
    model = scoped(KNOWN, {})
    nodes = list(model.graph)
    ops = read_graph(model.graph, [None] * len(nodes), [Region((), None)] * len(nodes)).ops
    wires = {wire.value.name: wire for op in ops for wire in (*op.reads, *op.outs)}
    content = KnownValues(model.graph.opset_imports).content(wires[name])
    assert (None if content is None else content.tolist()) == expected


@pytest.mark.parametrize(
    "array", [np.array([1, -2], np.int64), np.array(3, np.int32), np.zeros((0,), np.int64), np.array([[True], [False]])]
)
def test_a_small_tensor_is_text_and_back(array: np.ndarray) -> None:
    """The ledger is JSON."""
    back = parse_tensor(format_tensor(ir.Tensor(array))).numpy()
    assert (back.dtype, back.tolist(), back.shape) == (array.dtype, array.tolist(), array.shape)
