"""Operators that onnx has no schema for: what inference cannot see through is a note, and a fault stays a fault."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.validation.checker import run_checker
from modelexport_passes.validation.problem import Problem

HEAD = '<ir_version: 10, opset_import: ["" : 20, "m" : 1, "v" : 1]>'
TAIL = '<domain: "m", opset_import: ["" : 20, "m" : 1, "v" : 1]>'


ACT = "Act (u) => (w) { w = v.Quick (u) }"


def found(main: str, body: str) -> list[Problem]:
    graph = f"g (float[2, 4] x, bool c) => (float[2, 4] y) {{ {main} }}"
    text = f"{HEAD} {graph} {TAIL} Block (u) => (w) {{ {body} }} {TAIL} {ACT}"
    model = ir.from_proto(onnx.parser.parse_model(text))
    for function in model.functions.values():
        for node in function:
            if node.domain in ("v", "m"):
                node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
                node.outputs[0].shape = ir.Shape((2, 4))
    return run_checker(model)


@pytest.mark.parametrize(
    "main",
    [
        "y = m.Block (x)",
        "h = m.Block (x)  y = m.Block (h)",
        "y = If (c) <then_branch = t () => (a) { a = m.Block (x) }, else_branch = e () => (b) { b = Neg (x) }>",
    ],
)
def test_an_operator_without_a_schema_in_a_function_is_a_note(main: str) -> None:
    """The types behind it are those that its values have; the note names the operator."""
    problems = found(main, "t = m.Act (u)  w = Transpose <perm = [0, 1]> (t)")
    assert [(one.fatal, "v::Quick" in one.text) for one in problems] == [(False, True)]


@pytest.mark.parametrize(
    ("main", "body"),
    [
        ("y = m.Block (x)", "t = m.Act (u)  s = Not (u)  w = Add (t, u)"),
        ("y = m.Block (x)", "t = m.Act (u)  w = Transpose <perm = [0, 0]> (t)"),
        ("h = m.Block (x)  y = Not (h)", "t = m.Act (u)  w = Relu (t)"),
        ("y = Relu (x)", "t = m.Act (u)  w = NoSuchOperator (t)"),
        ("y = m.Block (x)", "t = Relu (u)  w = Not (t)"),
    ],
)
def test_a_fault_beside_an_operator_without_a_schema_is_found(main: str, body: str) -> None:
    """Wrong types and attributes, in the function, after it, and in one that nothing calls."""
    assert [one.fatal for one in found(main, body)] == [True]
