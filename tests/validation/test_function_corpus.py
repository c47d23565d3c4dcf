"""Our rules against onnx.checker and onnxruntime, on models with functions that others wrote for their own tests."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from modelexport_passes.errors import VerificationError
from modelexport_passes.exporting.files import load
from modelexport_passes.validation.checker import run_checker
from modelexport_passes.validation.functions import check_functions
from modelexport_passes.validation.session import open_session
from modelexport_passes.validation.structure import check_structure

MODELS = sorted((Path(__file__).parents[1] / "data" / "functions").glob("*.onnx"))


def test_the_corpus_is_there() -> None:
    """An empty directory would make the tests below pass."""
    assert len(MODELS) > 50


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_we_agree_with_the_checker_and_onnxruntime(path: Path) -> None:
    """The checker on our model says what it says on the file; what others take we take, what they refuse we refuse."""
    model = load(path)
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        valid = True
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        valid = False
    ours = [problem for problem in (*check_structure(model), *check_functions(model)) if problem.fatal]
    checked = run_checker(model)
    assert (not checked) == valid
    try:
        open_session(model)
        loads = True
    except VerificationError as error:
        # Being new is no fault of a model.
        loads = "under development" in str(error)
    if valid and loads:
        assert not ours
    if not loads:
        assert ours or checked
