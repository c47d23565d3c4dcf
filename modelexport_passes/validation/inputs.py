"""Making inputs for a model of which only the file is known.

Integers stay below the number of rows they index (an embedding is found through casts and into functions), masks are 0
and 1, floats are normal, and dimensions of one name have one size. Which sizes a model runs with cannot be told from
its file, so several assignments are offered, likely ones first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelexport_passes.errors import VerificationError
from modelexport_passes.validation.session import Array

_PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
_INDEXING = {"Gather": 1, "GatherElements": 1}
"""Operator -> the input that holds indices into its first input."""

_KEEPS_INTEGERS = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators whose output has no integers but those of their first input."""


@dataclass(frozen=True)
class Sizes:
    """An assignment of sizes to symbolic dimensions.

    Attributes:
        first: the size of a dimension that stands first in some input (a batch).
        others: the sizes of the other dimensions, by order of appearance, the last one repeated.
    """

    first: int
    others: tuple[int, ...]


LADDER = (Sizes(2, _PRIMES), Sizes(3, (8,)), Sizes(2, (64,)), Sizes(1, (224,)), Sizes(1, (1,)))
"""Distinct small sizes first, as they tell dimensions apart; then sizes that models with fixed relations run with."""


def real_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph inputs that a caller must give: those without a default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def input_sets(model: ir.Model, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Sets of inputs to try, each with other sizes; a single one if no dimension is symbolic.

    Deterministic: the same model and seed give the same arrays.

    Raises:
        VerificationError: an input has a type or an unknown rank that nothing can be made for.
    """
    values = real_inputs(model)
    bounds = {value.name or "": index_bound(model, value) for value in values}
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for attempt, sizes in enumerate(LADDER):
        bindings = _bind(values, sizes)
        shapes = tuple(_shape(value, bindings, sizes) for value in values)
        if shapes not in seen:
            seen.add(shapes)
            rng = np.random.default_rng([seed, attempt])
            yield {
                value.name or "": _array(value, shape, bounds[value.name or ""], rng)
                for value, shape in zip(values, shapes, strict=True)
            }


# --- shapes ----------------------------------------------------------------------------------------------------------


def _bind(values: list[ir.Value], sizes: Sizes) -> dict[str, int]:
    """A size for each named dimension. A name in an expression (``past + seq``) is a dimension like any other."""
    bindings: dict[str, int] = {}
    axes = [
        (axis, symbol) for value in values for axis, dim in enumerate(value.shape or ()) for symbol in _symbols(dim)
    ]
    # A dimension that also stands elsewhere is no batch: positions[sequence] beside ids[batch, sequence].
    leading = {symbol for axis, symbol in axes if axis == 0} - {symbol for axis, symbol in axes if axis > 0}
    others = 0
    for _, symbol in axes:
        if symbol in bindings:
            continue
        if symbol in leading:
            bindings[symbol] = sizes.first
        else:
            bindings[symbol] = sizes.others[min(others, len(sizes.others) - 1)]
            others += 1
    return bindings


def _symbols(dim: int | ir.SymbolicDim) -> list[str]:
    """The names in a dimension; text that is no expression, as ``?`` and ``batch,seq``, is one name as a whole."""
    if isinstance(dim, int) or not dim.value:
        return []
    try:
        return sorted(dim.free_symbols())
    except ValueError:
        return [] if dim.value == "?" else [dim.value]  # "?" says that nothing is known, not that two are the same


def _size(dim: int | ir.SymbolicDim, bindings: Mapping[str, int]) -> int | None:
    """The size of a dimension; None if nothing tells it."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None  # some exporters write -1 for a dimension that is not known
    try:
        size = dim.evaluate(bindings)
    except ValueError:
        size = bindings.get(dim.value or "")
    return size if isinstance(size, int) and size >= 0 else None


def _shape(value: ir.Value, bindings: Mapping[str, int], sizes: Sizes) -> tuple[int, ...]:
    if value.shape is None:
        raise VerificationError(
            f"no inputs can be made for {value.name!r}: its rank is not known; give inputs: FILE.npz"
        )
    shape: list[int] = []
    for axis, dim in enumerate(value.shape):
        size = _size(dim, bindings)
        if size is None:  # a dimension without a name
            size = sizes.first if axis == 0 else sizes.others[min(axis - 1, len(sizes.others) - 1)]
        shape.append(size)
    return tuple(shape)


# --- values ----------------------------------------------------------------------------------------------------------


def _array(value: ir.Value, shape: tuple[int, ...], bound: int | None, rng: np.random.Generator) -> Array:
    dtype = value.dtype
    if not isinstance(value.type, ir.TensorType) or dtype is None or dtype is ir.DataType.STRING:
        raise VerificationError(f"no inputs can be made for {value.name!r} of type {value.type}; give inputs: FILE.npz")
    if dtype is ir.DataType.BOOL:
        return _at_least_one(rng.integers(0, 2, shape)).astype(np.bool_)
    if dtype.is_integer():
        if bound is not None:
            return rng.integers(0, bound, shape).astype(dtype.numpy())
        return _at_least_one(rng.integers(0, 2, shape)).astype(dtype.numpy())
    return rng.standard_normal(shape).astype(dtype.numpy())


def _at_least_one(mask: Array) -> Array:
    """A row that is masked as a whole gives NaN, which would hide differences."""
    if mask.ndim and mask.shape[-1]:
        mask[..., 0] = 1
    return mask


def index_bound(model: ir.Model, value: ir.Value) -> int | None:
    """The number of rows that an integer input indexes: the smallest of all tables it reaches, None if there is none.

    Follows casts and reshapes, and calls into functions.
    """
    bounds: list[int] = []
    # With each value goes the meaning of the formals of the function it stands in.
    waiting: list[tuple[ir.Value, _Actuals]] = [(value, _Actuals({}, None))]
    seen: set[tuple[ir.Value, ir.Node]] = set()
    while waiting:
        current, actuals = waiting.pop()
        for usage in current.uses():
            node, slot = usage.node, usage.idx
            if node.domain == "" and _INDEXING.get(node.op_type) == slot:
                rows = _rows(node, actuals)
                bounds += [rows] if rows else []
            elif node.domain == "" and node.op_type in _KEEPS_INTEGERS and (slot == 0 or node.op_type == "Concat"):
                waiting.append((node.outputs[0], actuals))
            elif (function := model.functions.get(node.op_identifier())) is not None and slot < len(function.inputs):
                formal = function.inputs[slot]
                if (formal, node) not in seen:
                    seen.add((formal, node))
                    binding = dict(zip(function.inputs, node.inputs, strict=False))
                    waiting.append((formal, _Actuals(binding, actuals)))
    return min(bounds, default=None)


@dataclass(frozen=True, eq=False)
class _Actuals:
    """What the formals of a function stand for at one call, and the same for the caller."""

    binding: Mapping[ir.Value, ir.Value | None]
    caller: _Actuals | None


def _rows(node: ir.Node, actuals: _Actuals) -> int | None:
    table = node.inputs[0]
    environment: _Actuals | None = actuals
    while table is not None and environment is not None and table in environment.binding:
        table = environment.binding[table]
        environment = environment.caller
    if table is None or table.shape is None:
        return None
    axis = node.attributes.get_int("axis", 0)
    rows = table.shape[axis] if -len(table.shape) <= axis < len(table.shape) else None
    return rows if isinstance(rows, int) else None
