"""onnxruntime's quantization: dynamic, and static with calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modelexport_passes.tools.tool import Tool, import_tool

WeightType = Literal["int8", "uint8", "int16", "uint16", "int4", "uint4"]
ActivationType = Literal["int8", "uint8", "int16", "uint16"]
Inputs = Mapping[str, "np.ndarray[Any, Any]"]

_HARM = "quantizes nothing inside of them and does not say so"


def dynamic_quantizer(
    *, weights: WeightType, per_channel: bool, ops: Sequence[str] | None, exclude_nodes: Sequence[str] | None
) -> Tool:
    """Weights in 8 bits or fewer, activations quantized as they come."""
    package = import_tool("onnxruntime.quantization")

    def transform(source: Path, target: Path) -> None:
        package.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(ops) if ops else None,
            per_channel=per_channel,
            weight_type=_quant_type(weights),
            nodes_to_exclude=list(exclude_nodes or ()),
        )

    return Tool("quantize_dynamic", transform, _HARM)


def static_quantizer(
    *,
    inputs: Sequence[Inputs],
    activations: ActivationType,
    weights: WeightType,
    per_channel: bool,
    ops: Sequence[str] | None,
    exclude_nodes: Sequence[str] | None,
) -> Tool:
    """Quantize / dequantize pairs around operations, with the ranges seen on calibration inputs."""
    package = import_tool("onnxruntime.quantization")

    def transform(source: Path, target: Path) -> None:
        package.quantize_static(
            source,
            target,
            _Reader(inputs),
            quant_format=package.QuantFormat.QDQ,
            op_types_to_quantize=list(ops) if ops else None,
            per_channel=per_channel,
            activation_type=_quant_type(activations),
            weight_type=_quant_type(weights),
            nodes_to_exclude=list(exclude_nodes or ()),
        )

    return Tool("quantize_static", transform, _HARM)


class _Reader:
    """Calibration inputs, one set after another, as onnxruntime asks for them."""

    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        feed = next(self._inputs, None)
        return None if feed is None else dict(feed)


def _quant_type(name: str) -> Any:
    types = import_tool("onnxruntime.quantization").QuantType
    return getattr(types, f"Q{name.replace('int', 'Int').replace('uI', 'UI')}")
