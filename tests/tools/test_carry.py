"""Bringing scopes back: one small model before and after for each kind of evidence."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
import pytest

from modelexport_passes.builtin.inject_tags import InjectTags
from modelexport_passes.builtin.inline import Inline
from modelexport_passes.builtin.outline import Outline
from modelexport_passes.scopes.carry import CarryCounts, carry
from modelexport_passes.scopes.origins import origins_of
from modelexport_passes.scopes.scope import Source, scope_of, set_scope
from modelexport_passes.scopes.snapshot import take_snapshot
from modelexport_passes.scopes.tags import render_tag
from modelexport_passes.scopes.walk import all_nodes
from tests.scoped_models import scoped

NET, CONV, NORM = "/Net", "/Net/Conv.conv", "/Net/Norm.norm"

FOLD_BEFORE = """g (float[1,1,4,4] x) => (float[1,1,4,4] y)
    <float[1,1,1,1] w = {1}, float[1] s = {1}, float[1] b = {1}, float[1] m = {1}, float[1] v = {1}> {
    a = Conv(x, w)  y = BatchNormalization(a, s, b, m, v) }"""
FOLD_AFTER = """g (float[1,1,4,4] x) => (float[1,1,4,4] y) <float[1,1,1,1] w2 = {1}, float[1] b2 = {1}> {
    y = Conv(x, w2, b2) }"""


def carried(
    before: str, scopes: dict[str, str], after: str, **expected: int
) -> tuple[ir.Model, dict[str, str | None], dict[str, list[str]]]:
    """Carry from one text to the other.

    Returns:
        the model, first output -> tag, first output -> tags of the origins, where there are some.
    """
    model = scoped(after, {})
    counts = carry(model, take_snapshot(scoped(before, scopes)))
    assert counts == CarryCounts(**expected)
    tags: dict[str, str | None] = {}
    origins: dict[str, list[str]] = {}
    for node in all_nodes(model):
        name, scope = str(node.outputs[0].name), scope_of(node)
        tags[name] = None if scope is None else render_tag(scope)
        if origins_of(node):
            origins[name] = [render_tag(origin) for origin in origins_of(node)]
    return model, tags, origins


def test_the_name_of_an_output_brings_back_scope_and_source():
    """Whatever the node itself is called now."""
    before = "g (float[N] x) => (float[N] y) { a = Relu(x)  y = Neg(a) }"
    model = scoped(before, {})
    known = scoped(before, {"a": "/Net/Act.act", "y": NET}, source=Source.NAME)
    assert carry(model, take_snapshot(known)) == CarryCounts(by_name=2)
    assert [str(scope_of(node)) for node in model.graph] == [str(scope_of(node)) for node in known.graph]


def test_what_was_folded_into_the_weights_leaves_the_operation_where_it_was():
    """Conv and BatchNormalization make a Conv, of the convolution; both are its origins."""
    _, tags, origins = carried(
        FOLD_BEFORE,
        {"a": CONV, "y": NORM},
        FOLD_AFTER,
        replaced=1,
    )
    assert (tags, origins) == ({"y": CONV}, {"y": [CONV, NORM]})


def test_a_fused_operation_gets_the_lowest_common_module_call():
    """An addition of the block and the norm behind it are of the block, and from both."""
    block, norm = "/Net/Block.layers.0", "/Net/Block.layers.0/Norm.norm"
    _, tags, origins = carried(
        """g (float[2,4] x, float[2,4] r) => (float[2,4] y) <float[4] s = {1, 1, 1, 1}> {
            a = Add(x, r)  y = LayerNormalization(a, s) }""",
        {"a": block, "y": norm},
        "g (float[2,4] x, float[2,4] r) => (float[2,4] y) { y = Max(x, r) }",
        replaced=1,
    )
    assert (tags, origins) == ({"y": block}, {"y": [block, norm]})


def test_a_constant_of_another_module_is_no_origin():
    """Exporters share constants between modules; they do not pull a fused operation up."""
    _, tags, origins = carried(
        "g (float[N] x) => (float[N] y) { c = Constant <value_float = 0.5> ()  a = Mul(x, c)  y = Erf(a) }",
        {"c": "/Net/Other.other", "a": "/Net/Act.act", "y": "/Net/Act.act"},
        "g (float[N] x) => (float[N] y) { y = Gelu(x) }",
        replaced=1,
    )
    assert (tags, origins) == ({"y": "/Net/Act.act"}, {})


def test_a_folded_value_is_still_of_the_operation_that_gave_it():
    """Whatever went into it."""
    _, tags, _ = carried(
        "g (float[2] x) => (float[2] y) <int64[1] w = {1}> { a = Neg(w)  s = Abs(a)  y = Reshape(x, s) }",
        {"a": CONV, "s": NORM, "y": NET},
        "g (float[2] x) => (float[2] y) { s = Constant <value_ints = [2]> ()  y = Reshape(x, s) }",
        replaced=1,
        by_name=1,
    )
    assert tags == {"s": NORM, "y": NET}


def test_the_end_of_what_a_tool_moved_is_also_what_reads_its_weights():
    """A sum and its reshape became a sum behind a reshape: it is of both, not of the one whose value it has now."""
    _, tags, origins = carried(
        "g (float[4] x) => (float[2,2] y) <float[4] w = {1,2,3,4}, int64[2] s = {2,2}> "
        "{ a = Add(x, w)  b = Reshape(a, s)  y = Neg(b) }",
        {"a": "/Net/Block.l0/Linear.fc", "b": "/Net/Block.l0/Dropout.drop", "y": NET},
        "g (float[4] x) => (float[2,2] y) <float[4] w = {1,2,3,4}, int64[2] s = {2,2}> "
        "{ p = Reshape(x, s)  q = Gemm(p, w)  y = Neg(q) }",
        by_name=1,
        by_position=1,
        by_weights=1,
    )
    assert tags["q"] == "/Net/Block.l0"
    assert origins["q"] == ["/Net/Block.l0/Linear.fc", "/Net/Block.l0/Dropout.drop"]


def test_position_tells_what_a_new_name_hides():
    """By the operation that uses it, or by what it takes; that is a conclusion, and says so."""
    model, tags, _ = carried(
        "g (float[N] x) => (float[N] y) { a = Relu(x)  b = Neg(a)  c = Exp(b)  y = Abs(c) }",
        {"a": "/Net/A.a", "b": "/Net/B.b", "c": "/Net/C.c", "y": NET},
        "g (float[N] x) => (float[N] y) { p = Relu(x)  q = Neg(p)  r = Exp(q)  y = Abs(r) }",
        by_name=1,
        by_position=3,
    )
    assert list(tags.values()) == ["/Net/A.a", "/Net/B.b", "/Net/C.c", NET]
    assert [str(scope_of(node)).partition("|")[0] for node in model.graph] == ["dataflow"] * 3 + ["export"]


def test_twins_with_new_names_are_not_told_apart_by_what_they_take():
    """Two candidates are no evidence; what follows does tell."""
    _, tags, _ = carried(
        "g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x)  b = Relu(x)  y = Neg(a)  z = Exp(b) }",
        {"a": "/Net/A.a", "b": "/Net/B.b", "y": NET, "z": NET},
        "g (float[N] x) => (float[N] y, float[N] z) { p = Relu(x)  y = Cos(p)  z = Sin(p) }",
        replaced=2,
        by_neighbours=1,
    )
    assert tags["p"] == NET


def test_weights_tell_whose_a_new_operation_is():
    """An operation between others, in another module call than they, that reads the weight of one module."""
    _, tags, _ = carried(
        """g (float[2,2] x) => (float[2,2] y) <float[2,2] lin.weight = {1, 1, 1, 1}> {
            a = MatMul(x, lin.weight)  y = Neg(a) }""",
        {"a": "/Net/Linear.lin", "y": NET},
        """g (float[2,2] x) => (float[2,2] y) <float[2,2] lin.weight = {1, 1, 1, 1}, int64[2] s = {1, 1}> {
            r = Reshape(x, s)  m = Gemm(r, lin.weight)  y = Reshape(m, s) }""",
        replaced=1,
        by_weights=1,
        by_neighbours=1,
    )
    assert tags["m"] == "/Net/Linear.lin"


def test_the_end_of_what_an_operation_was_made_into_is_that_operation():
    """A MatMul made of integers: all of it is of the MatMul's module call, nothing of the call before."""
    _, tags, origins = carried(
        "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 1, 1, 1}> { a = Relu(x)  y = MatMul(a, w) }",
        {"a": "/Net/Act.act", "y": "/Net/Linear.lin"},
        """g (float[2,2] x) => (float[2,2] y) <int8[2,2] w_q = {1, 1, 1, 1}> {
            a = Relu(x)  q, s, z = DynamicQuantizeLinear(a)  i = MatMulInteger(q, w_q, z)
            f = Cast <to = 1> (i)  y = Mul(f, s) }""",
        by_name=1,
        replaced=1,
        by_neighbours=3,
    )
    assert {tags[name] for name in "qify"} == {"/Net/Linear.lin"}
    assert origins == {}


def test_unknown_stays_unknown():
    """An operation that had no scope is given none; and one that could be anywhere neither."""
    _, tags, _ = carried(
        "g (float[N] x) => (float[N] y) { a = Relu(x)  y = Neg(a) }",
        {},
        "g (float[N] x) => (float[N] y) { a = Relu(x)  n = Abs(a)  y = Neg(n) }",
        by_name=2,
        unknown=3,
        unknown_before=2,
    )
    assert set(tags.values()) == {None}


def test_one_name_in_two_branches_is_two_values():
    """Each branch of an If gets its own back."""
    text = """g (bool c, float[N] x) => (float[N] y) {
        y = If (c) <then_branch = t () => (float[N] o) { o = Relu(x) },
                    else_branch = e () => (float[N] o) { o = Neg(x) }> }"""
    known = scoped(text, {"y": NET})
    for node, tag in zip(all_nodes(known), (NET, "/Net/A.a", "/Net/B.b"), strict=True):
        set_scope(node, scope_of(next(iter(scoped("g (float[N] x) => (float[N] y) { y = Neg(x) }", {"y": tag}).graph))))
    model = scoped(text, {})
    assert carry(model, take_snapshot(known)) == CarryCounts(by_name=3)
    assert [str(scope_of(node)) for node in all_nodes(model)] == [str(scope_of(node)) for node in all_nodes(known)]


def test_bodies_get_their_relative_scopes_and_functions_their_module():
    """What a tool wiped from nodes and functions is back; the model inlines as before."""
    text = """g (float[2,4] x) => (float[2,4] y) <float[4] l0.s = {1, 1, 1, 1}, float[4] l1.s = {1, 1, 1, 1}> {
        a = Mul(x, l0.s)  b = Relu(a)  c = Mul(b, l1.s)  y = Relu(c) }"""
    scopes = {name: f"/Net/Block.l{layer}{inner}" for name, layer, inner in
              (("a", 0, "/Scale.s"), ("b", 0, ""), ("c", 1, "/Scale.s"), ("y", 1, ""))}  # fmt: skip
    model = scoped(text, scopes)
    InjectTags()(model)
    plain = [dict(node.metadata_props) for node in model.graph]
    Outline(modules=["*.Block"])(model)
    snapshot = take_snapshot(model)
    for holder in (model, model.graph, *model.functions.values(), *all_nodes(model)):
        holder.metadata_props.clear()
    assert carry(model, snapshot) == CarryCounts(by_name=4)
    Inline()(model)
    assert [dict(node.metadata_props) for node in model.graph] == plain


def _conv(nodes: Iterable[ir.Node]) -> ir.Node:
    return next(node for node in nodes if node.op_type == "Conv")


def test_origins_stay_right_through_outline_and_inline():
    """In a function they are relative to what they share; a function below that cannot tell them, inlining can."""
    _, _, origins = carried(
        FOLD_BEFORE,
        {"a": "/Net/Block.l0/Conv.conv", "y": "/Net/Block.l0/Norm.norm"},
        FOLD_AFTER,
        replaced=1,
    )
    expected = origins["y"]
    assert expected == ["/Net/Block.l0/Conv.conv", "/Net/Block.l0/Norm.norm"]
    for modules, inside in ((["*.Block"], ["Conv.conv", "Norm.norm"]), (["*.Conv"], [])):
        model, _, _ = carried(
            FOLD_BEFORE,
            {"a": "/Net/Block.l0/Conv.conv", "y": "/Net/Block.l0/Norm.norm"},
            FOLD_AFTER,
            replaced=1,
        )
        Outline(modules=modules)(model)
        (function,) = model.functions.values()
        assert [render_tag(origin) for origin in origins_of(_conv(function))] == inside
        Inline()(model)
        assert [render_tag(origin) for origin in origins_of(_conv(model.graph))] == expected


@pytest.mark.parametrize(("levels", "expected"), [(10, "/Net"), (1000, "/Net/Neg.n")])
def test_an_operation_is_not_fused_from_a_whole_model(levels: int, expected: str):
    """Of ten it may be; where only the last name survived a thousand, it is the last of them."""
    chain = "  ".join(f"v{i + 1} = Relu(v{i})" for i in range(levels))
    _, tags, _ = carried(
        f"g (float[N] v0) => (float[N] y) {{ {chain}  y = Neg(v{levels}) }}",
        {f"v{i + 1}": f"/Net/Act.a{i}" for i in range(levels)} | {"y": "/Net/Neg.n"},
        "g (float[N] v0) => (float[N] y) { y = Cos(v0) }",
        replaced=1,
    )
    assert tags["y"] == expected
