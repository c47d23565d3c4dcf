"""Scopes of operations that an exporter left without one, from the operations around them."""

from __future__ import annotations

from modelexport_passes.scopes.dataflow import infer_scopes
from modelexport_passes.scopes.scope import scope_of
from tests.scoped_models import scoped

SIZES = """
g (float[4,3] x) => (float[2,3] y) {
    s = Shape <start = 0, end = 1> (x)
    two = Constant <value = int64[1] {2}> ()
    h = Div(s, two)
    sizes = Concat <axis = 0> (h, h)
    a, b = Split(x, sizes)
    m = Add(a, b)
    n = Concat <axis = 0> (m, m)
    c, d = Split(n, sizes)
    y = Add(c, d)
}
"""
FIRST, SECOND = "/Net/Block.layers.0", "/Net/Block.layers.1"
SCOPES = dict.fromkeys(("s", "h", "sizes", "m"), FIRST) | {"n": SECOND, "y": SECOND}


def _path(text: str, scopes: dict[str, str], value: str) -> str | None:
    model = scoped(text, scopes)
    infer_scopes(list(model.graph))
    (node,) = [node for node in model.graph if node.outputs[0].name == value]
    scope = scope_of(node)
    return None if scope is None else scope.path


def test_a_size_from_another_module_does_not_lift_an_operation_out_of_its_own() -> None:
    """An optimizer merged the sizes of two layers' Splits; each still lies between operations of its layer."""
    assert _path(SIZES, SCOPES, "c") == "layers.1"


def test_between_two_modules_that_are_not_nested_is_around_both() -> None:
    """What lies between operations of either layer on both sides is in neither."""
    text = SIZES.replace("y = Add(c, d)", "e = Neg(c)  f = Neg(d)  y = Add(e, f)")
    assert _path(text, {**SCOPES, "e": FIRST, "f": SECOND}, "c") == ""
