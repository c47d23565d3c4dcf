"""Values inside a model: the same ones however little is held at a time, each computed once."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.errors import VerificationError
from modelexport_passes.progress import Progress, told_to
from modelexport_passes.validation import intermediates
from modelexport_passes.validation.intermediates import Budget
from modelexport_passes.validation.session import Array, open_session, run_session

AT_ONCE, ONE_BY_ONE = Budget(1 << 30, 1), Budget(1, 1)


def inner(text: str, inputs: dict[str, Array], budget: Budget) -> dict[str, Array]:
    """What the values of the main graph are."""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}'))
    values = [value for node in model.graph for value in node.outputs]
    return {str(value.name): array for value, array in intermediates.intermediates(model, inputs, values, budget)}


X = np.arange(6, dtype=np.float32).reshape(2, 3)

MODELS = {
    "branches that meet again, and a weight read twice": """
        agraph (float[2,3] x) => (float[2,3] y) <float[1] w = {3}> {
          a = Mul(x, w)  b = Add(x, w)  c = Sub(a, b)  y = Add(c, a)
        }""",
    "a body that uses what was made outside": """
        agraph (float[2,3] x) => (float[2,3] y) {
          a = Neg(x)  s = ReduceSum <keepdims = 0> (x)  zero = Constant <value_float = 0.0> ()
          c = Greater(s, zero)
          b = If (c) <then_branch = t () => (float[2,3] u) { u = Add(a, x) },
                      else_branch = e () => (float[2,3] v) { v = Sub(a, x) }>
          y = Mul(b, a)
        }""",
    "a sequence": """
        agraph (float[2,3] x) => (float[2,3] y) {
          s = SplitToSequence <axis = 0> (x)  i = Constant <value_int = 1> ()
          a = SequenceAt(s, i)  n = SequenceLength(s)  y = Add(a, x)
        }""",
    "sizes that are computed": """
        agraph (float[1,1,2,3] x) => (float[1,1,m,n] y) {
          s = Shape(x)  two = Constant <value_ints = [1, 1, 2, 2]> ()  d = Mul(s, two)
          y = Resize <mode = "nearest"> (x, , , d)
        }""",
    "bfloat16": """
        agraph (float[2,3] x) => (float[2,3] y) { a = Cast <to = 16> (x)  b = Identity(a)  y = Cast <to = 1> (b) }""",
    "text": """
        agraph (float[2,3] x) => (float[2,3] y) { a = Cast <to = 8> (x)  b = Identity(a)  y = Cast <to = 1> (b) }""",
    "out of order": "agraph (float[2,3] x) => (float[2,3] y) { y = Neg(a)  a = Exp(x) }",
}  # fmt: skip


@pytest.mark.parametrize("text", MODELS.values(), ids=list(MODELS))
def test_values_do_not_depend_on_how_many_are_held(text: str) -> None:
    """What goes from one stretch to the next is handed on as it is, whatever its type."""
    x = X.reshape(1, 1, 2, 3) if "[1,1,2,3]" in text else X
    whole, parts = inner(text, {"x": x}, AT_ONCE), inner(text, {"x": x}, ONE_BY_ONE)
    assert whole.keys() == parts.keys() != set()
    for name, array in whole.items():
        assert array.dtype == parts[name].dtype
        np.testing.assert_array_equal(array, parts[name])


def test_types_that_numpy_lacks_come_as_they_are() -> None:
    """As values of ml_dtypes."""
    text = MODELS["bfloat16"]
    assert inner(text, {"x": X}, ONE_BY_ONE)["a"].dtype == ml_dtypes.bfloat16


def test_random_numbers_are_drawn_once() -> None:
    """A value and what follows from it are of one run."""
    text = """agraph (float[2,3] x) => (float[2,3] y) { a = RandomNormalLike(x)  b = Identity(a)  y = Neg(b) }"""
    found = inner(text, {"x": X}, ONE_BY_ONE)
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["a"], -found["y"])


def test_every_operation_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory there are more sessions, and no more work."""
    nodes: list[int] = []
    opened = intermediates.open_session

    def open_session(model: ir.Model) -> object:
        nodes.append(len(model.graph))
        return opened(model)

    monkeypatch.setattr(intermediates, "open_session", open_session)
    inner(MODELS["branches that meet again, and a weight read twice"], {"x": X}, ONE_BY_ONE)
    assert nodes == [1, 1, 1, 1]


def test_constants_stay_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that take nothing else (the scales of an old Upsample) are taken in a stretch as in the whole."""
    inputs: list[list[str | None]] = []
    opened = intermediates.open_session

    def open_session(model: ir.Model) -> object:
        inputs.append([value.name for value in model.graph.inputs])
        return opened(model)

    monkeypatch.setattr(intermediates, "open_session", open_session)
    text = "agraph (float[2,3] x) => (float[2,3] y) { c = Constant <value_float = 2.0> ()  a = Neg(x)  y = Pow(a, c) }"
    inner(text, {"x": X}, ONE_BY_ONE)
    assert inputs == [[], ["x"], ["a"]]


def test_a_run_refuses_what_numpy_cannot_hold() -> None:
    """A sequence beside bfloat16 is no array, and two of them are not equal for being none."""
    text = """(bfloat16[2] x) => (bfloat16[2] y, seq(float[2]) s) {
        y = Identity(x)  f = Cast <to = 1> (x)  s = SequenceConstruct(f)
    }"""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> agraph {text}'))
    x = np.ones(2, dtype=ml_dtypes.bfloat16)
    with pytest.raises(VerificationError, match="onnxruntime does not run the model"):
        run_session(open_session(model), {"x": x})


def test_text_that_is_given_is_an_error_of_the_run() -> None:
    """No value of onnxruntime's own form is made of it; said as other failures are, and only if it is an input."""
    x = np.array([["a"] * 3] * 2)
    with pytest.raises(VerificationError, match="onnxruntime does not run the model"):
        inner("agraph (string[2,3] x) => (string[2,3] y) { y = Identity(x) }", {"x": x}, AT_ONCE)
    found = inner("agraph (float[2,3] x) => (float[2,3] y) { y = Neg(x) }", {"x": X, "other": x}, AT_ONCE)
    assert found.keys() == {"y"}


def test_each_stretch_is_told_before_it_runs() -> None:
    """Of how many, to the listener of this context alone."""
    told: list[Progress] = []
    text = "agraph (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Exp(a)  y = Abs(b) }"
    with told_to(told.append):
        inner(text, {"x": X}, ONE_BY_ONE)
    assert told == [Progress("module proof: stretches run", number, 3) for number in range(3)]
