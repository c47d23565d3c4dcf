"""The pass: all failures at once, figures, and the references of parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.builtin import validate
from modelexport_passes.builtin.validate import Parity, Validate
from modelexport_passes.errors import ConfigError, VerificationError
from modelexport_passes.exporting.files import save
from modelexport_passes.exporting.record import ExportRecord
from modelexport_passes.pass_base import RunContext

TEXT = """
<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[n, 4] y) <float[4] b = {1, 2, 3, 4}>
{ [add] h = Add (x, b)  [tanh] y = Tanh (h) }
"""


def model_of(text: str = TEXT) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


OTHER = TEXT.replace("3, 4}", "3, 4.5}")
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
Y = np.tanh(X + np.array([1, 2, 3, 4], np.float32))


def context(reference: str = TEXT, outputs: list[np.ndarray] | None = None) -> RunContext:
    record = ExportRecord("dynamo", {"x": X}, outputs if outputs is not None else [Y])
    return RunContext(lambda: model_of(reference), record)


def test_a_sound_model_passes_and_is_not_modified() -> None:
    """Alone, it checks structure and hierarchy; unknown scopes are counted and not an error."""
    outcome = Validate()(model_of())
    assert not outcome.modified
    assert outcome.figures == {  # type: ignore[attr-defined]
        "checks": ["checker", "hierarchy"],
        "nodes": 2,
        "tagged": 0,
        "unknown": 2,
        "calls": 0,
    }


def test_all_failures_are_told_at_once() -> None:
    """One run shows every fault of every kind of check, and says what it did not get to."""
    model = model_of()
    model.graph[0].name = model.graph[1].name = "twin"
    model.graph[0].metadata_props["pkg.modelexport_passes.scope"] = "nonsense"
    model.graph[1].op_type = "Tanhh"
    with pytest.raises(VerificationError) as caught:
        Validate(session=True, parity=Parity()).bind(context())(model)
    lines = str(caught.value).splitlines()
    assert lines[0] == "validate: 2 faults"  # onnxruntime's words for the repeated name would repeat it
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "node-name",
        "scope",
        "session was not checked",
        "parity was not checked",
    ]
    assert caught.value.exit_code == 3


def test_checks_can_be_left_out() -> None:
    """What is switched off is not run."""
    model = model_of()
    model.graph[1].op_type = "Tanhh"
    assert Validate(checker=False)(model).figures["checks"] == ["hierarchy"]  # type: ignore[attr-defined]
    with pytest.raises(VerificationError, match="onnx-checker"):
        Validate()(model)


def test_onnxruntime_is_asked_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loading is quadratic in the nodes of a model; parity runs both models anyway."""
    opened: list[ir.Model] = []
    monkeypatch.setattr(validate, "open_session", opened.append)
    model = model_of()
    Validate()(model)
    assert opened == []
    assert Validate(session=True)(model).figures["checks"] == ["checker", "hierarchy", "session"]  # type: ignore[attr-defined]
    assert opened == [model]


class TestParity:
    def test_with_the_input_and_torch(self) -> None:
        """Both references are told apart in the figures."""
        outcome = Validate(parity={"reference": ["input", "torch"]}).bind(context())(model_of())  # type: ignore[arg-type]
        figures = outcome.figures  # type: ignore[attr-defined]
        assert figures["bit_equal"] is True
        assert figures["max_abs_diff"] == 0.0
        assert 0 <= figures["torch_rel_diff"] < 1e-6
        assert figures["checks"][-2:] == ["parity with input", "parity with torch"]

    def test_a_difference_from_either_is_an_error(self) -> None:
        """Each failing reference is a fault of its own."""
        pass_ = Validate(parity=Parity(reference=["input", "torch"])).bind(context(OTHER, [Y + 1]))
        with pytest.raises(VerificationError) as caught:
            pass_(model_of())
        assert "validate: 2 faults" in str(caught.value)
        assert "parity with input: the model: output 'y' differs by up to" in str(caught.value)
        assert "parity with torch: the model: output 'y' differs by up to 1, " in str(caught.value)

    def test_with_a_file_and_a_tolerance(self, tmp_path: Path) -> None:
        """Another model is compared bit by bit, or within a tolerance when asked."""
        near = TEXT.replace("3, 4}", "3, 4.000001}")
        save(model_of(near), tmp_path / "near.onnx")
        with pytest.raises(VerificationError, match="differs by up to"):
            Validate(parity=Parity(reference=str(tmp_path / "near.onnx")))(model_of())
        pass_ = Validate(parity=Parity(reference=str(tmp_path / "near.onnx"), bit_equal=False))
        assert pass_(model_of()).figures["bit_equal"] is False  # type: ignore[attr-defined]

    def test_inputs_from_a_file(self, tmp_path: Path) -> None:
        """Given inputs are used; a file that is none is a clear error."""
        large = TEXT.replace("[tanh] y = Tanh (h)", "y = Clip (h, low, high)")
        large = large.replace("3, 4}", "3, 4}, float low = {-1e30}, float high = {%s}")
        save(model_of(large % "1000"), tmp_path / "clip.onnx")
        np.savez(tmp_path / "large.npz", x=np.full((2, 4), 1e6, np.float32))
        reference = str(tmp_path / "clip.onnx")
        Validate(parity=Parity(reference=reference))(model_of(large % "2000"))  # made inputs are not that large
        with pytest.raises(VerificationError, match="differs by up to 1e\\+03"):
            Validate(parity=Parity(reference=reference, inputs=str(tmp_path / "large.npz")))(model_of(large % "2000"))
        (tmp_path / "bad.npz").write_text("no")
        with pytest.raises(ConfigError, match=r"bad.npz: not an .npz file"):
            Validate(parity=Parity(reference=reference, inputs=str(tmp_path / "bad.npz")))(model_of())

    @pytest.mark.parametrize("reference", ["input", "torch"])
    def test_a_reference_that_is_not_there_is_a_configuration_error(self, reference: str) -> None:
        """Parity that cannot be checked is never passed over."""
        with pytest.raises(ConfigError, match="parity with"):
            Validate(parity=Parity(reference=reference))(model_of())

    def test_options_are_checked(self) -> None:
        """A mistyped option in a mapping is an error that lists those there are."""
        with pytest.raises(ConfigError, match="parity has no option 'referense'; there are reference, bit_equal"):
            Validate(parity={"referense": "input"})  # type: ignore[arg-type]

    def test_binding_leaves_the_original_alone(self) -> None:
        """A pass is a value; only the bound one knows the pipeline."""
        pass_ = Validate(parity=Parity())
        assert pass_.bind(context()) is not pass_
        with pytest.raises(ConfigError):
            pass_(model_of())
