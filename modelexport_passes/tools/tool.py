"""What a foreign tool is to us: it reads an .onnx file, writes another, and treats local functions in some way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from modelexport_passes.errors import MissingDependencyError, ModelExportError

Transform = Callable[[Path, Path], None]
"""Reads the model at the first path, writes one to the second."""

OnFunctions = Literal["error", "inline", "run"]
"""What to do when a tool that does not keep local functions meets a model that has some."""

LOSES_CALLS = "inlines all of them, which loses which call an operation was in"

_PROTOBUF_LIMIT = (1 << 31) - 1
_DATA_FILE = "result.onnx.data"


@dataclass(frozen=True)
class Tool:
    """A tool that makes a model of a model.

    Attributes:
        name: as its users know it.
        transform: runs it.
        harm: what it does to a model that has local functions, as the end of the sentence "NAME ..."; None if it
            keeps them.
    """

    name: str
    transform: Transform
    harm: str | None = None


def on_protobuf(function: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Transform:
    """A tool that works on the protobuf in memory, as one that works on files."""

    def transform(source: Path, target: Path) -> None:
        result = function(onnx.load(source))  # pyright: ignore[reportUnknownMemberType]
        large = result.ByteSize() > _PROTOBUF_LIMIT // 2
        location = _DATA_FILE if large else None
        onnx.save(result, target, save_as_external_data=large, location=location)  # pyright: ignore[reportUnknownMemberType]

    return transform


def import_tool(module: str, *, extra: str | None = None) -> Any:
    """The module of a tool, imported now: few runs need one.

    Raises:
        MissingDependencyError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        advice = f"pip install modelexport-passes[{extra}]" if extra else f"install {error.name}"
        raise MissingDependencyError(f"{module} cannot be imported: {error}; {advice}") from error


def failed(tool: str, error: Exception) -> ModelExportError:
    """What a tool raised, as our error: its first line, and what that means for the model."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "(no text)")
    return ModelExportError(f"{tool} failed: {type(error).__name__}: {line}; the model is as it was before")
