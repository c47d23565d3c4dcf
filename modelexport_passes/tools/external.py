"""Any function that makes a model of a model, as a tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.tools.tool import Tool, import_tool, on_protobuf

_HARM = "may do them harm: what it does to them is not known"


def external_tool(function: str, options: Mapping[str, Any], *, paths: bool) -> Tool:
    """The function at an import path ``package.module:function``.

    Args:
        function: the import path.
        options: keyword arguments for each call.
        paths: it takes the paths of a file to read and a file to write; else a protobuf.

    Raises:
        MissingDependencyError: its module cannot be imported.
        ConfigError: there is no such function.
    """
    module, _, attribute = function.partition(":")
    action: Any = import_tool(module)
    for part in attribute.split("."):
        action = getattr(action, part, None)
    if not callable(action):
        raise ConfigError(f"external: {module} has no function {attribute!r}")

    def run_on_paths(source: Path, target: Path) -> None:
        action(str(source), str(target), **options)
        if not target.is_file():
            raise ModelExportError(f"external: {function} wrote no file at the second path that it was given")

    def run_on_protobuf(proto: onnx.ModelProto) -> onnx.ModelProto:
        result = action(proto, **options)
        if result is None:
            return proto
        if not isinstance(result, onnx.ModelProto):
            found = type(result).__name__
            raise ModelExportError(f"external: {function} returned a {found}; expected an onnx.ModelProto or None")
        return result

    return Tool(function, run_on_paths if paths else on_protobuf(run_on_protobuf), _HARM)
