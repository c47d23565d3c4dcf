"""Translations of operators that torch's exporter has none for, against torch, over dtypes and edge shapes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxscript.onnx_opset import opset18 as op

import modelexport_passes as mx
from modelexport_passes.exporting.record import record_of
from modelexport_passes.exporting.translations.table import OURS, translation_table
from modelexport_passes.validation.session import open_session, run_session

NAN = float("nan")
NUMBERS = torch.tensor([[2.0, -1.0, 2.0, 0.5], [0.0, 3.0, -3.0, 3.0]])
WITH_NAN = torch.tensor([[1.0, NAN, 3.0, -1.0], [-float("inf"), 2.0, 2.0, float("inf")]])
INTEGERS = torch.tensor([[3, -7, 3, 3], [0, 2**40, -(2**40), 2**40]])
SMALL = torch.tensor([[3, 200, 200], [0, 7, 7]], dtype=torch.uint8)
TRUTHS = torch.tensor([[True, False, True], [False, False, False]])
SCALAR = torch.tensor(4.0)
EMPTY = torch.zeros(0, 3)
NUMERIC = [NUMBERS, WITH_NAN, NUMBERS.double(), NUMBERS.half(), NUMBERS.bfloat16(), INTEGERS, INTEGERS.int(), SMALL]


class Apply(torch.nn.Module):
    """One operator on each of many tensors: one export for all of them."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> list[Any]:
        return [self.function(tensor) for tensor in tensors]


def assert_as_torch(function: Callable[[torch.Tensor], Any], tensors: list[torch.Tensor], *, atol: float = 0) -> None:
    """Same dtypes, shapes and values on onnxruntime as in torch, NaN in the same places."""
    exported = mx.export(Apply(function), tuple(tensors))
    record = record_of(exported)
    assert record is not None
    results = run_session(open_session(exported), record.inputs)
    assert len(results) == len(record.outputs)
    for ours, theirs in zip(results, record.outputs, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(
            ours.astype(np.float64),
            theirs.astype(np.float64),
            rtol=1e-2 if theirs.dtype.itemsize == 2 else 1e-6,
            atol=atol,
        )


@pytest.mark.parametrize("function", [torch.cummax, torch.cummin], ids=["cummax", "cummin"])
@pytest.mark.parametrize("dim", [0, -1])
def test_extremes_so_far(function: Any, dim: int) -> None:
    """Values and indices; of equal numbers the later counts, a NaN stays; scalars and axes of length zero too."""
    others = [TRUTHS, SCALAR, EMPTY, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))]
    assert_as_torch(lambda tensor: function(tensor, dim), [*NUMERIC, *others])


def test_products_so_far() -> None:
    """Integers become int64, as in torch; a dtype that is asked for is given.

    Half precision is left out: torch's exporter makes it float32 before a translation sees it.
    """
    whole = [tensor for tensor in NUMERIC if tensor.dtype.itemsize != 2]
    assert_as_torch(lambda tensor: torch.cumprod(tensor, 0), [*whole, TRUTHS, SCALAR, EMPTY])
    assert_as_torch(lambda tensor: torch.cumprod(tensor, -1, dtype=torch.float64), [NUMBERS, INTEGERS])


def test_only_axes_of_one_element_are_taken_away() -> None:
    """`squeeze` of a longer axis does nothing, alone or among others; scalars and repeated calls too."""
    tensors = [torch.randn(2, 3), torch.randn(1, 3), torch.randn(2, 1, 3), torch.randn(1, 1), torch.zeros(0, 1)]
    assert_as_torch(lambda tensor: tensor.squeeze(1), tensors)
    assert_as_torch(lambda tensor: tensor.squeeze((0, -1)), tensors)
    assert_as_torch(lambda tensor: tensor.squeeze(-1), [SCALAR, *tensors])


def test_a_size_that_varies_is_not_taken_away() -> None:
    """The axis is a longer one in the captured model, whatever its size is in a run."""
    exported = mx.export(Apply(lambda tensor: tensor.squeeze(1)), (torch.randn(2, 3),), dynamic_shapes=(({1: "n"},),))
    (result,) = run_session(open_session(exported), {str(exported.graph.inputs[0].name): np.ones((2, 5), np.float32)})
    assert result.shape == (2, 5)


def test_whole_tensors_of_truth() -> None:
    """All of nothing is true, any of nothing is false; scalars too."""
    truths = [
        TRUTHS,
        TRUTHS[1],
        ~TRUTHS[1],
        torch.tensor(True),
        torch.tensor(False),
        torch.zeros(0, 2, dtype=torch.bool),
    ]
    assert_as_torch(torch.ops.aten._is_all_true, truths)
    assert_as_torch(torch.ops.aten._is_any_true, truths)


@pytest.mark.parametrize("invert", [False, True])
def test_isin(invert: bool) -> None:
    """Few and many others (torch sorts these), one, none; a number on either side."""
    for others in ([3.0, 0.5], list(range(50)), []):
        assert_as_torch(
            lambda tensor, others=others: torch.isin(tensor, torch.tensor(others, dtype=tensor.dtype), invert=invert),
            [NUMBERS, INTEGERS, INTEGERS.int(), SCALAR, EMPTY],
        )
    assert_as_torch(lambda tensor: torch.isin(tensor, 3, invert=invert), [NUMBERS, INTEGERS])
    assert_as_torch(lambda tensor: torch.isin(3, tensor, invert=invert), [NUMBERS, INTEGERS, EMPTY])


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    """One row of numbers for all values, or a row for each row of values."""
    row = torch.tensor([-1.0, 0.5, 0.5, 3.0])
    assert_as_torch(lambda tensor: torch.searchsorted(row, tensor, right=right), [NUMBERS, SCALAR])
    assert_as_torch(
        lambda tensor: torch.searchsorted(tensor.sort(-1).values, tensor, right=right, out_int32=True),
        [NUMBERS, INTEGERS],
    )


@pytest.mark.parametrize("descending", [False, True])
def test_stable_sort(descending: bool) -> None:
    """Equal numbers keep their order, upwards and downwards."""
    tensors = [NUMBERS, INTEGERS, torch.zeros(40), (torch.arange(60) % 3).reshape(3, 20), SCALAR]
    assert_as_torch(lambda tensor: torch.sort(tensor, stable=True, descending=descending), tensors)


TWO_TENSORS = [torch.divide, torch.multiply, torch.subtract, torch.pow]
COMPARISONS = [torch.greater, torch.greater_equal, torch.less, torch.less_equal]


@pytest.mark.parametrize("function", TWO_TENSORS + COMPARISONS, ids=lambda function: function.__name__)
def test_two_tensors_of_different_types(function: Any) -> None:
    """Cast to one type as torch does: a scalar weighs less than a tensor with axes; also scalars alone, and empty."""
    truths = [] if function in (torch.subtract, torch.pow) else [TRUTHS]  # which torch does not take
    whole = [SMALL, INTEGERS, INTEGERS.int()] if function is not torch.pow else [torch.tensor([3, -4])]  # within int64
    tensors = [NUMBERS, NUMBERS.double(), NUMBERS.half(), *whole, *truths, SCALAR, EMPTY]
    for other in (torch.tensor([[2]], dtype=torch.int32), torch.tensor(2), torch.tensor([[2.0]])):
        assert_as_torch(lambda tensor, other=other: function(tensor, other), tensors)
    assert_as_torch(lambda tensor: function(torch.tensor([[2]]), tensor), [NUMBERS, SCALAR, EMPTY, *truths])


def test_subtraction_of_a_multiple() -> None:
    """Of two types, by a factor."""
    other = torch.tensor([[2]], dtype=torch.int32)
    assert_as_torch(lambda tensor: torch.subtract(tensor, other, alpha=3), [NUMBERS, INTEGERS])


def test_choices_between_truths() -> None:
    """Which onnxruntime has no kernel for, written with And and Or."""
    numbers = [NUMBERS, INTEGERS]
    assert_as_torch(lambda tensor: torch.where(tensor > 1, tensor > 2, tensor < 0), numbers)
    assert_as_torch(lambda tensor: (tensor > 0).masked_fill(tensor > 2, False), numbers)
    assert_as_torch(lambda tensor: tensor.masked_fill(tensor > 2, 7), numbers)


@pytest.mark.parametrize("other", [torch.tensor([[3], [2]]), torch.tensor([2, 1, 4, 2], dtype=torch.uint8), SCALAR])
def test_other_names_of_products_and_quotients(other: torch.Tensor) -> None:
    """Of one dtype and of two, in either order: the result has the dtype that torch gives it; scalars count less."""
    tensors = [NUMBERS, NUMBERS.double(), NUMBERS.half(), INTEGERS, INTEGERS.int(), SCALAR.double(), NUMBERS > 0]
    assert_as_torch(lambda tensor: torch.divide(tensor, other), tensors)
    assert_as_torch(lambda tensor: torch.divide(other, tensor + 9), tensors)
    assert_as_torch(lambda tensor: torch.multiply(tensor, other), tensors)
    assert_as_torch(lambda tensor: torch.multiply(tensor, tensor), tensors)


def masked_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Written where a mask over the last axis is true, and where one over all but the first is."""
    whole = tensor.unsqueeze(0).repeat(2, 1, 1)
    last, rest = tensor[0] == tensor[0, 0], tensor == tensor[0, 0]
    whole[:, 0, last] = whole[:, 1, last]
    whole[:, rest] = whole[:, rest].flip(0) + 1
    return whole


def test_masks_beside_other_axes() -> None:
    """``x[:, 0, mask] = y`` and ``x[:, mask] = y``, the mask of one axis and of two."""
    assert_as_torch(masked_rows, [NUMBERS, NUMBERS.double(), INTEGERS])


def test_how_many_elements() -> None:
    """Called as it is: torch writes the operator only in captures with sizes that depend on values, in a few places."""
    assert int(OURS["aten::sym_numel"](NUMBERS.numpy())) == NUMBERS.numel()


@pytest.mark.parametrize("ends", [[2, 2, 6], [6, 6, 6], [0, 3, 6]])
def test_grouped_products(ends: list[int]) -> None:
    """Rows by group, by the operator of transformers; empty groups too. torch's own is captured in bfloat16 only."""
    import transformers.integrations.moe  # noqa: F401 - registers the operator

    offsets = torch.tensor(ends, dtype=torch.int32)
    weights = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    assert_as_torch(lambda tensor: torch.ops.transformers.grouped_mm_fallback(tensor, weights, offsets), [rows])


@pytest.mark.parametrize(
    ("left", "right", "ends"),
    [((6, 8), (3, 8, 16), [1, 2, 4]), ((8, 16), (16, 8), [4, 8, 16]), ((3, 8, 16), (16, 8), [2, 4, 8])],
)
def test_grouped_products_of_torch(left: tuple[int, ...], right: tuple[int, ...], ends: list[int]) -> None:
    """By rows, by what is summed over, by columns. onnxruntime multiplies no bfloat16: computed by onnx's reference."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator).bfloat16() for shape in (left, right))
    offsets = torch.tensor(ends, dtype=torch.int32)
    module = Apply(lambda tensor: torch.ops.aten._grouped_mm(tensor, b, offs=offsets))
    exported = mx.export(module, (a,))
    record = record_of(exported)
    assert record is not None
    reference: Any = ReferenceEvaluator(ir.to_proto(exported))
    (ours,) = reference.run(None, record.inputs)
    (theirs,) = record.outputs
    rows = ends[-1] if len(right) == 3 else None  # behind the last group torch leaves what was in memory
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours[:rows].astype(np.float32), theirs[:rows].astype(np.float32), rtol=0.02, atol=0.05)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": (1, 1, 2)}])
def test_convolutions_of_three_dimensions(options: dict[str, Any]) -> None:
    """With a bias and without one, which is where torch's exporter errs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4 // options.get("groups", 1), 2, 2, 2, generator=generator)
    images = torch.randn(2, 4, 5, 6, 7, generator=generator)
    for bias in (None, torch.arange(4.0)):
        assert_as_torch(
            lambda tensor, bias=bias: torch.nn.functional.conv3d(tensor, weight, bias, **options),
            [images],
            atol=1e-5,
        )


def test_a_translation_of_ones_own_goes_first() -> None:
    """By the operator's name or the operator itself, in place of torch's or ours."""
    for key in ("aten::relu", torch.ops.aten.relu.default):
        model = mx.export(Apply(torch.relu), (NUMBERS,), translations={key: op.Abs})
        assert [node.op_type for node in model.graph] == ["Abs"]
    assert translation_table({"aten::cummax": len})[torch.ops.aten.cummax.default] is len


def test_every_operator_of_the_table_is_one_that_torch_has() -> None:
    """A name with a mistake would never be asked for."""
    import transformers.models.mixtral.modeling_mixtral  # noqa: F401 - registers operators of its own

    assert len(translation_table()) == len(OURS)


@pytest.mark.parametrize(
    ("translations", "message"),
    [
        ({"aten::isin": len}, "expected one of aten::isin.Tensor_Tensor, "),
        ({"aten::no_such": len}, "unknown operator 'aten::no_such'; expected namespace::name.overload"),
        ({"aten::relu": 3}, r"translations\['aten::relu'\]: got int; expected a function"),
        ({7: len}, "translations: 7 is no operator"),
    ],
)
def test_a_wrong_translation_is_told(translations: dict[Any, Any], message: str) -> None:
    """Before anything is exported."""
    with pytest.raises(mx.ConfigError, match=message):
        mx.export(Apply(torch.relu), (NUMBERS,), translations=translations)


def test_translations_in_a_pipeline_file(tmp_path) -> None:
    """``package.module:function`` beside the file; one that is not there is told with its place."""
    (tmp_path / "own.py").write_text(
        textwrap.dedent("""
            import torch
            from onnxscript.onnx_opset import opset18 as op

            def relu(self):
                return op.Abs(self)

            def make():
                return torch.nn.ReLU(), (torch.ones(2),)
        """)
    )
    text = """
        version: 1
        input:
          export: {factory: own:make, translations: {"aten::relu": own:%s}}
        steps: [{pass: recover-scopes}]
    """
    (tmp_path / "good.yaml").write_text(textwrap.dedent(text % "relu"))
    (tmp_path / "bad.yaml").write_text(textwrap.dedent(text % "rulu"))
    assert [node.op_type for node in mx.Pipeline.from_yaml(tmp_path / "good.yaml").run().model.graph] == ["Abs"]
    with pytest.raises(mx.ConfigError, match=r"bad.yaml:4:\d+: .*aten::relu.*has no 'rulu'; did you mean 'relu'"):
        mx.Pipeline.from_yaml(tmp_path / "bad.yaml")
