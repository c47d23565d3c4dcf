"""Which of many tensors an array equals: up to rounding, told relative to the spread of the tensor.

A tensor of order 1e-30 is not equal to zeros, and a mask's -3.4e38 does not make all else equal: numbers beyond
`EXTREME` are compared by themselves and are no part of the spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelexport_passes.validation.parity import HALF_TOLERANCE, TOLERANCE, rounding_floor
from modelexport_passes.validation.session import Array

if TYPE_CHECKING:
    from modelexport_passes.exporting.tensor_store import TensorStore

EXTREME = 1e30
"""Beyond it a number stands for infinity, as the least float does in masks."""

_SAMPLES = 32


def is_telling(array: Array) -> bool:
    """Whether equality with this tensor shows anything: it does not where all elements are the same, or it is empty."""
    if array.size == 0:
        return False
    numbers = _numbers(array).reshape(-1)
    if array.size == 1:
        return float(numbers[0]) not in (0.0, 1.0)
    return bool(np.any((numbers != numbers[0]) & ~(np.isnan(numbers) & np.isnan(numbers[0]))))


@dataclass(frozen=True)
class _Group:
    """Tensors of one type and shape, and a few elements of each, at which others are told apart without reading all.

    Where order is nothing, they are of one type and size.
    """

    keys: list[str]
    positions: Array
    samples: Array
    spreads: Array
    floors: Array


class TensorMatcher:
    """Finds the tensors that an array is equal to.

    Args:
        tensors: where they are.
        keys: those to look among.
        tolerance: largest difference, relative to the spread of the tensor; the default of its type if None.
        ordered: False compares the elements in whatever order and shape they are.
    """

    def __init__(
        self, tensors: TensorStore, keys: Iterable[str], tolerance: float | None = None, *, ordered: bool = True
    ) -> None:
        self._tensors = tensors
        self._tolerance = tolerance
        self._ordered = ordered
        by_kind: dict[tuple[np.dtype[Any], tuple[int, ...]], list[str]] = {}
        for key in dict.fromkeys(keys):
            kind = tensors.kind(key)
            by_kind.setdefault((kind.dtype, self._sizes(kind.shape)), []).append(key)
        self._groups = {kind: self._group(members) for kind, members in by_kind.items()}

    def may_equal(self, dtype: np.dtype[Any] | None, shape: Sequence[int | None] | None) -> bool:
        """Whether any tensor has this type and shape; None stands for what is not known."""
        if shape is not None and not self._ordered:
            known = [size for size in shape if size is not None]
            shape = (math.prod(known),) if len(known) == len(shape) else None
        return any(
            dtype in (None, known_dtype)
            and (shape is None or len(shape) == len(sizes))
            and all(ours in (None, theirs) for ours, theirs in zip(shape or (), sizes, strict=False))
            for known_dtype, sizes in self._groups
        )

    def equals_of(self, array: Array) -> list[str]:
        """Keys of the tensors that an array equals."""
        group = self._groups.get((array.dtype, self._sizes(array.shape)))
        if group is None:
            return []
        tolerance = self._tolerance_of(array)
        numbers = self._elements(array)
        limits = np.maximum(group.spreads * tolerance, group.floors)
        alike = _equal(numbers[group.positions], group.samples, limits[:, None], tolerance).all(axis=1)
        found: list[str] = []
        for row in np.flatnonzero(alike):
            reference = self._elements(self._tensors.load(group.keys[row]))
            if _equal(numbers, reference, limits[row], tolerance).all():
                found.append(group.keys[row])
        return found

    def _group(self, keys: list[str]) -> _Group:
        size = self._tensors.kind(keys[0]).size
        positions = np.unique(np.linspace(0, max(size - 1, 0), _SAMPLES).astype(np.int64)) if size else np.zeros(0, int)
        samples: list[Array] = []
        spreads: list[float] = []
        floors: list[float] = []
        dtype = self._tensors.kind(keys[0]).dtype
        for key in keys:
            numbers = self._elements(self._tensors.load(key))
            samples.append(numbers[positions])
            spreads.append(spread_of(numbers))
            floors.append(rounding_floor(dtype, numbers[np.abs(numbers) < EXTREME]))
        return _Group(keys, positions, np.stack(samples), np.array(spreads), np.array(floors))

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self._ordered else (math.prod(shape),)

    def _elements(self, array: Array) -> Array:
        numbers = _numbers(array).reshape(-1)
        return numbers if self._ordered else np.sort(numbers)

    def _tolerance_of(self, array: Array) -> float:
        if array.dtype.kind in "biu":
            return 0.0
        if self._tolerance is not None:
            return self._tolerance
        return HALF_TOLERANCE if array.dtype.itemsize <= 2 else TOLERANCE


def spread_of(numbers: Array) -> float:
    """Standard deviation of the ordinary elements; their size where all are the same."""
    ordinary = numbers[np.abs(numbers) < EXTREME]  # neither infinite nor NaN
    if ordinary.size == 0:
        return 0.0
    scale = float(np.abs(ordinary).max())
    deviation = float((ordinary / scale).std()) * scale if scale else 0.0  # 1e-200 squared is nothing
    return deviation or scale


def _equal(actual: Array, expected: Array, allowed: Array, tolerance: float) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        limit = np.where(np.abs(expected) < EXTREME, allowed, tolerance * np.abs(expected))
        near = (np.abs(actual - expected) <= limit) & np.isfinite(actual) & np.isfinite(expected)
    return near | (actual == expected) | (np.isnan(actual) & np.isnan(expected))


def _numbers(array: Array) -> Array:
    return array.astype(np.float64)
