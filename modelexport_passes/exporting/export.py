"""``mx.export``: from a torch model to a plain ONNX model whose nodes know their module calls."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.exporting.dynamo import METADATA_OPSET, export_dynamo, exported_program_of, record_scopes
from modelexport_passes.exporting.opset import convert_opset
from modelexport_passes.exporting.record import ExportRecord, TorchRun, set_record
from modelexport_passes.exporting.torchscript import export_torchscript
from modelexport_passes.scopes.rebase import drop_wrapper
from modelexport_passes.scopes.recover import recover

Exporter = Literal["dynamo", "torchscript", "auto"]

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_Exported = tuple[ir.Model, _Arguments]


def export(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    exporter: Exporter = "dynamo",
    opset: int | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    optimize: bool = False,
    root: str | None = None,
) -> ir.Model:
    """Export a torch model to plain ONNX; every node carries the scope of the module call it came from.

    Args:
        model: in the mode (``eval()``) it shall be exported in.
        args: positional example inputs of ``forward``.
        kwargs: named example inputs of ``forward``.
        exporter: ``dynamo``; ``torchscript`` (deprecated by torch; traces, and takes models that dynamo does not); or
            ``auto``: dynamo, then TorchScript, with the reason in the record's notes.
        opset: opset version of the result; the exporter's default if None.
        dynamic_shapes: as for ``torch.export``: per input, axis -> name of the dimension.
        input_names: names of the graph's inputs.
        output_names: names of the graph's outputs.
        optimize: let torch's exporter optimize. Off by default: a plain export is the faithful one.
        root: path of the submodule to take as the root of all scopes, for a model inside a wrapper made for export.

    Returns:
        The model. `modelexport_passes.exporting.record.record_of` gives the example inputs and torch's own outputs.

    Raises:
        ModelExportError: the exporter failed: the one line that matters and the path of the full report.
        ConfigError: ``exporter`` is none of the three, or ``root`` names no submodule.
    """
    if exporter not in ("dynamo", "torchscript", "auto"):
        raise ConfigError(f"export: exporter {exporter!r}; expected 'dynamo', 'torchscript' or 'auto'")
    if root:
        _check_submodule(model, root)
    started = time.perf_counter()
    names = {"input_names": input_names, "output_names": output_names}

    def dynamo() -> _Exported:
        program = export_dynamo(
            model, args, kwargs, opset=opset, dynamic_shapes=dynamic_shapes, optimize=optimize, **names
        )
        record_scopes(program)
        return program.model, exported_program_of(program).example_inputs or (args, dict(kwargs or {}))

    def torchscript() -> _Exported:
        exported = export_torchscript(
            model, args, kwargs, opset=opset, dynamic_shapes=dynamic_shapes, optimize=optimize, **names
        )
        return exported, (args, dict(kwargs or {}))

    used, (exported, example), notes = _first_that_works(exporter, {"dynamo": dynamo, "torchscript": torchscript})
    recover(exported)
    if opset is not None and opset < METADATA_OPSET and used == "dynamo":
        exported = convert_opset(exported, opset)
    if root:
        drop_wrapper(exported, root)
    inputs, outputs, more = _observe(model, args, kwargs, example, exported)
    run = TorchRun(model, args, dict(kwargs or {}), root or "")
    set_record(exported, ExportRecord(used, inputs, outputs, notes + more, time.perf_counter() - started, run))
    return exported


def _check_submodule(model: torch.nn.Module, root: str) -> None:
    try:
        model.get_submodule(root)
    except AttributeError as error:
        children = ", ".join(name for name, _ in model.named_children())
        raise ConfigError(f"export: root {root!r} is no submodule of {type(model).__name__} ({children})") from error


def _first_that_works(
    exporter: Exporter, exporters: Mapping[str, Callable[[], _Exported]]
) -> tuple[str, _Exported, list[str]]:
    """Try the exporter, or with ``auto`` each in turn; say why those before the one that worked did not."""
    failures: list[str] = []
    last: Exception | None = None
    for name in exporters if exporter == "auto" else (exporter,):
        try:
            return name, exporters[name](), failures
        # torch's exporters raise errors of every class there is, from their own and from the model's code; all mean
        # the same here, and each is kept: in the next exporter's notes, or in the error raised below.
        except Exception as error:  # noqa: BLE001
            failures.append(f"{name}: {root_cause(error)}")
            last = error
    report = _write_report(last) if last is not None else None
    raise ModelExportError(f"export failed: {'; '.join(failures)} (full report: {report})") from last


def root_cause(error: BaseException) -> str:
    """The one line that matters: the first line of the innermost error, with its class."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None:
            break
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else '(no text)'}"


def _write_report(error: BaseException) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mx-export-"))
    report = folder / "export_error.txt"
    report.write_text("".join(traceback.format_exception(error)))
    return report


def _observe(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    example: _Arguments,
    exported: ir.Model,
) -> tuple[dict[str, Any], list[Any], list[str]]:
    """Example inputs by graph input name, torch's outputs for them, and a note where either cannot be had."""
    notes: list[str] = []
    tensors = _tensors(example)
    names = [str(value.name) for value in exported.graph.inputs]
    if len(names) != len(tensors):
        notes.append(f"example inputs not recorded: {len(tensors)} tensors for {len(names)} graph inputs {names}")
        return {}, [], notes
    inputs = {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}
    with torch.no_grad():
        copied_args, copied_kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs or {})))
        results = _tensors(model(*copied_args, **copied_kwargs))
    if len(results) != len(exported.graph.outputs):
        notes.append(f"torch outputs not recorded: {len(results)} for {len(exported.graph.outputs)} graph outputs")
        return inputs, [], notes
    return inputs, [_array(tensor) for tensor in results], notes


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _array(tensor: torch.Tensor) -> Any:
    return ir.tensor(tensor.detach().cpu().contiguous()).numpy()
