"""``convert-opset``, ``float16``: conversions that leave scopes and tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from modelexport_passes.builtin.tool_pass import GuardedToolPass
from modelexport_passes.errors import ConfigError
from modelexport_passes.tools import converters
from modelexport_passes.tools.converters import Converter
from modelexport_passes.tools.tool import Tool


@dataclass(frozen=True, kw_only=True)
class ConvertOpset(GuardedToolPass):
    """Convert the model to another version of the default opset, and carry scopes and tags across.

    Attributes:
        opset: the version to convert to.
        converter: whose conversion: ``onnx`` goes up and, where it knows how, down; ``onnxscript`` goes up.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "convert-opset"

    opset: int
    converter: Converter = "onnx"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opset < 1:
            raise ConfigError(f"convert-opset: opset {self.opset}; expected a version such as 21")
        if self.converter not in get_args(Converter):
            raise ConfigError(f"convert-opset: converter {self.converter!r}; expected onnx or onnxscript")

    def tool(self) -> Tool:
        """The converter."""
        return converters.opset_converter(self.opset, self.converter)


@dataclass(frozen=True, kw_only=True)
class Float16(GuardedToolPass):
    """Convert 32-bit floats to 16 bits with onnxruntime's converter, and carry scopes and tags across.

    Attributes:
        keep_io_types: inputs and outputs of the graph stay as they are.
        exclude_ops: operators that stay in 32 bits, besides those that the converter itself leaves.
        exclude_nodes: names of nodes that stay in 32 bits.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "float16"

    keep_io_types: bool = True
    exclude_ops: list[str] | None = None
    exclude_nodes: list[str] | None = None

    def tool(self) -> Tool:
        """The converter."""
        return converters.float16_converter(
            keep_io_types=self.keep_io_types, exclude_ops=self.exclude_ops, exclude_nodes=self.exclude_nodes
        )
