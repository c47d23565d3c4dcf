"""``quantize-dynamic``, ``quantize-static``: onnxruntime's quantization, leaving scopes and tags."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from modelexport_passes.builtin.tool_pass import GuardedToolPass
from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import RunContext
from modelexport_passes.tools import quantizers
from modelexport_passes.tools.quantizers import ActivationType, Inputs, WeightType
from modelexport_passes.tools.tool import Tool
from modelexport_passes.validation.input_files import read_inputs


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(GuardedToolPass):
    """Quantize weights, and activations as they come, with onnxruntime; carry scopes and tags across.

    Operations that are put in belong to the module call of the operation they serve. Only weights that are initializers
    are quantized: a plain export computes some (a transposed weight), so optimize it before.

    Attributes:
        weights: type of the quantized weights.
        per_channel: a scale for each output channel of a weight.
        ops: operators to quantize; by default all that onnxruntime can.
        exclude_nodes: names of nodes that stay as they are.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "quantize-dynamic"

    weights: WeightType = "int8"
    per_channel: bool = False
    ops: list[str] | None = None
    exclude_nodes: list[str] | None = None

    def tool(self) -> Tool:
        """The quantizer."""
        return quantizers.dynamic_quantizer(
            weights=self.weights, per_channel=self.per_channel, ops=self.ops, exclude_nodes=self.exclude_nodes
        )


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(GuardedToolPass):
    """Put quantize / dequantize pairs around operations with onnxruntime (QDQ); carry scopes and tags across.

    Operations that are put in belong to the module call of the operation they serve.

    Attributes:
        inputs: .npz files of graph input name -> array, each one set of calibration inputs. Without them, the inputs
            of the export are taken, where the model comes from one.
        activations: type of the quantized activations.
        weights: type of the quantized weights.
        per_channel: a scale for each output channel of a weight.
        ops: operators to quantize; by default all that onnxruntime can.
        exclude_nodes: names of nodes that stay as they are.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "quantize-static"

    inputs: list[Path] | None = None
    activations: ActivationType = "uint8"
    weights: WeightType = "int8"
    per_channel: bool = False
    ops: list[str] | None = None
    exclude_nodes: list[str] | None = None

    _context: ClassVar[RunContext | None] = None

    def bind(self, context: RunContext) -> Self:
        """The same pass, with the inputs of the export at hand."""
        bound = copy.copy(self)
        object.__setattr__(bound, "_context", context)
        return bound

    def tool(self) -> Tool:
        """The quantizer.

        Raises:
            ConfigError: there is nothing to calibrate with.
        """
        return quantizers.static_quantizer(
            inputs=self._calibration(),
            activations=self.activations,
            weights=self.weights,
            per_channel=self.per_channel,
            ops=self.ops,
            exclude_nodes=self.exclude_nodes,
        )

    def _calibration(self) -> list[Inputs]:
        if self.inputs:
            return [read_inputs(path) for path in self.inputs]
        record = self._context.export if self._context is not None else None
        if record is None or not record.inputs:
            raise ConfigError(
                "quantize-static: nothing to calibrate with: give inputs: [FILE.npz], written with numpy.savez"
            )
        return [record.inputs]
