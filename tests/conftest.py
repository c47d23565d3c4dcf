"""What all tests share."""

from __future__ import annotations

import os

# Two test processes on two cores: each computes on one. Set before torch and onnxruntime are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import onnx_ir as ir
import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

CHAIN = """<ir_version: 10, opset_import: ["": 20]>
g (float[N] x) => (float[N] y) {
    a = Relu(x)
    b = Neg(a)
    y = Exp(b)
}
"""


@pytest.fixture
def chain() -> ir.Model:
    """Relu, Neg, Exp in a row."""
    return ir.from_onnx_text(CHAIN)
