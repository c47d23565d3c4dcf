"""Paths that TorchScript's names leave open: what speaks against the caller holding a module itself."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from tests.scopes.test_torchscript_names import model_of

Operation = tuple[str, str, tuple[str, ...]]


def told(model: ir.Model) -> list[tuple[str, bool]]:
    """The innermost call of each operation, and whether it is exact."""
    mx.RecoverScopes(source="name")(model)
    scopes = [mx.scope_of(node) for node in model.graph]
    assert None not in scopes
    return [(str(scope.frames[-1]), scope.source.exact) for scope in scopes if scope is not None]


def test_what_a_caller_of_anothers_modules_calls_may_be_anothers_too() -> None:
    """`/fc` is `head.fc`, and the head is not running: `/pool` may be `head.pool`, and is not exact."""
    pool: Operation = ("/pool/GlobalAveragePool", "GlobalAveragePool", ())
    through: Operation = ("/fc/Gemm", "Gemm", ("head.fc.bias",))
    assert told(model_of(pool, through))[0] == ("pool", False)
    held: Operation = ("/head/fc/Gemm", "Gemm", ("head.fc.bias",))
    assert told(model_of(pool, held))[0] == ("pool", True)


def test_a_known_module_whose_holder_does_not_run_may_be_meant() -> None:
    """Of `norm` and `head.norm` the name tells neither where no parameter of one is read."""
    norm: Operation = ("/norm/Mul", "Mul", ())
    own: Operation = ("/norm/Add", "Add", ("norm.bias",))
    other: Operation = ("/Add", "Add", ("head.norm.bias",))
    assert told(model_of(norm, other, own))[0] == ("norm", True)  # the call reads its own
    unread: Operation = ("/Sum", "Sum", ("norm.bias", "head.norm.bias"))
    assert told(model_of(norm, unread))[0] == ("norm", False)
    running: Operation = ("/head/Relu", "Relu", ())
    assert told(model_of(norm, unread, running))[0] == ("norm", True)


@pytest.mark.parametrize(("second", "call"), [([[5.0, 6.0], [7.0, 8.0]], "q"), ([[1.0, 2.0], [3.0, 4.0]], "q.default")])
def test_calls_that_read_different_weights_are_of_two_modules(second: list[list[float]], call: str) -> None:
    """`lora_A.default` and `lora_B.default` are `/default`, `/default_1`, and their weights have no names."""
    model = model_of(
        ("/q/default/MatMul", "MatMul", ("onnx::MatMul_1",)), ("/q/default_1/MatMul", "MatMul", ("onnx::MatMul_2",))
    )
    for name, content in (("onnx::MatMul_1", [[1.0, 2.0], [3.0, 4.0]]), ("onnx::MatMul_2", second)):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(content, name=name)
        value.shape = ir.Shape([2, 2])
    assert told(model)[0] == (call, call != "q")


def test_what_a_sequential_calls_beside_its_items_is_held_by_another() -> None:
    """`Sequential(linear, self.act)`: the exporter names the module by its first name, which ends in no number."""
    linear: Operation = ("/net/net.0/Gemm", "Gemm", ("net.0.weight",))
    act: Operation = ("/net/act/Relu", "Relu", ())
    item: Operation = ("/net/net.1/Relu", "Relu", ())
    assert told(model_of(linear, act))[1] == ("net.act", False)
    assert told(model_of(linear, item))[1] == ("net.1", True)
    named: Operation = ("/net/last/Gemm", "Gemm", ("net.last.weight",))  # then it is no Sequential
    assert told(model_of(linear, act, named))[1] == ("net.act", True)
    listed: Operation = ("/net/net.0/Gemm", "Gemm", ("net.net.0.weight",))  # a list of the name of the module around it
    assert told(model_of(listed, act))[1] == ("net.act", True)
