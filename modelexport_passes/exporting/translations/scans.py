"""Loops along the first axis as ONNX ``Scan``. Written in onnxscript's language, which is Python in form only."""
# pyright: basic

from __future__ import annotations

from onnxscript import INT64, graph, script
from onnxscript.function_libs.torch_lib.tensor_typing import TReal
from onnxscript.values import Opset

from modelexport_passes.exporting.translations.opset import op

_OPSET = Opset("modelexport_passes.translations", 1)

# As in torch, of equal numbers the later counts, and after a NaN (which is not equal to itself) comes nothing else.


@script(_OPSET, default_opset=op)
def largest_so_far(start: TReal, first: INT64, numbers: TReal, positions: INT64) -> tuple[TReal, INT64]:
    """The largest of the steps so far and where it is, for every step."""

    @graph()
    def step(best, where, number, position):
        replaces = op.Or(op.Not(op.Equal(number, number)), op.GreaterOrEqual(number, best))
        next_best = op.Where(replaces, number, best)
        next_where = op.Where(replaces, position, where)
        value = op.Identity(next_best)
        index = op.Identity(next_where)
        return next_best, next_where, value, index

    _best, _where, values, indices = op.Scan(start, first, numbers, positions, body=step, num_scan_inputs=2)
    return values, indices


@script(_OPSET, default_opset=op)
def smallest_so_far(start: TReal, first: INT64, numbers: TReal, positions: INT64) -> tuple[TReal, INT64]:
    """The smallest of the steps so far and where it is, for every step."""

    @graph()
    def step(best, where, number, position):
        replaces = op.Or(op.Not(op.Equal(number, number)), op.LessOrEqual(number, best))
        next_best = op.Where(replaces, number, best)
        next_where = op.Where(replaces, position, where)
        value = op.Identity(next_best)
        index = op.Identity(next_where)
        return next_best, next_where, value, index

    _best, _where, values, indices = op.Scan(start, first, numbers, positions, body=step, num_scan_inputs=2)
    return values, indices


@script(_OPSET, default_opset=op)
def product_so_far(start: TReal, numbers: TReal) -> TReal:
    """The product of the steps so far, for every step."""

    @graph()
    def step(product, number):
        next_product = op.Mul(product, number)
        value = op.Identity(next_product)
        return next_product, value

    _product, products = op.Scan(start, numbers, body=step, num_scan_inputs=1)
    return products
