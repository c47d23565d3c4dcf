"""``external``: any tool that makes a model of a model, named by its import path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from modelexport_passes.builtin.tool_pass import GuardedToolPass
from modelexport_passes.errors import ConfigError
from modelexport_passes.tools.external import external_tool
from modelexport_passes.tools.tool import Tool

Takes = Literal["protobuf", "paths"]


@dataclass(frozen=True, kw_only=True)
class External(GuardedToolPass):
    """Run any function on the model, and carry scopes and tags across.

    Attributes:
        function: ``package.module:function``.
        takes: ``protobuf``: called with an ``onnx.ModelProto``, returns another, or changes that one and returns None.
            ``paths``: called with the path of the .onnx file to read and of the one to write.
        options: further keyword arguments.
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    name: ClassVar[str] = "external"

    function: str
    takes: Takes = "protobuf"
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        module, colon, attribute = self.function.partition(":")
        if not (module and colon and attribute):
            raise ConfigError(f"external: function {self.function!r}; expected package.module:function")
        if self.takes not in get_args(Takes):
            raise ConfigError(f"external: takes {self.takes!r}; expected protobuf or paths")

    def tool(self) -> Tool:
        """The function as a tool."""
        return external_tool(self.function, self.options or {}, paths=self.takes == "paths")
