"""Where a run's model comes from: a file, a torch model to export, or an object in memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import onnx
import onnx_ir as ir

from modelexport_passes.config.factory import call_factory, importable, load_function
from modelexport_passes.config.pipeline_file import ExportInput, HfInput, ModelInput
from modelexport_passes.errors import ConfigError, MissingDependencyError
from modelexport_passes.exporting.deserialize import deserialize
from modelexport_passes.exporting.files import load
from modelexport_passes.exporting.reading_notes import reading_notes
from modelexport_passes.exporting.record import ExportRecord, record_of
from modelexport_passes.pipeline.report import InputReport, count

if TYPE_CHECKING:
    import torch

    RunInput: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model | torch.onnx.ONNXProgram"


@dataclass(frozen=True)
class Opened:
    """A run's model, and how to have it once more.

    Attributes:
        model: the model that the passes work on, in place.
        report: where it came from.
        record: the record of its export, if it was exported.
        again: reads it anew; None if it exists in memory only (then a copy must be made before the first pass).
    """

    model: ir.Model
    report: InputReport
    record: ExportRecord | None = None
    again: Callable[[], ir.Model] | None = None


def describe_source(source: RunInput | ModelInput | ExportInput | HfInput) -> tuple[str, str]:
    """Kind (``file``, ``export``, ``hf``, ``memory``) and name of a source, for reports."""
    if isinstance(source, ModelInput):
        return "file", str(source.path)
    if isinstance(source, ExportInput):
        return "export", source.factory
    if isinstance(source, HfInput):
        return "hf", source.model
    if isinstance(source, str | os.PathLike):
        return "file", os.fspath(source)
    return "memory", f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"


def open_source(source: RunInput | ModelInput | ExportInput | HfInput) -> Opened:
    """Load, export or take over a model.

    Raises:
        ModelExportError: it cannot be loaded or exported; or the kind of object is not known (`ConfigError`).
    """
    started = time.perf_counter()
    kind, name = describe_source(source)
    model, again = _model_of(source)
    record = record_of(model)
    report = InputReport(
        kind=kind,
        source=name,
        seconds=time.perf_counter() - started,
        counts=count(model),
        exporter=record.exporter if record else None,
        notes=[*(record.notes if record else ()), *reading_notes(model)],
    )
    return Opened(model, report, record, again)


def _model_of(source: RunInput | ModelInput | ExportInput | HfInput) -> tuple[ir.Model, Callable[[], ir.Model] | None]:
    if isinstance(source, ExportInput):
        return _exported(source), None
    if isinstance(source, HfInput):
        return _exported_hf(source), None
    if isinstance(source, ModelInput):
        return load(source.path), lambda: load(source.path)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return load(path), lambda: load(path)
    if isinstance(source, onnx.ModelProto):
        return _deserialized(source), lambda: _deserialized(source)
    if isinstance(source, ir.Model):
        return source, None
    if type(source).__name__ == "ONNXProgram" and type(source).__module__.startswith("torch.onnx"):
        from modelexport_passes.exporting.dynamo import record_scopes

        record_scopes(source)
        return source.model, None
    expected = "a path, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram"
    raise ConfigError(f"pipeline input: got {type(cast('object', source)).__name__}; expected {expected}")


def _exported(source: ExportInput) -> ir.Model:
    model, args, kwargs = call_factory(source.factory, source.folder, source.factory_options)
    with _torch_needed("input.export"):
        from modelexport_passes.exporting.export import export
    with importable(source.folder):
        options = _with_translations(source.export_options, "input.export")
        return export(model, args, kwargs, **options)


def _exported_hf(source: HfInput) -> ir.Model:
    with _torch_needed("input.hf"):
        from modelexport_passes.exporting.huggingface.export_hf import export_hf
    with importable(source.folder):
        return export_hf(source.model, **_with_translations(source.export_options, "input.hf"))


@contextlib.contextmanager
def _torch_needed(where: str) -> Generator[None]:
    try:
        yield
    except ImportError as error:
        advice = "pip install modelexport-passes[torch]"
        raise MissingDependencyError(f"{where} needs {error.name!r}, which is not installed; {advice}") from error


def _with_translations(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options with the functions that ``translations`` names."""
    named: Mapping[str, str] = options.get("translations") or {}
    found = {name: load_function(named[name], f"{where}.translations[{name!r}]") for name in named}
    return {**options, "translations": found} if named else dict(options)


def _deserialized(proto: onnx.ModelProto) -> ir.Model:
    return deserialize(proto, "pipeline input")[0]
