"""``onnxslim``, ``onnxsim``, ``onnxruntime``, ``onnxscript-optimize``: graph optimizers that leave scopes and tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from modelexport_passes.builtin.tool_pass import GuardedToolPass, ToolPass
from modelexport_passes.errors import ConfigError
from modelexport_passes.tools import optimizers
from modelexport_passes.tools.optimizers import Level
from modelexport_passes.tools.tool import Tool


@dataclass(frozen=True, kw_only=True)
class OnnxSlim(ToolPass):
    """Optimize the graph with onnxslim, and carry scopes and tags across.

    Needs the extra ``tools``. It keeps local functions.

    Attributes:
        options: what ``onnxslim.slim`` takes, such as ``skip_fusion_patterns``.
    """

    name: ClassVar[str] = "onnxslim"

    options: dict[str, Any] | None = None

    def tool(self) -> Tool:
        """The optimizer with these options."""
        return optimizers.onnxslim(self.options or {})


@dataclass(frozen=True, kw_only=True)
class OnnxSim(ToolPass):
    """Optimize the graph with onnxsim (onnx-simplifier), and carry scopes and tags across.

    Needs the extra ``tools``. It keeps local functions.

    Attributes:
        options: what ``onnxsim.simplify`` takes, such as ``skip_fuse_bn``.
    """

    name: ClassVar[str] = "onnxsim"

    options: dict[str, Any] | None = None

    def tool(self) -> Tool:
        """The optimizer with these options."""
        return optimizers.onnxsim(self.options or {})


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(GuardedToolPass):
    """Optimize the graph as onnxruntime does when it loads it, and carry scopes and tags across.

    Its level ``all`` is not offered: it lays tensors out for the processor at hand, in operators that no other runtime
    knows.

    Attributes:
        level: ``basic`` keeps to standard operators; ``extended`` fuses into onnxruntime's own.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "onnxruntime"

    level: Level = "basic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level not in get_args(Level):
            raise ConfigError(f"onnxruntime: level {self.level!r}; expected basic or extended")

    def tool(self) -> Tool:
        """The optimizer at this level."""
        return optimizers.ort_optimizer(self.level)


@dataclass(frozen=True, kw_only=True)
class OnnxScriptOptimize(GuardedToolPass):
    """Optimize the graph with ``onnxscript.optimizer``, and carry scopes and tags across.

    Attributes:
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "onnxscript-optimize"

    def tool(self) -> Tool:
        """The optimizer."""
        return optimizers.onnxscript_optimizer()
