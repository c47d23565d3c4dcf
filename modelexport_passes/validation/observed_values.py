"""The values inside a model, each with the recorded tensors that it equals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelexport_passes.exporting.tensor_store import Kind
from modelexport_passes.validation.intermediates import Budget, intermediates
from modelexport_passes.validation.session import Array
from modelexport_passes.validation.tensor_matching import TensorMatcher, is_telling

if TYPE_CHECKING:
    from modelexport_passes.exporting.module_calls import Recording

_MANY = 8

_NEAR = 1e-2
"""Of a tensor's spread: what float32 makes of small differences in a deep or recurrent model before they are others."""


@dataclass(frozen=True)
class Compared:
    """One value of the model beside the recorded tensors.

    Attributes:
        kind: its type and shape.
        equals: keys of the tensors that it equals.
        telling: equality with it shows something: its elements differ.
    """

    kind: Kind
    equals: Sequence[str]
    telling: bool


@dataclass
class Observed:
    """The values of a model beside the recorded tensors.

    Attributes:
        compared: value -> what was found.
        makers: key of a recorded tensor -> the values that equal it.
        shuffled: key of a recorded tensor that no value equals -> the values that have its elements in another order or
            shape.
        near: key of a recorded tensor that no value equals -> the values that are off by rounding alone, as it seems.
    """

    compared: dict[ir.Value, Compared] = field(default_factory=dict[ir.Value, Compared])
    makers: dict[str, list[ir.Value]] = field(default_factory=dict[str, list[ir.Value]])
    shuffled: dict[str, list[ir.Value]] = field(default_factory=dict[str, list[ir.Value]])
    near: dict[str, list[ir.Value]] = field(default_factory=dict[str, list[ir.Value]])

    def add(self, value: ir.Value, found: Compared) -> None:
        """Take in what was found about a value."""
        self.compared[value] = found
        for key in found.equals:
            self.makers.setdefault(key, []).append(value)


def observe(
    flat: ir.Model, inputs: Mapping[str, Array], recording: Recording, *, tolerance: float | None, memory: int
) -> Observed:
    """Compute the values inside a model and find the recorded tensors that each equals.

    Args:
        flat: without function calls; left as it is.
        inputs: graph input name -> array.
        recording: the tensors to look for.
        tolerance: largest difference, relative to the spread of the tensor; the default of its type if None.
        memory: bytes of values to hold at a time.

    Raises:
        VerificationError: onnxruntime does not load or run the model.
    """
    tensors = recording.tensors
    matcher = TensorMatcher(tensors, tensors, tolerance)
    largest = max((tensors.kind(key).nbytes for key in tensors), default=0)
    observed = Observed()
    budget = Budget(memory, unknown=largest)
    for value, array in intermediates(flat, inputs, list(_candidates(flat, matcher)), budget):
        observed.add(value, _compared(array, matcher))
    for value in flat.graph.inputs:
        if value.name and value.name in inputs:
            observed.compared[value] = _compared(inputs[value.name], matcher)
    # Elements in another order (of tied choices, the rows of an expert) or shape (optimizers merge Reshape and
    # Transpose with those that follow) are looked for only where there is need.
    computed = dict.fromkeys(key for call in recording.calls for key in call.computed)
    missing = [key for key in computed if key not in observed.makers and _has_many_floats(tensors.kind(key))]
    matcher = TensorMatcher(tensors, missing, tolerance, ordered=False)
    # Who names a tolerance means it.
    nearly = TensorMatcher(tensors, missing if tolerance is None else [], _NEAR)
    values = list(_candidates(flat, matcher)) if missing else []
    for value, array in intermediates(flat, inputs, values, budget):
        for key in matcher.equals_of(array):
            observed.shuffled.setdefault(key, []).append(value)
        for key in nearly.equals_of(array):
            observed.near.setdefault(key, []).append(value)
    return observed


def _has_many_floats(kind: Kind) -> bool:
    """Whether having the same elements in another order is no accident."""
    return kind.dtype.kind not in "biu" and kind.size >= _MANY


def _compared(array: Array, matcher: TensorMatcher) -> Compared:
    return Compared(Kind(array.dtype, array.shape), matcher.equals_of(array), is_telling(array))


def _candidates(model: ir.Model, matcher: TensorMatcher) -> Iterator[ir.Value]:
    """The values of the main graph whose type and shape, as far as they are known, are those of a recorded tensor."""
    for node in model.graph:
        for value in node.outputs:
            if not value.name or value.dtype is ir.DataType.STRING:
                continue
            if value.type is not None and not isinstance(value.type, ir.TensorType):
                continue
            dtype = value.dtype.numpy() if value.dtype is not None else None
            shape = None if value.shape is None else [dim if isinstance(dim, int) else None for dim in value.shape]
            if matcher.may_equal(dtype, shape):
                yield value
