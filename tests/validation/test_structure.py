"""Each rule of structure is found broken, alone, in a model that is sound otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.errors import VerificationError
from modelexport_passes.validation.checker import run_checker
from modelexport_passes.validation.functions import check_functions
from modelexport_passes.validation.problem import Problem
from modelexport_passes.validation.session import open_session
from modelexport_passes.validation.structure import check_structure

SOUND = """
<ir_version: 10, opset_import: ["" : 20, "m" : 1]>
g (float[n, 4] x, bool flag) => (float[n, 4] y, float[n, 4] z) <float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
{
  h = m.Block (x, w)
  i = m.Block (h, w)
  y = Relu (i)
  z = If (flag) <
    then_branch = t () => (float[n, 4] a) { a = Relu (h) },
    else_branch = e () => (float[n, 4] b) { b = Neg (h) }
  >
}
<domain: "m", opset_import: ["" : 20, "m" : 1]>
Block (u, weight) => (v) { t = m.Linear (u, weight)  v = Relu (t) }
<domain: "m", opset_import: ["" : 20]>
Linear (p, weight) => (q) { q = MatMul (p, weight) }
"""


def sound() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(SOUND))
    for number, node in enumerate([*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f)]):
        node.name = f"node_{number}"
    return model


def problems(model: ir.Model) -> list[Problem]:
    return [*check_structure(model), *check_functions(model)]


def function(model: ir.Model, name: str) -> ir.Function:
    return model.functions["m", name, ""]


def named(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph.all_nodes() if node.op_type == op_type)


def test_a_sound_model_has_no_problems() -> None:
    """Nested functions, shared functions and bodies that read outer values are fine."""
    model = sound()
    assert problems(model) == []
    assert run_checker(model) == []
    open_session(model)


# --- what breaks each rule -------------------------------------------------------------------------------------------


def two_nodes_of_one_name(model: ir.Model) -> None:
    model.graph[0].name = model.graph[1].name = "twin"


def two_values_of_one_name(model: ir.Model) -> None:
    model.graph[1].outputs[0].name = "h"


def body_hides_an_outer_name(model: ir.Model) -> None:
    body = named(model, "If").attributes["then_branch"].as_graph()
    body[0].outputs[0].name = "i"


def unsorted(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.insert_after(model.graph[0], first)


def input_from_nowhere(model: ir.Model) -> None:
    named(model, "Relu").replace_input_with(0, ir.Value(name="ghost"))


def capture_in_a_function(model: ir.Model) -> None:
    function(model, "Linear")[0].replace_input_with(1, model.graph.initializers["w"])


def value_of_a_body_used_outside(model: ir.Model) -> None:
    body = named(model, "If").attributes["then_branch"].as_graph()
    function(model, "Block")[1].replace_input_with(0, body[0].outputs[0])


def value_of_a_body_used_after_it(model: ir.Model) -> None:
    body = named(model, "If").attributes["then_branch"].as_graph()
    model.graph.append(ir.node("Neg", [body[0].outputs[0]], name="late"))


def outer_value_returned_from_a_body(model: ir.Model) -> None:
    body = named(model, "If").attributes["then_branch"].as_graph()
    body.outputs[0] = model.graph[0].outputs[0]


def initializer_in_a_function(model: ir.Model) -> None:
    value = ir.Value(name="c", const_value=ir.tensor(np.ones(1, np.float32), name="c"))
    function(model, "Linear").graph.register_initializer(value)


def metadata_in_an_old_model(model: ir.Model) -> None:
    model.ir_version = 9
    function(model, "Linear")[0].metadata_props["k"] = "v"


def weight_of_another_shape(model: ir.Model) -> None:
    model.graph.initializers["w"].const_value = ir.tensor(np.ones((4, 5), np.float32), name="w")


def weight_without_data(model: ir.Model) -> None:
    model.graph.initializers["w"].const_value = None


def data_is_gone(model: ir.Model) -> None:
    tensor = ir.ExternalTensor("gone", 0, 64, ir.DataType.FLOAT, shape=ir.Shape([4, 4]), name="w", base_dir="/nowhere")
    model.graph.initializers["w"].const_value = tensor


def pass_through_function(model: ir.Model) -> None:
    linear = function(model, "Linear")
    linear.outputs[0] = linear.inputs[0]


def output_twice(model: ir.Model) -> None:
    linear = function(model, "Linear")
    linear.outputs.append(linear.outputs[0])


def domain_not_imported_by_the_model(model: ir.Model) -> None:
    del model.opset_imports["m"]


def domain_not_imported_by_the_caller(model: ir.Model) -> None:
    del function(model, "Block").opset_imports["m"]


def too_many_inputs(model: ir.Model) -> None:
    model.graph[0].resize_inputs(3)
    model.graph[0].replace_input_with(2, model.graph.inputs[0])


def function_that_is_not_there(model: ir.Model) -> None:
    model.graph[1].op_type = "Blocks"


def recursion(model: ir.Model) -> None:
    function(model, "Linear").opset_imports["m"] = 1
    node = function(model, "Linear")[0]
    node.domain, node.op_type = "m", "Block"


BREAKS: list[tuple[Callable[[ir.Model], None], set[str], str]] = [
    (two_nodes_of_one_name, {"node-name"}, "2 nodes are named 'twin'"),
    (two_values_of_one_name, {"value-name"}, "the name 'h' is used for a second value"),
    (body_hides_an_outer_name, {"value-name"}, "the name 'i' is used for a second value, of node_4 (Relu)"),
    (unsorted, {"order"}, "node_1 (Block) uses 'h' before node_0 (Block) makes it"),
    (input_from_nowhere, {"dangling"}, "node_2 (Relu) uses 'ghost', which nothing makes"),
    (capture_in_a_function, {"capture"}, "uses 'w', which belongs to 'g' and is not visible here"),
    (value_of_a_body_used_outside, {"capture"}, "uses 'a', which belongs to 't'"),
    (value_of_a_body_used_after_it, {"capture"}, "late (Neg) uses 'a', which belongs to 't'"),
    (outer_value_returned_from_a_body, {"output"}, "the outer value 'h' is returned without an Identity"),
    (initializer_in_a_function, {"function-initializer"}, "holds initializers (c)"),
    (metadata_in_an_old_model, {"ir-version"}, "needs IR version 10; this model has 9"),
    (weight_of_another_shape, {"weight"}, "has shape [4,4] and its data [4,5]"),
    (weight_without_data, {"weight"}, "has no data"),
    (data_is_gone, {"weight"}, "its data is in /nowhere/gone, which is missing"),
    (pass_through_function, {"function-output"}, "returns its input 'p' unchanged"),
    (output_twice, {"function-output"}, "returns 'q' twice"),
    (domain_not_imported_by_the_model, {"function-domain", "opset-import"}, "does not import the domain 'm'"),
    (domain_not_imported_by_the_caller, {"opset-import"}, "is of the domain 'm', which is not imported here"),
    (too_many_inputs, {"call"}, "passes 3 inputs; function m::Block has 2"),
    (function_that_is_not_there, {"call"}, "node_1 (Blocks) calls a function that 'm' does not have"),
    (recursion, {"recursion"}, "calls itself: m::Block -> m::Linear -> m::Block"),
]


@pytest.mark.parametrize(("break_it", "checks", "said"), BREAKS, ids=[case[0].__name__ for case in BREAKS])
def test_a_broken_rule_is_found(break_it: Callable[[ir.Model], None], checks: set[str], said: str) -> None:
    """The rule that is broken is reported, in these words, and no other."""
    model = sound()
    break_it(model)
    found = [problem for problem in problems(model) if problem.fatal]
    assert {problem.check for problem in found} == checks
    assert said in "\n".join(map(str, found))


def test_legal_trouble_is_told_and_not_fatal() -> None:
    """Unused functions, unnamed call outputs and other opset versions are legal; some tools fail on them."""
    model = sound()
    function(model, "Linear").opset_imports[""] = 19
    model.graph[1].outputs[0].name = ""
    other = ir.Function("m", "Unused", "", graph=function(model, "Linear").clone().graph, attributes=[])
    model.functions[other.identifier()] = other
    # z reads what is now unnamed; only the notes matter here
    notes = {problem.check for problem in problems(model) if not problem.fatal}
    assert notes == {"call", "function-opset", "unused-function"}


def test_call_depth_is_limited() -> None:
    """A chain of 101 functions is one too deep; it is measured without recursion, and a chain of 5,000 is no crash."""
    for length, fatal in ((100, False), (101, True), (5000, True)):
        model = ir.from_proto(
            onnx.parser.parse_model(
                '<ir_version: 10, opset_import: ["" : 20, "m" : 1]> g (float[4] x) => (float[4] y) { y = m.f0 (x) }'
            )
        )
        for number in range(length):
            inner = f"m.f{number + 1}" if number + 1 < length else "Neg"
            text = f'<domain: "m", opset_import: ["" : 20, "m" : 1]> f{number} (a) => (b) {{ b = {inner} (a) }}'
            made = ir.from_proto(onnx.parser.parse_function(text))
            model.functions[made.identifier()] = made
        assert [p.check for p in problems(model)] == (["call-depth"] if fatal else [])


def test_the_checker_reads_no_weights() -> None:
    """The checker runs on a model whose data is not there, and still infers through its weights' shapes."""
    model = sound()
    data_is_gone(model)
    assert run_checker(model) == []
    model.graph.outputs[0].shape = ir.Shape(["n", 7])
    [problem] = run_checker(model)
    assert "Inferred shape and existing shape differ" in problem.text
    assert model.graph.initializers["w"].const_value is not None


def test_large_weights_of_one_shape_are_inputs_of_their_own_names() -> None:
    """Also one that is an input already; each keeps its tensor, with its name."""
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[1, 40] x, float[40, 40] v) => (float[1, 40] y) {
        a = MatMul (x, v)
        b = MatMul (a, w)
        y = MatMul (b, u)
    }"""
    proto = onnx.parser.parse_model(text)
    for name in ("v", "w", "u"):
        proto.graph.initializer.add(name=name, data_type=1, dims=[40, 40], raw_data=bytes(4 * 40 * 40))
    model = ir.from_proto(proto)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert run_checker(model) == []
    assert [value.const_value for value in model.graph.initializers.values()] == tensors
    assert [tensor.name for tensor in tensors if tensor is not None] == ["v", "w", "u"]
    model.graph.initializers["u"].name = "w_of_another_name"
    assert run_checker(model) == []


def test_errors_of_onnxruntime_are_one_clean_line() -> None:
    """No numbering, no C++ file and signature: what is wrong, first."""
    model = sound()
    pass_through_function(model)
    with pytest.raises(VerificationError) as caught:
        open_session(model)
    assert "\n" not in str(caught.value)
    assert not any(part in str(caught.value) for part in ("[ONNXRuntimeError]", ".cc:", "::Graph"))
