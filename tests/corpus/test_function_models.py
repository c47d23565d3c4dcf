"""Models with functions that other people wrote, inlined: attribute references, subgraphs, overloads, name clashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from tests.round_trip import differences

FOLDER = Path(__file__).parents[1] / "data" / "functions"
INDEX: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
OTHER_OPSET = "onnx__tests__cpp__inliner_test.cc__L236.onnx"
"""Its functions are written for opset 18, the model for 17."""
RUNNABLE = [row["file"] for row in INDEX if row["runs_on_ort"] and row["file"] != OTHER_OPSET]
OTHERS = [row["file"] for row in INDEX if not row["runs_on_ort"]]


def feeds_of(proto: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Small inputs that every one of these models takes: 2 for an unknown size, ones for what is not a float."""
    generator = np.random.default_rng(0)
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    initialised = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in initialised:
            continue
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else 2 for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.issubdtype(dtype, np.floating):
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            feeds[value.name] = np.ones(shape, dtype)
    return feeds


@pytest.mark.parametrize("file", RUNNABLE)
def test_a_model_that_runs_gives_the_same_bits_after_inlining(file: str) -> None:
    """No function is left, and the outputs are bit-equal."""
    before = onnx.load(FOLDER / file)
    model = ir.from_proto(before)
    mx.Inline()(model)
    after = ir.to_proto(model)
    assert not after.functions
    assert differences(before, after, feeds_of(before)) == []


def test_a_function_for_another_opset_is_refused_by_name() -> None:
    """Operators may mean something else in the model's opset: the error names the function and both versions."""
    with pytest.raises(mx.ModelExportError, match=r"local::foo uses opset 18 of domain '', the model 17"):
        mx.Inline()(ir.from_proto(onnx.load(FOLDER / OTHER_OPSET)))


@pytest.mark.parametrize("file", OTHERS)
def test_a_model_that_does_not_run_inlines_to_a_valid_one_or_is_refused(file: str) -> None:
    """What the checker accepted before, it accepts after; what cannot be inlined is refused with a clear error."""
    before = onnx.load(FOLDER / file)
    model = ir.from_proto(before)
    try:
        mx.Inline()(model)
    except mx.ModelExportError:
        return
    after = ir.to_proto(model)
    assert not after.functions
    if is_valid(before):
        onnx.checker.check_model(after)


def is_valid(proto: onnx.ModelProto) -> bool:
    """Whether the checker accepts it: some of these models were written to be refused."""
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        return False
    return True
