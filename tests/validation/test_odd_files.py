"""Files that people bring: dimensions of any text, and outputs whose spread is rounding noise."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelexport_passes.validation.inputs import input_sets
from modelexport_passes.validation.parity import compare_arrays, compare_models


def _relu(*dims: str | int) -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(dims))
    node = ir.node("Relu", [x])
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("text", ["?", "", "a b", "-1", "N+1", "日本", "batch,seq", "x**", "max(", "1/0"])
def test_parity_runs_with_a_dimension_of_any_text(text: str) -> None:
    """Text that is no expression is a name: two models are compared at sizes of at least one."""
    comparison = compare_models(_relu(text, 4), _relu(text, 4))
    assert comparison.bit_equal
    assert all(sizes["x"][0] > 0 for sizes in comparison.sizes)


def test_a_negative_size_is_an_unknown_one() -> None:
    """Some exporters write -1 as the value of a dimension."""
    assert all(min(inputs["x"].shape) > 0 for inputs in input_sets(_relu(-1, 4)))


def test_a_name_that_is_no_expression_is_one_size_wherever_it_stands() -> None:
    """``batch,seq`` twice is one size; ``?`` twice says nothing."""
    assert all(
        inputs["x"].shape[1] == inputs["x"].shape[2] for inputs in input_sets(_relu("n", "batch,seq", "batch,seq"))
    )
    first = next(iter(input_sets(_relu("n", "?", "?"))))["x"].shape
    assert first[1] != first[2]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8))
def test_inputs_are_made_for_any_dimension(text: str) -> None:
    """No text of a dimension ends in another error than the project's, and all sizes are such as arrays have."""
    assert all(min(inputs["x"].shape) >= 0 for inputs in input_sets(_relu(text, 4)))


def test_a_spread_of_rounding_noise_makes_no_fault() -> None:
    """A unit of rounding at 1.0 is within the tolerance, though the spread is of one unit; ten units are not."""
    unit = np.float32(2.0**-23)
    right = np.ones(100, np.float32)
    right[::2] += unit
    off = right.copy()
    off[3] += unit
    assert compare_arrays("y", off, right).within(None)
    off[3] += 10 * unit
    assert not compare_arrays("y", off, right).within(None)
