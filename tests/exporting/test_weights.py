"""What is asked of tensors without their shapes is what onnx_ir says of them."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.exporting.weights import bytes_of, elements_of, extent_of

NUMBERS = [dtype for dtype in ir.DataType if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]


@pytest.mark.parametrize("dims", [(), (0,), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_a_tensor_of_a_file_has_the_extent_that_its_shape_tells(dtype: ir.DataType, dims: tuple[int, ...]) -> None:
    """Of every dtype, those of which two or more elements share a byte included; so has one in memory, or on disk."""
    read = ir.serde.TensorProtoTensor(onnx.TensorProto(data_type=dtype.value, dims=dims))
    lazy = ir.LazyTensor(lambda: read, dtype=dtype, shape=ir.Shape(dims))
    outside = ir.ExternalTensor("weights", 0, 0, dtype, shape=ir.Shape(dims), name="w")
    for tensor in (read, lazy, outside):
        assert extent_of(tensor) == (tensor.dtype, tensor.shape.dims) == (dtype, dims)
        assert elements_of(tensor) == tensor.size
        assert bytes_of(tensor) == tensor.nbytes


def test_texts_have_elements_and_no_size_of_their_own() -> None:
    """Each takes what it takes, so they are never moved out of a file for their size."""
    texts = ir.StringTensor([b"some", b"texts"], shape=ir.Shape([2]))

    assert extent_of(texts) == (ir.DataType.STRING, (2,))
    assert (elements_of(texts), bytes_of(texts)) == (2, 0)
