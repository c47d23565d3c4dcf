"""The values inside a model, computed by onnxruntime: exposed as graph outputs, as many at a time as memory allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from modelexport_passes.validation.session import Array, open_session, run_session


def intermediates(
    model: ir.Model, inputs: Mapping[str, Array], values: Sequence[ir.Value], *, limit: int, unknown: int
) -> Iterator[tuple[ir.Value, Array]]:
    """Run a model and yield these values of its main graph with what they are; what is no tensor is passed over.

    The outputs of ``model`` are replaced: give a copy.

    Args:
        model: the copy.
        inputs: graph input name -> array.
        values: what to compute, each of which has a name.
        limit: bytes of values to hold at a time. One larger than that is held alone.
        unknown: bytes to reckon with for a value of unknown type or shape.

    Raises:
        VerificationError: onnxruntime does not load or run the model.
    """
    names = {value.name for value in model.graph.inputs}
    needed = {name: array for name, array in inputs.items() if name in names}
    for batch in _batches(values, limit, unknown):
        model.graph.outputs.clear()
        model.graph.outputs.extend(batch)
        results = run_session(open_session(model), needed)
        for value in batch:
            result = results.pop(0)
            if isinstance(result, np.ndarray):
                yield value, cast("Array", result)


def _batches(values: Sequence[ir.Value], limit: int, unknown: int) -> Iterator[list[ir.Value]]:
    batch: list[ir.Value] = []
    held = 0
    for value in values:
        size = _nbytes(value, unknown)
        if batch and held + size > limit:
            yield batch
            batch, held = [], 0
        batch.append(value)
        held += size
    if batch:
        yield batch


def _nbytes(value: ir.Value, unknown: int) -> int:
    if value.dtype is None or value.shape is None or not value.shape.is_static():
        return unknown
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)
