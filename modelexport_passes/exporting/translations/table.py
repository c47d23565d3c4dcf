"""The table of translations that is handed to torch's exporter: ours, and those a user adds or replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import ops
from torch._ops import OpOverload, OpOverloadPacket

from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.translations.arithmetic import compared, divide, multiply, power, subtract
from modelexport_passes.exporting.translations.booleans import is_all_true, is_any_true, masked_fill, where
from modelexport_passes.exporting.translations.convolutions import conv3d
from modelexport_passes.exporting.translations.cumulative import cummax, cummin, cumprod
from modelexport_passes.exporting.translations.experts import grouped_mm
from modelexport_passes.exporting.translations.indexing import index_put
from modelexport_passes.exporting.translations.membership import (
    isin,
    isin_scalar_tensor,
    isin_tensor_scalar,
    searchsorted,
)
from modelexport_passes.exporting.translations.opset import op
from modelexport_passes.exporting.translations.sorting import sort_stable
from modelexport_passes.exporting.translations.squeezing import squeeze_dim, squeeze_dims

Translation = Callable[..., Any]
"""Takes the operator's arguments as ONNX values and constants, makes ONNX operators with onnxscript's ``op``."""

OURS: Mapping[str, Translation] = {
    "aten::_grouped_mm": grouped_mm,
    "aten::_is_all_true": is_all_true,
    "aten::_is_any_true": is_any_true,
    "aten::conv3d": conv3d,
    "aten::cummax": cummax,
    "aten::cummin": cummin,
    "aten::cumprod": cumprod,
    "aten::divide.Tensor": divide,
    "aten::greater.Tensor": compared(op.Greater),
    "aten::greater_equal.Tensor": compared(op.GreaterOrEqual),
    "aten::index_put": index_put,
    "aten::isin.Scalar_Tensor": isin_scalar_tensor,
    "aten::isin.Tensor_Scalar": isin_tensor_scalar,
    "aten::isin.Tensor_Tensor": isin,
    "aten::less.Tensor": compared(op.Less),
    "aten::less_equal.Tensor": compared(op.LessOrEqual),
    "aten::masked_fill.Scalar": masked_fill,
    "aten::masked_fill.Tensor": masked_fill,
    "aten::multiply.Tensor": multiply,
    "aten::pow.Tensor_Tensor": power,
    "aten::searchsorted.Tensor": searchsorted,
    "aten::sort.stable": sort_stable,
    "aten::squeeze.dim": squeeze_dim,
    "aten::squeeze.dims": squeeze_dims,
    "aten::subtract.Tensor": subtract,
    "aten::sym_numel": op.Size,
    "aten::where.self": where,
    # What Hugging Face's mixtures of experts call where torch has no kernel; known once they are imported.
    "transformers::grouped_mm_fallback": grouped_mm,
}
"""Operator (``namespace::name.overload``) -> translation, for operators that torch's exporter has none for."""


def translation_table(extra: Mapping[Any, Translation] | None = None) -> dict[Callable[..., Any], Translation]:
    """The table in the form of ``torch.onnx.export(custom_translation_table=...)``.

    Args:
        extra: operator, by name or itself (``torch.ops.aten.cummax.default``) -> translation; goes before ours.

    Raises:
        ConfigError: an operator is not known, or a translation cannot be called.
    """
    table: dict[Callable[..., Any], Translation] = {}
    for name, translation in OURS.items():
        operator = find_operator(name)
        if operator is not None:
            table[operator] = translation
    for key, translation in (extra or {}).items():
        if not callable(translation):
            raise ConfigError(f"translations[{key!r}]: got {type(translation).__name__}; expected a function")
        operator = find_operator(key) if isinstance(key, str) else key
        if operator is None:
            raise ConfigError(f"translations: {_unknown(cast('str', key))}")
        if not callable(operator):
            raise ConfigError(
                f"translations: {key!r} is no operator; expected one or its name, namespace::name.overload"
            )
        table[operator] = translation
    return table


def find_operator(name: str) -> OpOverload[..., Any] | None:
    """The operator of a name, ``namespace::name`` or ``namespace::name.overload``; None if there is none loaded."""
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(ops, namespace, None), base, None) if namespace and base else None
    found = getattr(packet, overload or "default", None)
    return cast("OpOverload[..., Any]", found) if isinstance(found, OpOverload) else None


def _unknown(name: str) -> str:
    namespace, _, rest = name.partition("::")
    base = rest.partition(".")[0]
    packet = getattr(getattr(ops, namespace, None), base, None) if namespace and base else None
    overloads = packet.overloads() if isinstance(packet, OpOverloadPacket) else []
    if overloads:
        names = ", ".join(f"{namespace}::{base}" + ("" if each == "default" else f".{each}") for each in overloads)
        return f"unknown operator {name!r}; expected one of {names}"
    advice = "expected namespace::name.overload, of an operator that is loaded (import the package that defines it)"
    return f"unknown operator {name!r}; {advice}"
