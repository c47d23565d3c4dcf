"""Which operations draw random numbers."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from modelexport_passes.randomness import draws_random_numbers

X, RATIO, TRAINING = (ir.Value(name=name) for name in ("x", "ratio", "training"))


@pytest.mark.parametrize(
    ("domain", "op_type", "inputs", "expected"),
    [
        ("", "RandomNormalLike", [X], True),
        ("ai.onnx", "Bernoulli", [X], True),
        ("", "Dropout", [X, RATIO, TRAINING], True),
        ("", "Dropout", [X, RATIO], False),
        ("", "Dropout", [X, RATIO, None], False),
        ("", "Relu", [X], False),
        ("com.example", "Bernoulli", [X], False),
    ],
)
def test_only_onnxs_own_random_operators_draw(
    domain: str, op_type: str, inputs: list[ir.Value | None], expected: bool
) -> None:
    """A Dropout draws only if it may be told that this is training; what others call Bernoulli is theirs to say."""
    assert draws_random_numbers(ir.Node(domain, op_type, inputs)) is expected
