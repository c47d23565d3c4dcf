"""What outline does, case by case: where operations go, what is shared, what a call passes."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.scopes.ledger import PART_KEY, read_ledger
from modelexport_passes.scopes.scope import scope_of
from tests.scoped_models import check, fingerprint, function_calls, run, scoped, tags_in

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}

TWO_BLOCKS = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.fc.weight = {1,2,3,4,5,6,7,8,9}, float[3,3] layers.1.fc.weight = {9,8,7,6,5,4,3,2,1}>
{
    a = MatMul(x, layers.0.fc.weight)
    b = Relu(a)
    c = MatMul(b, layers.1.fc.weight)
    y = Relu(c)
}
"""
TWO_BLOCKS_SCOPES = {
    "a": "/Net/Block.layers.0/Linear.fc",
    "b": "/Net/Block.layers.0",
    "c": "/Net/Block.layers.1/Linear.fc",
    "y": "/Net/Block.layers.1",
}


def outlined(text: str, scopes: dict[str, str], folded: dict[str, str] | None = None, /, **options: object) -> ir.Model:
    """The outlined model, after the checks that hold for every one: valid, bit-equal, idempotent, reversible.

    ``folded``: of initializers, the parameter that an optimizer made them of.
    """
    model = scoped(text, scopes)
    for name, parameter in (folded or {}).items():
        model.graph.initializers[name].metadata_props["pkg.onnxscript.optimizer.folded_from"] = repr([parameter])
    inputs = {str(value.name): X["x"] for value in model.graph.inputs}
    before, kept = run(model, inputs), fingerprint(model)
    names = [value.name for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())]
    outline = mx.Outline(**options)  # type: ignore[arg-type]
    outline(model)
    check(model)
    assert run(model, inputs) == before
    assert not outline(model).modified
    back = model.clone()
    mx.Inline()(back)
    check(back)
    assert run(back, inputs) == before
    assert fingerprint(back) == kept
    values = (*back.graph.inputs, *back.graph.outputs, *back.graph.initializers.values())
    assert sorted(map(str, names)) == sorted(str(value.name) for value in values)
    return model


# --- functions and calls ---------------------------------------------------------------------------------------------


def test_equal_blocks_share_one_function_with_the_weights_as_inputs() -> None:
    """Two blocks that differ in weights alone are two calls of one function; weights have local names."""
    model = outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    assert function_calls(model) == {
        "Block": '["layers.0","layers.1"]',
        "Linear": '["layers.0.fc","layers.1.fc"]',
    }
    block = model.functions["pkg", "Block", ""]
    assert [value.name for value in block.inputs] == ["input_0", "fc.weight"]
    assert [[value.name for value in node.inputs if value] for node in model.graph] == [
        ["x", "layers.0.fc.weight"],
        ["b", "layers.1.fc.weight"],
    ]


def test_bodies_hold_relative_scopes_and_calls_absolute_ones() -> None:
    """A tag in a body joined to the tag of the call is the tag of the operation."""
    model = outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    assert tags_in(model.graph) == [("Block", "/Net/Block.layers.0"), ("Block", "/Net/Block.layers.1")]
    assert tags_in(model.functions["pkg", "Block", ""]) == [("Linear", "Linear.fc"), ("Relu", ".")]
    assert tags_in(model.functions["pkg", "Linear", ""]) == [("MatMul", ".")]


def test_the_names_of_graph_outputs_stay() -> None:
    """The value that leaves the graph keeps its name, on the call now."""
    model = outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert model.graph.outputs[0].producer() is list(model.graph)[-1]


def test_the_same_model_gives_the_same_bytes() -> None:
    """Nothing depends on hashing or on addresses."""
    first, second = (ir.to_proto(outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)).SerializeToString() for _ in range(2))
    assert first == second


def test_bodies_that_differ_get_functions_of_their_own() -> None:
    """Another attribute is another function: the second of its class is numbered."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = LeakyRelu <alpha = 0.1> (x)  y = LeakyRelu <alpha = 0.2> (a) }"
    model = outlined(text, {"a": "/Net/Act.first", "y": "/Net/Act.second"})
    assert function_calls(model) == {"Act": '["first"]', "Act_1": '["second"]'}


def test_equal_bodies_of_two_classes_do_not_share() -> None:
    """A function is of one class: that is its domain and name."""
    model = outlined(
        "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  y = Relu(a) }", {"a": "/Net/A.a", "y": "/Net/B.b"}
    )
    assert set(function_calls(model)) == {"A", "B"}


def test_an_operation_of_unknown_scope_stays_in_the_main_graph() -> None:
    """Unknown is not the root, but it is nobody's."""
    model = outlined(TWO_BLOCKS, {key: tag for key, tag in TWO_BLOCKS_SCOPES.items() if key != "y"})
    assert [node.op_type for node in model.graph] == ["Block", "Block_1", "Relu"]
    assert scope_of(list(model.graph)[-1]) is None


def test_a_module_that_nothing_uses_stays_in_place() -> None:
    """A function without outputs is not valid ONNX."""
    text = "g (float[2,3] x) => (float[2,3] y) { dead = Relu(x)  y = Neg(x) }"
    assert not outlined(text, {"dead": "/Net/Act.act", "y": "/Net"}).functions


# --- calls -----------------------------------------------------------------------------------------------------------


def test_a_module_called_twice_is_two_calls_of_one_function() -> None:
    """Call indices of the modules inside come back, though the body is kept once."""
    text = """
    g (float[2,3] x) => (float[2,3] y) {
        a = Relu(x)
        b = Neg(a)
        c = Relu(b)
        y = Neg(c)
    }
    """
    scopes = {
        "a": "/Net/Block.block/Act.act",
        "b": "/Net/Block.block",
        "c": "/Net/Block.block@1/Act.act@1",
        "y": "/Net/Block.block@1",
    }
    model = outlined(text, scopes)
    assert function_calls(model) == {"Block": '["block","block@1"]', "Act": '["block.act","block.act@1"]'}
    assert [call.bases for call in read_ledger(model).calls.values()] == [{"block.act": 1}]


def test_a_module_that_another_one_calls_from_elsewhere_keeps_its_path() -> None:
    """The stack is who called whom: a sibling called inside is a call in the body, under its full path."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Neg(a)  c = Relu(b)  y = Neg(c) }"
    scopes = {
        "a": "/Net/Block.one/Act.^act",
        "b": "/Net/Block.one",
        "c": "/Net/Block.two/Act.^act@1",
        "y": "/Net/Block.two",
    }
    model = outlined(text, scopes)
    assert function_calls(model) == {"Block": '["one","two"]', "Act": '["act","act@1"]'}
    assert tags_in(model.functions["pkg", "Block", ""]) == [("Act", "Act.^act"), ("Neg", ".")]


# --- boundaries ------------------------------------------------------------------------------------------------------

SHARED_CONSTANT = """
g (float[2,3] x) => (float[2,3] y) {
    two = Constant <value = float {2}> ()
    a = Mul(x, two)
    y = Mul(a, two)
}
"""


def test_a_shared_constant_is_cloned_into_each_body_and_one_again_after_inlining() -> None:
    """Exporters share constants between modules; compilers need them inside."""
    model = outlined(
        SHARED_CONSTANT,
        {"two": "/Net/Scale.layers.0", "a": "/Net/Scale.layers.0", "y": "/Net/Scale.layers.1"},
    )
    assert function_calls(model) == {"Scale": '["layers.0","layers.1"]'}
    assert [node.op_type for node in model.functions["pkg", "Scale", ""]] == ["Constant", "Mul"]
    assert [node.op_type for node in model.graph] == ["Scale", "Scale"]


def test_every_value_has_a_type_of_its_own() -> None:
    """A type can be changed in place: a pass that does so for one value must not change another's."""
    model = scoped(SHARED_CONSTANT, {"two": "/Net/Scale.one", "a": "/Net/Scale.one", "y": "/Net/Other.other"})
    for node in model.graph:
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    mx.Outline()(model)
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    values = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    values += [value for graph in graphs for node in graph for value in node.outputs]
    assert len({id(value.type) for value in values if value.type is not None}) == len(values) == 9


def test_a_small_folded_initializer_is_embedded_and_comes_back_as_an_initializer() -> None:
    """Shapes and axes stay constants of the body, also where an optimizer made initializers of them."""
    text = """
    g (float[2,3] x) => (float[1,2,3] y) <int64[1] axes = {0}> {
        a = Unsqueeze(x, axes)
        b = Squeeze(a, axes)
        y = Unsqueeze(b, axes)
    }
    """
    model = outlined(text, {"a": "/Net/Wrap.one", "b": "/Net", "y": "/Net/Wrap.two"})
    assert [node.op_type for node in model.functions["pkg", "Wrap", ""]] == ["Constant", "Unsqueeze"]
    assert len(model.functions["pkg", "Wrap", ""].inputs) == 1


MASK = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.weight = {1,2,3,4,5,6,7,8,9}, float[3,3] layers.1.weight = {9,8,7,6,5,4,3,2,1}>
{
    mask = Sign(x)
    a = MatMul(x, layers.0.weight)
    b = Mul(a, mask)
    c = MatMul(b, layers.1.weight)
    y = Mul(c, mask)
}
"""


def test_work_that_one_module_does_for_its_siblings_is_placed_in_their_caller() -> None:
    """A mask that layer 0 computes for all came from layer 0 and lies outside: attribution is not placement."""
    layer = "/Net/Layer.layers.0"
    model = outlined(
        MASK, {"mask": layer, "a": layer, "b": layer, "c": "/Net/Layer.layers.1", "y": "/Net/Layer.layers.1"}
    )
    assert tags_in(model.graph) == [("Sign", layer), ("Layer", layer), ("Layer", "/Net/Layer.layers.1")]
    assert function_calls(model) == {"Layer": '["layers.0","layers.1"]'}


def test_what_an_exporter_merged_between_like_modules_is_placed_in_their_caller() -> None:
    """Each layer computes the cosine of what it is given; merged, layer 0 computes it for all."""
    text = """
    g (float[2,3] x) => (float[2,3] y)
    <float[3] rope.w = {1,2,3}, float[3,3] l.0.w = {1,2,3,4,5,6,7,8,9}, float[3,3] l.1.w = {9,8,7,6,5,4,3,2,1}>
    {
        angle = Mul(x, rope.w)
        cos = Cos(angle)
        a = MatMul(x, l.0.w)
        b = Mul(a, cos)
        c = MatMul(b, l.1.w)
        y = Mul(c, cos)
    }
    """
    zero, one = "/Net/Layer.l.0", "/Net/Layer.l.1"
    scopes = {"angle": "/Net/Rope.rope", "cos": zero, "a": zero, "b": zero, "c": one, "y": one}
    model = outlined(text, scopes)
    assert [node.op_type for node in model.graph] == ["Rope", "Cos", "Layer", "Layer"]


def test_what_other_modules_computed_as_well_is_placed_in_the_caller() -> None:
    """All blocks and the last layer apply one activation to one embedding; merged, layer 0 computes it for all."""
    text = """
    g (float[2,3] t) => (float[2,3] y)
    <float[3,3] l.0.w = {1,2,3,4,5,6,7,8,9}, float[3,3] l.1.w = {9,8,7,6,5,4,3,2,1},
     float[3,3] e.w = {2,1,2,1,2,1,2,1,2}, float[3,3] last.w = {3,2,1,3,2,1,3,2,1}>
    {
        e = MatMul(t, e.w)
        s = Sigmoid(e)
        a = MatMul(s, l.0.w)
        b = MatMul(s, l.1.w)
        c = Add(a, b)
        d = MatMul(s, last.w)
        y = Add(c, d)
    }
    """
    zero, one, last = "/Net/Layer.l.0", "/Net/Layer.l.1", "/Net/Last.last"
    scopes = {"e": "/Net/Embed.e", "s": zero, "a": zero, "b": one, "c": one, "d": last, "y": last}
    model = outlined(text, scopes)
    assert [node.op_type for node in model.graph][:2] == ["Embed", "Sigmoid"]
    returned = {**scopes, "c": "/Net", "d": "/Net", "y": "/Net"}
    model = outlined(text, returned)  # the caller reads it: it may be what layer 0 returns
    assert [node.op_type for node in model.graph][:2] == ["Embed", "Layer"]


@pytest.mark.parametrize(("table", "kinds"), [("folded", ["Embed", "Add"]), ("l.0.bias", ["Embed", "Layer"])])
def test_what_an_optimizer_folded_is_no_layers_weight(table: str, kinds: list[str]) -> None:
    """Positions that were added to one memory for all layers go to the caller; a layer's own parameter does not."""
    text = f"""
    g (float[2,3] t) => (float[2,3] y)
    <float[3,3] l.0.w = {{1,2,3,4,5,6,7,8,9}}, float[3,3] l.1.w = {{9,8,7,6,5,4,3,2,1}},
     float[3,3] e.w = {{2,1,2,1,2,1,2,1,2}}, float[2,3] {table} = {{1,2,3,4,5,6}}>
    {{
        e = MatMul(t, e.w)
        s = Add(e, {table})
        a = MatMul(s, l.0.w)
        b = MatMul(s, l.1.w)
        y = Add(a, b)
    }}
    """
    zero, one = "/Net/Layer.l.0", "/Net/Layer.l.1"
    model = outlined(text, {"e": "/Net/Embed.e", "s": zero, "a": zero, "b": one, "y": one})
    assert [node.op_type for node in model.graph][:2] == kinds


@pytest.mark.parametrize(("parameter", "shared"), [("bias.weight", True), ("l.0.w", False)])
def test_a_table_folded_from_anothers_parameter_is_no_weight_of_the_layer(parameter: str, shared: bool) -> None:
    """Each layer adds the caller's table to what it is given; merged, layer 0 adds it for all."""
    text = """
    g (float[2,3] x) => (float[2,3] y)
    <float[2,3] table = {1,2,3,4,5,6}, float[3,3] l.0.w = {1,2,3,4,5,6,7,8,9},
     float[3,3] l.1.w = {9,8,7,6,5,4,3,2,1}, float[3,3] e.w = {2,1,2,1,2,1,2,1,2}>
    {
        e = MatMul(x, e.w)
        biased = Add(e, table)
        scaled = Relu(biased)
        a = MatMul(x, l.0.w)
        b = Add(a, scaled)
        c = MatMul(b, l.1.w)
        y = Add(c, scaled)
    }
    """
    zero, one = "/Net/Layer.l.0", "/Net/Layer.l.1"
    scopes = {"e": "/Net", "biased": zero, "scaled": zero, "a": zero, "b": zero, "c": one, "y": one}
    model = outlined(text, scopes, {"table": parameter})
    calls = function_calls(model)
    assert (calls == {"Layer": '["l.0","l.1"]'}) == shared
    assert ([node.op_type for node in model.graph][1:3] == ["Add", "Relu"]) == shared


def test_a_result_that_the_module_uses_too_stays_its_result() -> None:
    """Read by its caller, not by its likes: it is returned."""
    text = """
    g (float[2,3] x) => (float[2,3] y) <float[3] w = {1,2,3}>
    { h = Mul(x, w)  a = Relu(h)  b = Neg(a)  y = Add(a, b) }
    """
    model = outlined(text, {"h": "/Net", "a": "/Net/Pair.pair", "b": "/Net/Pair.pair", "y": "/Net"})
    assert [node.op_type for node in model.graph] == ["Mul", "Pair", "Add"]


def test_an_identity_that_only_names_an_output_is_the_graphs() -> None:
    """Exporters put one where an output needs a name; like modules shall not differ by it."""
    text = "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { a = Neg(x)  b = Neg(a)  y = Identity(a)  z = Relu(b) }"
    model = outlined(text, {"a": "/Net/N.n.0", "b": "/Net/N.n.1", "y": "/Net/N.n.0", "z": "/Net"})
    assert function_calls(model) == {"N": '["n.0","n.1"]'}


def test_what_a_module_returns_is_not_hoisted_out_of_it() -> None:
    """A weight-free module stays a module: its result is used outside alone."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  y = Add(a, a) }"
    model = outlined(text, {"a": "/Net/Act.act", "y": "/Net/Sum.sum"})
    assert set(function_calls(model)) == {"Act", "Sum"}


def test_an_output_that_only_one_call_uses_is_an_output_of_all_calls() -> None:
    """The output set is the union over the calls, each output named."""
    text = """
    g (float[2,3] x) => (float[2,3] y, float[2,3] extra)
    <float[3,3] l0.w = {1,2,3,4,5,6,7,8,9}, float[3,3] l1.w = {9,8,7,6,5,4,3,2,1}>
    {
        extra = MatMul(x, l0.w)
        a = Relu(extra)
        b = MatMul(a, l1.w)
        y = Relu(b)
    }
    """
    scopes = {"extra": "/Net/L.l0", "a": "/Net/L.l0", "b": "/Net/L.l1", "y": "/Net/L.l1"}
    model = outlined(text, scopes)
    assert function_calls(model) == {"L": '["l0","l1"]'}
    assert [[value.name for value in node.outputs] for node in model.graph] == [["extra", "a"], ["b", "y"]]


NOT_CONVEX = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] m.w = {1,2,3,4,5,6,7,8,9}, float[3,3] v.w = {9,8,7,6,5,4,3,2,1}>
{
    a = MatMul(x, m.w)
    b = MatMul(a, v.w)
    y = Mul(a, b)
}
"""
NOT_CONVEX_SCOPES = {"a": "/Net/Two.m", "b": "/Net/Linear.v", "y": "/Net/Two.m"}


def test_a_module_that_others_lie_between_stays_in_place_and_is_named() -> None:
    """What cannot be cut is said, with what lies between; the rest is outlined."""
    model = scoped(NOT_CONVEX, NOT_CONVEX_SCOPES)
    notes = mx.Outline()(model).notes  # type: ignore[attr-defined]
    assert len(notes) == 1
    assert "not convex" in notes[0]
    assert len(outlined(NOT_CONVEX, NOT_CONVEX_SCOPES).functions) == 1


def test_on_nonconvex_error_fails_and_changes_nothing() -> None:
    """The plan comes before the rewrite: a refused model is as it was."""
    model = scoped(NOT_CONVEX, NOT_CONVEX_SCOPES)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(mx.ModelExportError, match="is not convex"):
        mx.Outline(on_nonconvex="error")(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_on_nonconvex_split_makes_a_call_of_each_part() -> None:
    """What lies between stays between; scopes and tags are those of the one module call."""
    model = scoped(NOT_CONVEX, NOT_CONVEX_SCOPES)
    split = mx.Outline(on_nonconvex="split")
    assert str(split.plan(model)).splitlines() == [
        "pkg::Two(input_0, w) for m (part 1)",
        "pkg::Linear(input_0, w) for v",
        "pkg::Two_1(input_0, input_1) for m (part 2)",
        "m into 2 parts: v between its operations",
    ]
    model = outlined(NOT_CONVEX, NOT_CONVEX_SCOPES, on_nonconvex="split")
    assert tags_in(model.graph) == [("Two", "/Net/Two.m"), ("Linear", "/Net/Linear.v"), ("Two_1", "/Net/Two.m")]
    assert [node.metadata_props.get(PART_KEY) for node in model.graph] == ["1", None, "2"]


def test_parts_of_like_modules_share_and_constants_are_in_each_part() -> None:
    """The calls of further instances, and modules that run again inside, come back from parts too."""
    layer = """
        b{n} = MatMul({x}, m.{n}.w)
        c{n} = Mul(b{n}, two)
        d{n} = Relu(c{n})
        e{n} = MatMul(d{n}, out.{n}.w)
        f{n} = Mul(e{n}, two)
        g{n} = Relu(f{n})
        {y} = Add(g{n}, d{n})
    """
    text = f"""
    g (float[2,3] x) => (float[2,3] y)
    <float[3,3] out.0.w = {{1,2,3,4,5,6,7,8,9}}, float[3,3] out.1.w = {{9,8,7,6,5,4,3,2,1}},
     float[3,3] m.0.w = {{1,2,3,4,5,6,7,8,9}}, float[3,3] m.1.w = {{9,8,7,6,5,4,3,2,1}}>
    {{
        two = Constant <value = float {{2}}> ()
        {layer.format(n=0, x="x", y="h")}
        {layer.format(n=1, x="h", y="y")}
    }}
    """
    scopes = {"two": "/Net/Two.m.0"}
    for n, y in ((0, "h"), (1, "y")):
        scopes |= {f"{name}{n}": f"/Net/Two.m.{n}" for name in "bcf"} | {y: f"/Net/Two.m.{n}"}
        scopes |= {
            f"d{n}": f"/Net/Two.m.{n}/Act.a",
            f"g{n}": f"/Net/Two.m.{n}/Act.a@1",
            f"e{n}": f"/Net/Linear.out.{n}",
        }
    model = outlined(text, scopes, on_nonconvex="split")
    calls = function_calls(model)
    assert [calls[name] for name in ("Two", "Two_1")] == ['["m.0","m.1"]'] * 2
    for name in ("Two", "Two_1"):
        assert [node.op_type for node in model.functions["pkg", name, ""]].count("Constant") == 1
    partly = model.clone()
    mx.Inline(modules=["*.Act"])(partly)
    mx.Inline()(partly)
    assert fingerprint(partly) == fingerprint(scoped(text, scopes))


def test_a_part_is_not_the_module_to_who_takes_it_out_or_replaces_it() -> None:
    """Half a module has another signature, and computes something else."""
    model = outlined(NOT_CONVEX, NOT_CONVEX_SCOPES, on_nonconvex="split")
    with pytest.raises(mx.ModelExportError, match="m was cut into parts"):
        mx.extract(model, "m")
    with pytest.raises(mx.ModelExportError, match="Two_1 is a part of a module"):
        mx.Replace(modules=["*.Two"], as_op="vendor.Two")(model)


def test_captures_of_a_body_become_inputs_of_the_function() -> None:
    """An If moves with its module; what its branches capture is passed in."""
    text = """
    g (float[2,3] x) => (float[2,3] y) <float[3] m.bias = {1, 2, 3}, bool flag = {1}> {
        y = If (flag) <
            then_branch = then () => (float[2,3] t) { t = Add(x, m.bias) },
            else_branch = other () => (float[2,3] e) { e = Neg(x) }
        >
    }
    """
    model = outlined(text, {"y": "/Net/Gate.m", "t": "/Net/Gate.m/Bias.b", "e": "/Net/Gate.m"})
    gate = model.functions["pkg", "Gate", ""]
    assert [value.name for value in gate.inputs] == ["input_0", "bias"]


def test_an_empty_optional_input_keeps_its_slot() -> None:
    """Clip without a minimum is not Clip without a maximum."""
    text = """
    g (float[2,3] x) => (float[2,3] y) <float low = {-1}, float high = {1}> { a = Clip(x, low)  y = Clip(a, "", high) }
    """
    model = scoped(text.replace('""', ""), {"a": "/Net/C.one", "y": "/Net/C.two"})
    mx.Outline()(model)
    check(model)
    assert len(model.functions) == 2


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_constants_that_differ_become_inputs() -> None:
    """Lifting a layer's own scalar makes the bodies equal."""
    text = """
    g (float[2,3] x) => (float[2,3] y) {
        two = Constant <value = float {2}> ()
        a = Mul(x, two)
        three = Constant <value = float {3}> ()
        y = Mul(a, three)
    }
    """
    scopes = {"two": "/Net/Scale.s.0", "a": "/Net/Scale.s.0", "three": "/Net/Scale.s.1", "y": "/Net/Scale.s.1"}
    lifted = outlined(text, scopes)
    assert function_calls(lifted) == {"Scale": '["s.0","s.1"]'}
    assert sorted(node.op_type for node in lifted.graph) == ["Constant", "Constant", "Scale", "Scale"]
    assert set(function_calls(outlined(text, scopes, lift="never"))) == {"Scale", "Scale_1"}


def test_a_value_fed_twice_in_one_call_and_once_in_another_does_not_part_them() -> None:
    """Inputs are numbered by use: what is one value here and two there are two inputs."""
    text = """
    g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Add(x, x)  y = Add(a, b) }
    """
    model = outlined(text, {"a": "/Net", "b": "/Net/Sum.one", "y": "/Net/Sum.two"})
    assert function_calls(model) == {"Sum": '["one","two"]'}
    assert len(model.functions["pkg", "Sum", ""].inputs) == 2


def test_a_weight_shared_in_all_calls_is_one_input() -> None:
    """Uses that hold the same value in every call are one input."""
    text = """
    g (float[3,3] x) => (float[3,3] y)
    <float[3,3] a.w = {1,2,3,4,5,6,7,8,9}, float[3,3] b.w = {9,8,7,6,5,4,3,2,1}>
    { p = MatMul(x, a.w)  q = MatMul(p, a.w)  r = MatMul(q, b.w)  y = MatMul(r, b.w) }
    """
    scopes = {"p": "/Net/L.a", "q": "/Net/L.a", "r": "/Net/L.b", "y": "/Net/L.b"}
    model = scoped(text, scopes)
    mx.Outline()(model)
    assert [value.name for value in model.functions["pkg", "L", ""].inputs] == ["input_0", "w"]


def test_results_come_in_the_order_of_making_whatever_the_graph_does_with_them() -> None:
    """A file does not tell the order in which a module returned them; this one is the same at every call."""
    text = """
    g (float[2,3] x) => (float[2,3] e, float[2,3] d)
    <float[3,3] b.0.w = {1,2,3,4,5,6,7,8,9}, float[3,3] b.1.w = {9,8,7,6,5,4,3,2,1}>
    {
        a = MatMul(x, b.0.w)
        b = Abs(a)
        c = Sub(b, a)
        d = MatMul(c, b.1.w)
        e = Abs(d)
    }
    """
    scopes = {"a": "/Net/B.b.0", "b": "/Net/B.b.0", "c": "/Net", "d": "/Net/B.b.1", "e": "/Net/B.b.1"}
    model = outlined(text, scopes)
    function = model.functions["pkg", "B", ""]
    assert [value.producer().op_type for value in function.outputs] == ["MatMul", "Abs"]  # type: ignore[union-attr]
    calls = [node for node in model.graph if node.op_type == "B"]
    assert [[value.name for value in call.outputs] for call in calls] == [["a", "b"], ["d", "e"]]
    assert [value.name for value in model.graph.outputs] == ["e", "d"]


def test_what_is_known_of_values_where_all_calls_agree_is_kept() -> None:
    """Types and shapes of inputs, of values inside, and of results; a symbolic size, too."""
    text = """
    g (float[n,3] x) => (float[n,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }
    """
    model = scoped(text, {"a": "/Net/B.b.0", "b": "/Net/B.b.0", "c": "/Net/B.b.1", "y": "/Net/B.b.1"})
    for node in model.graph:
        node.outputs[0].shape, node.outputs[0].dtype = ir.Shape(["n", 3]), ir.DataType.FLOAT
    mx.Outline()(model)
    model = ir.from_proto(ir.to_proto(model))
    function = model.functions["pkg", "B", ""]
    inner = [node.outputs[0] for node in function]
    assert [(value.dtype, value.shape) for value in inner] == [(ir.DataType.FLOAT, ir.Shape(["n", 3]))] * 2
    assert [value.shape for node in model.graph for value in node.outputs] == [ir.Shape(["n", 3])] * 2


def test_a_shape_that_can_be_changed_is_of_one_value_alone() -> None:
    """One that is frozen may be shared, as it is where a file is read."""
    text = """
    g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }
    """
    model = scoped(text, {"a": "/Net/B.b.0", "b": "/Net/B.b.0", "c": "/Net/B.b.1", "y": "/Net/B.b.1"})
    model.graph.inputs[0].shape = ir.Shape([2, 3])
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([2, 3], frozen=node.op_type == "Neg")
    mx.Outline()(model)
    function = model.functions["pkg", "B", ""]
    values = [*model.graph.inputs, *function.inputs, *(node.outputs[0] for node in (*model.graph, *function))]
    assert [str(value.shape) for value in values] == ["[2,3]"] * 6
    own = [value.shape for value in values if value.shape is not None and not value.shape.frozen]
    assert len({id(shape) for shape in own}) == len(own) == 5


def test_a_shared_body_says_of_shapes_what_holds_at_every_call() -> None:
    """Also of the results of calls inside of it."""
    text = """
    g (float[2,3] x, float[4,3] z) => (float[2,3] y, float[4,3] w) {
        a = Neg(x)
        y = Relu(a)
        b = Neg(z)
        w = Relu(b)
    }
    """
    scopes = {"a": "/Net/B.b.0/N.n", "y": "/Net/B.b.0", "b": "/Net/B.b.1/N.n", "w": "/Net/B.b.1"}
    model = scoped(text, scopes)
    for node, rows in zip(model.graph, (2, 2, 4, 4), strict=True):
        node.outputs[0].shape = ir.Shape([rows, 3])
    mx.Outline()(model)
    assert [value.shape for node in model.graph for value in node.outputs] == [ir.Shape([2, 3]), ir.Shape([4, 3])]
    for name in ("B", "N"):
        for node in model.functions["pkg", name, ""]:
            assert [str(dim) for dim in node.outputs[0].shape or ()] == ["None", "3"]


def test_graphs_inside_of_a_shared_body_say_of_shapes_what_holds_at_every_call() -> None:
    """The branches of an If work on other sizes in another call: a runtime refuses a size that is not so."""
    text = """
    g (float[2,3] x) => (float[3,2] y) {
        l = Constant <value = bool {1}> ()
        a = Tanh(x)
        b = If (l) <
            then_branch = t0 () => (float[2,3] p) { o = Neg(a) p = Relu(o) },
            else_branch = e0 () => (float[2,3] q) { q = Neg(a) }>
        t = Transpose <perm = [1, 0]> (b)
        k = Constant <value = bool {1}> ()
        d = Tanh(t)
        y = If (k) <
            then_branch = t1 () => (float[3,2] s) { r = Neg(d) s = Relu(r) },
            else_branch = e1 () => (float[3,2] u) { u = Neg(d) }>
    }
    """
    scopes = dict.fromkeys("labopq", "/Net/Block.layers.0") | dict.fromkeys("kdyrsu", "/Net/Block.layers.1")
    model = outlined(text, scopes | {"t": "/Net"})
    assert set(function_calls(model)) == {"Block"}
    body = next(node for node in model.functions["pkg", "Block", ""] if node.op_type == "If")
    assert all(value.shape == ir.Shape([None, None]) for value in body.attributes["then_branch"].as_graph().outputs)


# --- selection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "functions"),
    [
        ({"modules": "all"}, {"Block", "Linear"}),
        ({"modules": "auto"}, {"Block"}),
        ({"modules": ["pkg.Linear"]}, {"Linear"}),
        ({"modules": ["*.Block", "*.Linear"]}, {"Block", "Linear"}),
        ({"modules": ["Block"]}, set()),
        ({"paths": ["layers.1"]}, {"Block"}),
        ({"modules": ["pkg.Linear"], "paths": ["layers.0"]}, {"Block", "Linear"}),
        ({"modules": "all", "exclude": ["*.Linear"]}, {"Block"}),
        ({"modules": "all", "exclude": ["layers.0*"]}, {"Block", "Linear"}),
        ({"modules": ["*.Net"]}, set()),
        ({"depth": 1}, {"Block"}),
        ({"min_nodes": 2}, {"Block"}),
        ({"min_nodes": 3}, set()),
        ({"min_calls": 2}, {"Block", "Linear"}),
        ({"min_calls": 3}, set()),
    ],
)
def test_selection(options: dict[str, object], functions: set[str]) -> None:
    """Classes are chosen by glob over qualified names, calls by glob over paths; exclusion wins; the root never is."""
    assert set(function_calls(outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES, **options))) == functions


def test_auto_takes_items_of_one_list_not_attributes_that_are_numbered() -> None:
    """`layer1` and `layer2` hold the blocks; the blocks in them are what is repeated."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Neg(a)  c = Neg(b)  y = Neg(c) }"
    scopes = {
        "a": "/Net/Stage.layer1/Block.0/Neg.neg",
        "b": "/Net/Stage.layer1/Block.1/Neg.neg",
        "c": "/Net/Stage.layer2/Block.0/Neg.neg",
        "y": "/Net/Stage.layer2/Block.1/Neg.neg",
    }
    assert set(function_calls(outlined(text, scopes, modules="auto"))) == {"Block"}


def test_outlining_in_stages_ends_where_outlining_at_once_does() -> None:
    """Inner modules first, their blocks later: calls are operations of the block that holds them."""
    staged = scoped(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    mx.Outline(modules=["*.Linear"])(staged)
    mx.Outline(modules=["*.Block"])(staged)
    check(staged)
    at_once = outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    assert function_calls(staged) == function_calls(at_once)
    assert tags_in(staged.functions["pkg", "Block", ""]) == tags_in(at_once.functions["pkg", "Block", ""])
    assert run(staged, X) == run(at_once, X)


def test_a_wrong_selection_is_refused() -> None:
    """A single glob is a list of one, not a word."""
    with pytest.raises(mx.ConfigError, match="expected 'all', 'auto' or a list"):
        mx.Outline(modules="*.Linear")  # type: ignore[arg-type]


def test_why_two_calls_do_not_share_is_said_in_module_terms() -> None:
    """The first difference, followed into the call that differs."""
    text = """
    g (float[2,3] x) => (float[2,3] y) {
        a = LeakyRelu <alpha = 0.1> (x)
        b = Neg(a)
        c = LeakyRelu <alpha = 0.2> (b)
        y = Neg(c)
    }
    """
    scopes = {
        "a": "/Net/Block.layers.0/Act.act",
        "b": "/Net/Block.layers.0",
        "c": "/Net/Block.layers.1/Act.act",
        "y": "/Net/Block.layers.1",
    }
    plan = mx.Outline().plan(scoped(text, scopes))
    blocks, act = sorted(plan.near_misses(), key=lambda miss: not miss.alike)
    assert str(blocks) == (
        "layers.0 and layers.1 (pkg.Block) differ: in layers.0.act: LeakyRelu.alpha: 0.10000000149011612 and "
        "0.20000000298023224 (of a and of c)"
    )
    assert not act.alike


# --- tags ------------------------------------------------------------------------------------------------------------


def test_tags_follow_into_bodies_and_back() -> None:
    """A tag is always what the scope renders to, whichever pass ran last."""
    model = scoped(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    mx.InjectTags()(model)
    before = [node.metadata_props["hierarchy_tag"] for node in model.graph]
    mx.Outline()(model)
    (relu,) = (node for node in model.functions["pkg", "Block", ""] if node.op_type == "Relu")
    assert relu.metadata_props["hierarchy_tag"] == "."
    mx.Inline()(model)
    assert [node.metadata_props["hierarchy_tag"] for node in model.graph] == before


def test_the_plan_can_be_read_before_anything_moves() -> None:
    """`Outline.plan` decides and changes nothing."""
    model = scoped(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    before = ir.to_proto(model).SerializeToString()
    assert str(mx.Outline(modules=["*.Block"]).plan(model)) == ("pkg::Block(input_0, fc.weight) for layers.0, layers.1")
    assert ir.to_proto(model).SerializeToString() == before


def test_calls_are_listed_on_the_function() -> None:
    """A function knows its class and the module calls that it serves."""
    model = outlined(TWO_BLOCKS, TWO_BLOCKS_SCOPES)
    props = model.functions["pkg", "Block", ""].metadata_props
    assert props["pkg.modelexport_passes.module"] == "pkg.Block"
    assert json.loads(props["pkg.modelexport_passes.calls"]) == ["layers.0", "layers.1"]
