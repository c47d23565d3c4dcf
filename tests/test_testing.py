"""``modelexport_passes.testing``: what it lets through and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import pytest

from modelexport_passes.testing import assert_rewrites, assert_unchanged, canonical_text, model_of

RELU = "g (float[N] x) => (float[N] y) { y = Relu(x) }"
ABS = "g (float[N] x) => (float[N] y) { y = Abs(x) }"


@dataclass(frozen=True)
class Do(ir.passes.InPlacePass):
    action: Callable[[ir.Model], bool]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, self.action(model))


def rename(new: str, told: bool | None = None) -> Do:
    def action(model: ir.Model) -> bool:
        changed = model.graph[0].op_type != new
        model.graph[0].op_type = new
        return changed if told is None else told

    return Do(action)


def test_an_honest_rewrite_passes():
    """And the result is handed back, to check more of it."""
    assert assert_rewrites(rename("Abs"), RELU, ABS).modified
    assert not assert_unchanged(rename("Abs"), ABS).modified


def test_a_model_given_as_before_is_left_alone():
    """The pass is run on a copy."""
    before = model_of(RELU)
    assert_rewrites(rename("Abs"), before, ABS)
    assert before.graph[0].op_type == "Relu"


@pytest.mark.parametrize(
    ("pass_", "before", "after", "message"),
    [
        (rename("Neg"), RELU, ABS, r"not as expected\n(.|\n)*-%y = Abs\(%x\)\n\+%y = Neg\(%x\)"),
        (rename("Abs", told=False), RELU, ABS, "modified is False, but the model has changed"),
        (rename("Abs", told=True), ABS, ABS, "modified is True, but the model has not changed"),
        (Do(lambda model: rename("Abs").action(model) or True), RELU, ABS, "modified is True for the second run"),
    ],
)
def test_a_wrong_or_dishonest_pass_fails(pass_, before, after, message):
    """With a diff, or with what it said and did."""
    with pytest.raises(AssertionError, match=message):
        assert_rewrites(pass_, before, after)


def test_a_pass_that_does_not_settle_fails():
    """The second run must change nothing."""

    def append(model: ir.Model) -> bool:
        model.graph.append(ir.node("Relu", [model.graph.inputs[0]]))
        return True

    with pytest.raises(AssertionError, match="the second run changes its own result"):
        assert_rewrites(Do(append), RELU, "g (float[N] x) => (float[N] y) { y = Relu(x)  z = Relu(x) }")


BASE = """<ir_version: 10, opset_import: ["": 20, "m": 1]>
g (float[N] x, bool c) => (float[N] y) <float w = {1}> {
    a = m.F <k = 1> (x)
    b = If (c) <then_branch = t () => (float[N] u) { u = Add(a, w) }, else_branch = e () => (float[N] v) { v = Neg(a) }>
    y = LeakyRelu <alpha = 0.5> (b)
}
<domain: "m", opset_import: ["": 20]>
F <k> (p) => (q) { k1 = Constant <value_int: int = @k> ()  q = Relu(p) }
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"": 20, "m"', '"": 21, "m"'),
        ("(float[N] x,", "(float[M] x,"),
        ("{1}", "{2}"),
        ("<k = 1>", "<k = 2>"),
        ("Add(a, w)", "Add(w, a)"),
        ("v = Neg(a)", "v = Neg(x)"),
        ("alpha = 0.5", "alpha = 0.25"),
        ("q = Relu(p)", "q = Relu(q0)  "),
        ("@k", "1"),
        ("F <k> (p)", "F <k, more> (p)"),
    ],
)
def test_every_difference_of_structure_shows(old, new):
    """Opsets, types, weights, attributes, wiring, bodies of If, functions."""
    changed = BASE.replace(old, new)
    if "q0" in changed:
        changed = changed.replace("k1 =", "q0 = Abs(p) k1 =")
    changed = changed.replace("value_int: int = 1", "value_int = 1")
    assert changed != BASE
    assert canonical_text(model_of(changed)) != canonical_text(model_of(BASE))


def test_names_in_between_do_not_matter():
    """Those of inputs, outputs and initializers do."""
    renamed = BASE.replace("a = m.F", "long_name = m.F").replace("(a", "(long_name")
    assert canonical_text(model_of(renamed)) == canonical_text(model_of(BASE))
    assert canonical_text(model_of(BASE.replace("y", "z"))) != canonical_text(model_of(BASE))


def test_metadata_is_compared_where_asked_for():
    """Tags, for example; the text format has none, so models are given."""
    after = model_of(RELU)
    after.graph[0].metadata_props["tag"] = "t"
    assert canonical_text(after) == canonical_text(model_of(RELU))
    with pytest.raises(AssertionError, match=r"\+%y = Relu\(%x\)\n"):
        assert_unchanged_except(after)


def assert_unchanged_except(after: ir.Model) -> None:
    assert_rewrites(Do(lambda _: False), RELU, after, metadata=("tag",))


def test_text_that_is_none_says_where():
    """With what the parser says."""
    with pytest.raises(ValueError, match="not a model in ONNX text format"):
        model_of("g (float[N] x) => { }")
