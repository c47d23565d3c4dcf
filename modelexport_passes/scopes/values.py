"""Recognizing a weight by its values: in another file, or among the parameters of the torch model.

Exporters and optimizers transpose, reshape and rename weights, and round them to 16 bits. A signature stays the same
through all of that: the extent of the axes in any order, and the spread of the values as numbers of 16 bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from modelexport_passes.scopes.modules import TorchModule

_DIGITS = 4
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16})
_SMALLEST = 2


def signature(array: np.ndarray[Any, Any]) -> Hashable | None:
    """What stays the same of a weight however it is laid out; None if its values tell nothing (all are equal)."""
    if array.size < _SMALLEST:
        return None
    with np.errstate(over="ignore"):
        values = array.astype(np.float16).ravel()
    low, high = float(values.min()), float(values.max())
    if low == high or not np.isfinite([low, high]).all():
        return None
    wide = values.astype(np.float64)
    # Sums of squares and cubes lose no digits to cancellation as the plain sum does.
    moments = tuple(float(f"{float(np.sum(np.abs(wide) ** power)):.{_DIGITS}g}") for power in (1, 2, 3))
    extent = tuple(sorted(size for size in array.shape if size > 1))
    return extent, low, high, moments


def signatures(values: Iterable[ir.Value]) -> dict[ir.Value, Hashable]:
    """The signature of each initializer of a floating-point type that has one."""
    found: dict[ir.Value, Hashable] = {}
    for value in values:
        tensor = value.const_value
        if tensor is None or tensor.dtype not in _FLOATS:
            continue
        told = signature(tensor.numpy())
        if told is not None:
            found[value] = told
    return found


def owners_by_value(values: Iterable[ir.Value], model: TorchModule) -> dict[ir.Value, str]:
    """Initializer -> path of the module of the one parameter or buffer of the torch model that it equals."""
    owners: dict[Hashable, set[str]] = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            told = signature(tensor.detach().cpu().float().numpy())
            if told is not None:
                owners.setdefault(told, set()).add(name.rpartition(".")[0])
    return {
        value: next(iter(owners[told])) for value, told in signatures(values).items() if len(owners.get(told, ())) == 1
    }
