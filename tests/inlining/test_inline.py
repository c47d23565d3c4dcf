"""What inline does with functions, ours and others': wiring, names, attributes, scopes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of, set_scope
from modelexport_passes.scopes.walk import all_nodes
from modelexport_passes.testing import assert_rewrites, model_of
from tests.scoped_models import check, fingerprint, function_calls, run, scoped, tags_in

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}
HEADER = '<ir_version: 10, opset_import: ["": 20, "f": 1]>'


def model_with(graph: str, *functions: str) -> ir.Model:
    """A model whose functions are of domain ``f``."""
    bodies = "\n".join(f'<domain: "f", opset_import: ["": 20, "f": 1]>\n{function}' for function in functions)
    return model_of(f"{HEADER}\n{graph}\n{bodies}")


def test_a_call_becomes_what_the_function_does() -> None:
    """Formals become actuals; the output keeps the name that the caller gave it; function and domain go."""
    assert_rewrites(
        mx.Inline(),
        before=model_with(
            "g (float[2,3] x) => (float[2,3] y) { y = f.Twice(x) }", "Twice (a) => (b) { t = Neg(a)  b = Neg(t) }"
        ),
        after="g (float[2,3] x) => (float[2,3] y) { t = Neg(x)  y = Neg(t) }",
    )


def test_calls_inside_of_functions_are_written_out_too() -> None:
    """However deep."""
    assert_rewrites(
        mx.Inline(),
        before=model_with(
            "g (float[2,3] x) => (float[2,3] y) { y = f.Outer(x) }",
            "Outer (a) => (b) { t = f.Inner(a)  b = f.Inner(t) }",
            "Inner (a) => (b) { b = Neg(a) }",
        ),
        after="g (float[2,3] x) => (float[2,3] y) { t = Neg(x)  y = Neg(t) }",
    )


def test_names_in_a_body_stay_unique_and_the_first_call_keeps_them() -> None:
    """The first call's values come back under their own names; those of others carry the call's name."""
    model = model_with(
        "g (float[2,3] x) => (float[2,3] y) { m = f.Twice(x)  y = f.Twice(m) }",
        "Twice (a) => (b) { t = Neg(a)  b = Neg(t) }",
    )
    for at, node in enumerate(model.graph):
        node.name = f"call{at}"
    mx.Inline()(model)
    assert [value.name for node in model.graph for value in node.outputs] == ["t", "m", "call1/t", "y"]


def test_attributes_that_a_call_passes_replace_references() -> None:
    """A reference takes what the call gives, else the function's default, else it is left out."""
    text = f"""{HEADER}
    g (float[2,3] x) => (float[2,3] y) {{ a = f.Act <slope = 0.5> (x)  y = f.Act(a) }}
    <domain: "f", opset_import: ["": 20]>
    Act <slope: float = 0.25> (x) => (y) {{ y = LeakyRelu <alpha: float = @slope> (x) }}
    """
    model = model_of(text)
    before = run(model, X)
    mx.Inline()(model)
    assert [node.attributes["alpha"].value for node in model.graph] == [0.5, 0.25]
    assert run(model, X) == before


def test_an_input_that_the_call_leaves_out_is_left_out_inside() -> None:
    """A formal without an actual is an empty input."""
    model = model_with(
        "g (float[2,3] x) => (float[2,3] y) { y = f.Bound(x) }",
        "Bound (x, low, high) => (y) { y = Clip(x, low, high) }",
    )
    mx.Inline()(model)
    (clip,) = model.graph
    assert list(clip.inputs) == [model.graph.inputs[0], None, None]


def test_an_output_that_the_call_does_not_take_is_no_matter() -> None:
    """The function may give more than the call uses (which onnxruntime would not run as it is)."""
    model = model_with(
        "g (float[2,3] x) => (float[2,3] y) { y = f.Pair(x) }", "Pair (a) => (b, c) { b = Neg(a)  c = Abs(a) }"
    )
    mx.Inline()(model)
    check(model)
    assert run(model, X) == [(-X["x"]).tobytes()]


def test_a_function_that_returns_its_input_leaves_the_value_or_an_identity() -> None:
    """Inside, the input itself takes the result's place; at the graph's edge the output keeps its name."""
    same = "Same (a) => (b) { b = Identity(a) }"
    model = model_with("g (float[2,3] x) => (float[2,3] y) { a = f.Same(x)  y = Neg(a) }", same)
    function = model.functions["f", "Same", ""]
    identity = function.graph[0]
    function.outputs[0] = function.inputs[0]
    function.remove(identity, safe=True)
    mx.Inline()(model)
    assert [node.op_type for node in model.graph] == ["Neg"]

    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.Same(x) }", same)
    function = model.functions["f", "Same", ""]
    identity = function.graph[0]
    function.outputs[0] = function.inputs[0]
    function.remove(identity, safe=True)
    mx.Inline()(model)
    check(model)
    assert [(node.op_type, node.outputs[0].name) for node in model.graph] == [("Identity", "y")]


def test_calls_in_the_branches_of_an_if_are_written_out_there() -> None:
    """A body of If, Loop or Scan is a place like any other."""
    text = """
    g (float[2,3] x, bool c) => (float[2,3] y) {
        y = If (c) <
            then_branch = t () => (float[2,3] p) { p = f.Twice(x) },
            else_branch = e () => (float[2,3] q) { q = f.Twice(x) }
        >
    }
    """
    model = model_with(text, "Twice (a) => (b) { t = Neg(a)  b = Neg(t) }")
    inputs = {**X, "c": np.array(True)}
    before = run(model, inputs)
    mx.Inline()(model)
    check(model)
    assert run(model, inputs) == before
    assert not model.functions


def test_a_body_inside_of_a_function_captures_what_the_call_passes() -> None:
    """An If in a function reads the function's inputs: after inlining, the caller's values."""
    gate = """
    Gate (a, c) => (b) {
        b = If (c) <
            then_branch = t () => (float[2,3] p) { p = Neg(a) },
            else_branch = e () => (float[2,3] q) { q = Abs(a) }
        >
    }
    """
    model = model_with("g (float[2,3] x, bool c) => (float[2,3] y) { m = f.Gate(x, c)  y = f.Gate(m, c) }", gate)
    for flag in (True, False):
        inputs = {**X, "c": np.array(flag)}
        before = run(model, inputs)
        inlined = model.clone()
        mx.Inline()(inlined)
        check(inlined)
        assert run(inlined, inputs) == before


def test_some_functions_can_stay() -> None:
    """Only what is selected goes, in the main graph and in the functions that stay."""
    model = model_with(
        "g (float[2,3] x) => (float[2,3] y) { a = f.Inner(x)  y = f.Outer(a) }",
        "Outer (a) => (b) { b = f.Inner(a) }",
        "Inner (a) => (b) { b = Neg(a) }",
    )
    before = run(model, X)
    mx.Inline(modules=["f.Inner"])(model)
    check(model)
    assert [node.op_type for node in model.graph] == ["Neg", "Outer"]
    assert [node.op_type for node in model.functions["f", "Outer", ""]] == ["Neg"]
    assert run(model, X) == before


BLOCKS = "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }"
BLOCK_SCOPES = {
    "a": "/Net/Block.layers.0/Neg.neg",
    "b": "/Net/Block.layers.0",
    "c": "/Net/Block.layers.1/Neg.neg",
    "y": "/Net/Block.layers.1",
}


@pytest.mark.parametrize(
    ("options", "main", "functions"),
    [
        ({"paths": ["layers.0"]}, ["Neg", "Relu", "Block"], {"Block", "Neg"}),
        ({"paths": ["layers.0*"]}, ["Neg", "Relu", "Block"], {"Block", "Neg"}),
        ({"paths": ["layers.*"]}, ["Neg", "Relu", "Neg", "Relu"], set()),
        ({"depth": 1}, ["Neg", "Relu", "Neg", "Relu"], {"Neg"}),
        ({"depth": 2}, ["Neg", "Relu", "Neg", "Relu"], set()),
        ({"depth": 1, "paths": ["*.neg"]}, ["Block", "Block"], {"Block", "Neg"}),
        ({"depth": 1, "paths": ["layers.1"]}, ["Block", "Neg", "Relu"], {"Block", "Neg"}),
        ({"depth": 1, "modules": ["*.Neg"]}, ["Block", "Block"], {"Block", "Neg"}),
        ({"max_nodes": 1}, ["Block", "Block"], {"Block"}),
        ({"max_calls": 1}, ["Block", "Block"], {"Block"}),
        ({"modules": ["*.Block"], "max_calls": 1}, ["Block", "Block"], {"Block", "Neg"}),
    ],
)
def test_selection_by_path_size_and_calls(options: dict[str, Any], main: list[str], functions: set[str]) -> None:
    """A function stays while a call of it does; a body's only call of another function is one call, however shared."""
    model = scoped(BLOCKS, BLOCK_SCOPES)
    before = run(model, X)
    mx.Outline()(model)
    mx.Inline(**options)(model)
    check(model)
    assert [node.op_type for node in model.graph] == main
    assert {function.name for function in model.functions.values()} == functions
    assert run(model, X) == before
    assert not mx.Inline(**options)(model).modified


def test_a_depth_that_calls_do_not_tell_leaves_them_alone() -> None:
    """How deep a call without a scope is, nothing says."""
    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.A(x) }", "A (a) => (b) { b = Neg(a) }")
    assert not mx.Inline(depth=1)(model).modified


@pytest.mark.parametrize("option", ["depth", "max_nodes", "max_calls"])
def test_a_limit_that_nothing_can_meet_is_refused(option: str) -> None:
    """Nothing is less than one operation, one call, one module deep."""
    with pytest.raises(mx.ConfigError, match=f"inline: {option} 0; expected 1 or more"):
        mx.Inline(**{option: 0})  # pyright: ignore[reportArgumentType]


def test_functions_in_a_circle_are_refused() -> None:
    """The circle is named."""
    model = model_with(
        "g (float[2,3] x) => (float[2,3] y) { y = f.A(x) }",
        "A (a) => (b) { b = f.B(a) }",
        "B (a) => (b) { b = f.A(a) }",
    )
    with pytest.raises(mx.ModelExportError, match=r"circle: f::(A -> f::B -> f::A|B -> f::A -> f::B)"):
        mx.Inline()(model)


def test_a_function_that_calls_itself_is_refused_even_if_it_would_stay() -> None:
    """Also through a body of If, and whether or not it is called."""
    itself = """
    A (a, c) => (b) {
        b = If (c) < then_branch = t () => (p) { p = f.A(a, c) }, else_branch = e () => (q) { q = Neg(a) } >
    }
    """
    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.B(x) }", itself, "B (a) => (b) { b = Neg(a) }")
    with pytest.raises(mx.ModelExportError, match="circle: f::A -> f::A"):
        mx.Inline(modules=["f.B"])(model)


def test_an_attribute_is_handed_down_through_calls() -> None:
    """To an inner function, into a body of If, by reference or by the default on the way; what nobody gives is out."""
    text = f"""{HEADER}
    g (float[2,3] x, bool c) => (float[2,3] y) {{ a = f.Outer <alpha = 0.5> (x, c)  y = f.Outer(a, c) }}
    <domain: "f", opset_import: ["": 20, "f": 1]>
    Outer <alpha: float = 0.125> (x, c) => (y) {{
        y = If (c) <
            then_branch = t () => (p) {{ p = f.Act <slope: float = @alpha> (x) }},
            else_branch = e () => (q) {{ q = f.Act (x) }}
        >
    }}
    <domain: "f", opset_import: ["": 20]>
    Act <slope: float = 0.25> (x) => (y) {{ y = LeakyRelu <alpha: float = @slope> (x) }}
    """
    model = model_of(text)
    inputs = [{**X, "c": np.array(flag)} for flag in (True, False)]
    before = [run(model, arrays) for arrays in inputs]
    mx.Inline()(model)
    check(model)
    assert [run(model, arrays) for arrays in inputs] == before
    relus = [node for node in all_nodes(model) if node.op_type == "LeakyRelu"]
    assert [node.attributes["alpha"].value for node in relus] == [0.5, 0.25, 0.125, 0.25]


def test_an_attribute_that_the_call_does_not_give_is_left_to_the_operator() -> None:
    """Without a default in the function, the operator's own holds."""
    text = f"""{HEADER}
    g (float[2,3] x) => (float[2,3] y) {{ y = f.Act(x) }}
    <domain: "f", opset_import: ["": 20]> Act <slope> (x) => (y) {{ y = LeakyRelu <alpha: float = @slope> (x) }}
    """
    model = model_of(text)
    mx.Inline()(model)
    assert not model.graph[0].attributes


def test_inputs_of_an_operator_that_takes_any_number_keep_their_order() -> None:
    """Concat of two formals and one of them again."""
    model = model_with(
        "g (float[2,3] x, float[2,3] z) => (float[6,3] y) { y = f.Cat(x, z) }",
        "Cat (a, b) => (c) { c = Concat <axis = 0> (b, a, b) }",
    )
    mx.Inline()(model)
    assert [value and value.name for value in model.graph[0].inputs] == ["z", "x", "z"]


def test_an_input_left_out_in_the_middle_or_at_the_end_is_left_out_all_the_way_down() -> None:
    """Through two functions, and into the body of an If."""
    text = """
    g (float[2,3] x, float high, bool c) => (float[2,3] y, float[2,3] z) { y, z = f.Outer(x, , high, c) }
    """
    outer = """
    Outer (a, low, high, c) => (y, z) {
        y = f.Inner(a, low, high)
        z = If (c) < then_branch = t () => (p) { p = f.Inner(a, low) }, else_branch = e () => (q) { q = Neg(a) } >
    }
    """
    model = model_with(text, outer, "Inner (a, low, high) => (b) { b = Clip(a, low, high) }")
    mx.Inline()(model)
    check(model)
    x, high, _ = model.graph.inputs
    clips = [node for node in all_nodes(model) if node.op_type == "Clip"]
    assert [list(clip.inputs) for clip in clips] == [[x, None, high], [x, None, None]]
    assert run(model, {**X, "high": np.array(1, np.float32), "c": np.array(True)}) == [
        np.minimum(X["x"], 1).tobytes(),
        X["x"].tobytes(),
    ]


def test_opsets_that_only_a_function_imports_come_along() -> None:
    """The model has to know the domains of the operations that it gets, and loses that of the function."""
    text = """<ir_version: 10, opset_import: ["": 20, "f": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = f.Bin(x) }
    <domain: "f", opset_import: ["": 20, "ai.onnx.ml": 3]>
    Bin (a) => (b) { b = ai.onnx.ml.Binarizer <threshold = 0.5> (a) }
    """
    model = model_of(text)
    before = run(model, X)
    mx.Inline()(model)
    check(model)
    assert model.opset_imports == {"": 20, "ai.onnx.ml": 3}
    assert run(model, X) == before


def test_the_default_domain_by_its_long_name_is_the_default_domain() -> None:
    """``ai.onnx`` and the empty domain are one."""
    text = """<ir_version: 10, opset_import: ["": 20, "f": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = f.A(x) }
    <domain: "f", opset_import: ["ai.onnx": 20]> A (a) => (b) { b = ai.onnx.Neg(a) }
    """
    model = model_of(text)
    mx.Inline()(model)
    check(model)
    assert run(model, X) == [(-X["x"]).tobytes()]


def test_functions_that_nothing_calls_go_with_their_domains() -> None:
    """Also those that only such functions call."""
    text = """<ir_version: 10, opset_import: ["": 20, "f": 1, "g": 1, "h": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = f.A(x) }
    <domain: "f", opset_import: ["": 20]> A (a) => (b) { b = Neg(a) }
    <domain: "g", opset_import: ["": 20, "h": 1]> B (a) => (b) { b = h.C(a) }
    <domain: "h", opset_import: ["": 20]> C (a) => (b) { b = Neg(a) }
    """
    model = model_of(text)
    mx.Inline()(model)
    check(model)
    assert (dict(model.functions), model.opset_imports) == ({}, {"": 20})


def test_a_function_of_another_opset_is_refused() -> None:
    """An operator of opset 18 is not the one of opset 20."""
    text = f"""{HEADER}
    g (float[2,3] x) => (float[2,3] y) {{ y = f.Old(x) }}
    <domain: "f", opset_import: ["": 18]> Old (a) => (b) {{ b = Neg(a) }}
    """
    with pytest.raises(mx.ModelExportError, match="uses opset 18 of domain '', the model 20; convert one of them"):
        mx.Inline()(model_of(text))


def test_operations_of_a_foreign_function_take_the_scope_of_its_call() -> None:
    """Somebody else's function knows nothing of modules; its call does."""
    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.Twice(x) }", "Twice (a) => (b) { b = Neg(a) }")
    (call,) = model.graph
    frames = (Frame("", "pkg.Net"), Frame("act", "pkg.Act"))
    set_scope(call, Scope(frames, Source.EXPORT))
    mx.Inline()(model)
    (neg,) = model.graph
    assert scope_of(neg) == Scope(frames)
    assert scope_of(neg).source is Source.INHERITED  # type: ignore[union-attr]


def test_selective_inlining_recomposes_scopes_inside_of_functions() -> None:
    """A linear layer written out in its block's function keeps its place below the block."""
    text = """
    g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }
    """
    scopes = {
        "a": "/Net/Block.layers.0/Neg.inner.neg",
        "b": "/Net/Block.layers.0",
        "c": "/Net/Block.layers.1/Neg.inner.neg",
        "y": "/Net/Block.layers.1",
    }
    model = scoped(text, scopes)
    flat = tags_in(model.graph)
    mx.Outline()(model)
    mx.Inline(modules=["*.Neg"])(model)
    assert tags_in(model.functions["pkg", "Block", ""]) == [("Neg", "Neg.inner.neg"), ("Relu", ".")]
    mx.Inline()(model)
    assert tags_in(model.graph) == flat


def test_tags_follow_the_scopes() -> None:
    """Those of scopes and those that tell the operation; what has no scope has none, nor what only the call had."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }"
    scopes = {"a": "/Net/Block.layers.0/Neg.neg", "b": "/Net/Block.layers.0"}
    scopes |= {"c": "/Net/Block.layers.1/Neg.neg", "y": "/Net/Block.layers.1"}
    model = scoped(text, scopes)
    for at, node in enumerate(model.graph):
        node.name = f"n{at}"
    mx.InjectTags()(model)
    mx.InjectTags(key="where", template="{path}: {node}, {op}")(model)
    flat = [dict(node.metadata_props) for node in model.graph]
    mx.Outline()(model)
    mx.Inline()(model)
    for node, before in zip(model.graph, flat, strict=True):
        before["where"] = before["where"].partition(":")[0] + f": {node.name}, {node.op_type}"
        assert node.metadata_props == before
    mx.Outline()(model)
    for node in model.graph:
        set_scope(node, None)
    mx.Inline()(model)
    assert not any({"hierarchy_tag", "where"} & node.metadata_props.keys() for node in model.graph)


def test_an_identity_at_the_edge_has_the_tag_of_the_call() -> None:
    """It is an operation like any other."""
    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.Same(x) }", "Same (a) => (b) { b = Identity(a) }")
    function = model.functions["f", "Same", ""]
    identity = function.graph[0]
    function.outputs[0] = function.inputs[0]
    function.remove(identity, safe=True)
    set_scope(model.graph[0], Scope((Frame("", "pkg.Net"), Frame("same", "pkg.Same"))))
    mx.InjectTags()(model)
    mx.Inline()(model)
    assert [node.metadata_props["hierarchy_tag"] for node in model.graph] == ["/Net/Same.same"]


@pytest.mark.parametrize("where", ["graph", "body"])
def test_a_domain_that_an_operator_has_stays(where: str) -> None:
    """It is imported as long as something in the graph, or of what was written out, is of it."""
    in_graph, in_body = ("f.Custom", "Neg") if where == "graph" else ("Neg", "f.Custom")
    model = model_with(
        f"g (float[2,3] x) => (float[2,3] y) {{ a = f.Act(x)  y = {in_graph}(a) }}",
        f"Act (a) => (b) {{ b = {in_body}(a) }}",
    )
    mx.Inline()(model)
    assert sorted(node.op_type for node in model.graph) == ["Custom", "Neg"]
    assert model.graph.opset_imports["f"] == 1


def test_inlining_in_stages_ends_where_inlining_at_once_does() -> None:
    """What was particular to a call inside of a function that stays is kept: here, which call of `neg` it was."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }"
    scopes = {
        "a": "/Net/Block.block/Neg.neg",
        "b": "/Net/Block.block",
        "c": "/Net/Block.block@1/Neg.neg@1",
        "y": "/Net/Block.block@1",
    }
    model = scoped(text, scopes)
    flat = fingerprint(model)
    mx.Outline()(model)
    mx.Inline(modules=["*.Neg"])(model)
    assert set(function_calls(model)) == {"Block"}
    mx.Inline()(model)
    assert fingerprint(model) == flat


def test_a_model_without_functions_is_left_alone() -> None:
    """Nothing to do is not a change."""
    assert not mx.Inline()(model_of("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")).modified


def test_a_second_run_changes_nothing() -> None:
    """Inlining settles."""
    model = model_with("g (float[2,3] x) => (float[2,3] y) { y = f.Twice(x) }", "Twice (a) => (b) { b = Neg(a) }")
    assert mx.Inline()(model).modified
    assert not mx.Inline()(model).modified


def test_a_constant_that_stands_behind_a_call_comes_to_stand_before_it() -> None:
    """The main graph's own constant takes the place of the body's copy: also where it stood behind the call."""
    text = f"""{HEADER}
    g (float[2,3] x) => (float[2,3] y) {{
      a = Neg(x)  c = Constant <value = float {{2.0}}> ()  b = Mul(a, c)  d = Add(b, c)  y = Abs(d) }}"""
    scopes = dict.fromkeys("ab", "/Net/Part.part") | dict.fromkeys("cdy", "/Net")
    model = scoped(text, scopes)
    before = run(model, X)
    mx.Outline()(model)
    assert [node.op_type for node in model.graph] == ["Part", "Constant", "Add", "Abs"]
    mx.Inline()(model)
    check(model)
    assert [node.op_type for node in model.graph] == ["Constant", "Neg", "Mul", "Add", "Abs"]
    assert run(model, X) == before


def test_a_constant_that_became_something_computed_comes_behind_what_it_reads() -> None:
    """Somebody replaced the constant after outlining: the graph is put in order as a whole."""
    text = f"""{HEADER}
    g (float[2,3] x) => (float[2,3] y) {{
      e = Exp(x)  a = Neg(x)  c = Constant <value = float {{2.0}}> ()  b = Mul(a, c)  d = Add(b, c)  y = Add(d, e) }}"""
    model = scoped(text, dict.fromkeys("ab", "/Net/Part.part") | dict.fromkeys("ecdy", "/Net"))
    mx.Outline()(model)
    constant = next(node for node in model.graph if node.op_type == "Constant")
    exp = next(node for node in model.graph if node.op_type == "Exp")
    computed = ir.Node("", "Abs", [exp.outputs[0]], name="computed")
    model.graph.insert_before(constant, computed)
    constant.outputs[0].replace_all_uses_with(computed.outputs[0])
    model.graph.remove(constant, safe=True)
    computed.outputs[0].name = "c"
    mx.Inline()(model)
    check(model)
