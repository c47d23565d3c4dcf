"""``mx.export``: from a torch model to a plain ONNX model whose nodes know their module calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.attempts import Attempt, first_that_works
from modelexport_passes.exporting.dynamo import (
    METADATA_OPSET,
    export_dynamo,
    export_dynamo_as_transformers,
    exported_program_of,
    record_scopes,
)
from modelexport_passes.exporting.huggingface.patches import transformers_model
from modelexport_passes.exporting.opset import convert_opset
from modelexport_passes.exporting.record import ExportRecord, TorchRun, set_record
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.torchscript import export_torchscript
from modelexport_passes.exporting.translations.table import translation_table
from modelexport_passes.scopes.rebase import drop_wrapper
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.tags import METADATA_IR_VERSION

Exporter = Literal["dynamo", "torchscript", "auto"]

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_Exported = tuple[ir.Model, _Arguments, list[str]]


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
    translations: Mapping[Any, Callable[..., Any]] | None = None,
) -> ir.Model:
    """Export a torch model to plain ONNX; every node carries the scope of the module call it came from.

    Args:
        model: in the mode (``eval()``) it shall be exported in.
        args: positional example inputs of ``forward``.
        kwargs: named example inputs of ``forward``.
        exporter: ``dynamo``; ``torchscript`` (deprecated by torch; traces, and takes models that dynamo does not); or
            ``auto``: dynamo, for a Hugging Face model dynamo with the rewrites of transformers, then TorchScript. The
            record's notes say which one was taken, why, and what that means for the scopes.
        opset: opset version of the result; the exporter's default if None.
        dynamic_shapes: as for ``torch.export``: per input, axis -> name of the dimension.
        input_names: names of the graph's inputs.
        output_names: names of the graph's outputs.
        optimize: let torch's exporter optimize. Off by default: a plain export is the faithful one.
        root: path of the submodule to take as the root of all scopes, for a model inside a wrapper made for export.
        translations: operator (``"aten::cummax"``, or itself) -> function that writes it in ONNX, beside ours and
            torch's and before them. For dynamo only.

    Returns:
        The model. `modelexport_passes.exporting.record.record_of` gives the example inputs and torch's own outputs.

    Raises:
        ModelExportError: the exporter failed: the one line that matters and the path of the full report.
        ConfigError: ``exporter`` is none of the three, ``root`` names no submodule, or ``translations`` is wrong.
    """
    if exporter not in ("dynamo", "torchscript", "auto"):
        raise ConfigError(f"export: exporter {exporter!r}; expected 'dynamo', 'torchscript' or 'auto'")
    if exporter == "torchscript" and translations:
        raise ConfigError("export: translations are read by dynamo only; remove them, or take exporter 'dynamo'")
    if root:
        _check_submodule(model, root)
    started = time.perf_counter()
    options = {
        "opset": opset,
        "dynamic_shapes": dynamic_shapes,
        "input_names": input_names,
        "output_names": output_names,
        "optimize": optimize,
    }
    ways = _Ways(model, args, dict(kwargs or {}), options, translation_table(translations))
    done = first_that_works(ways.attempts(exporter))
    exported, example, notes = done.exported
    recover(exported)
    if opset is not None and opset < METADATA_OPSET and done.name.startswith("dynamo"):
        exported = convert_opset(exported, opset)
    if root:
        drop_wrapper(exported, root)
    exported.ir_version = max(exported.ir_version, METADATA_IR_VERSION)
    inputs, outputs, more = _observe(model, args, kwargs, example, exported)
    run = TorchRun(model, args, dict(kwargs or {}), root or "")
    seconds = time.perf_counter() - started
    set_record(exported, ExportRecord(done.name, inputs, outputs, [*done.notes, *notes, *more], seconds, run))
    return exported


@dataclass(frozen=True)
class _Ways:
    """The ways to export one model with the same arguments."""

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    translations: dict[Callable[..., Any], Callable[..., Any]]

    def attempts(self, exporter: Exporter) -> list[Attempt[_Exported]]:
        dynamo = Attempt("dynamo", self._undisturbed(self.dynamo), "")
        rewritten = Attempt(
            "dynamo+transformers",
            self._undisturbed(self.dynamo_as_transformers),
            "scopes are torch's own; operations that a rewrite of the captured graph made are inferred",
        )
        torchscript = Attempt(
            "torchscript",
            self._undisturbed(self.torchscript),
            "scopes are read from the names of operations, resolved with the model's modules, the rest inferred",
        )
        if exporter != "auto":
            return [dynamo if exporter == "dynamo" else torchscript]
        return [dynamo, *([rewritten] if transformers_model(self.model) is not None else []), torchscript]

    def _undisturbed(self, way: Callable[[], _Exported]) -> Callable[[], _Exported]:
        def run() -> _Exported:
            with state_kept(self.model):
                return way()

        return run

    def dynamo(self) -> _Exported:
        captured = export_dynamo(self.model, self.args, self.kwargs, translations=self.translations, **self.options)
        return self._recorded(*captured)

    def dynamo_as_transformers(self) -> _Exported:
        program = export_dynamo_as_transformers(
            self.model, self.args, self.kwargs, translations=self.translations, **self.options
        )
        return self._recorded(program, [])

    def torchscript(self) -> _Exported:
        return export_torchscript(self.model, self.args, self.kwargs, **self.options), (self.args, self.kwargs), []

    def _recorded(self, program: torch.onnx.ONNXProgram, notes: list[str]) -> _Exported:
        record_scopes(program)
        example = exported_program_of(program).example_inputs
        return program.model, example or (self.args, self.kwargs), notes


def _check_submodule(model: torch.nn.Module, root: str) -> None:
    try:
        model.get_submodule(root)
    except AttributeError as error:
        children = ", ".join(name for name, _ in model.named_children())
        raise ConfigError(f"export: root {root!r} is no submodule of {type(model).__name__} ({children})") from error


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
    if any(isinstance(tensor, FakeTensor) for tensor in results):
        notes.append("torch outputs not recorded: the model has kept tensors without values that the exporter gave it")
        return inputs, [], notes
    return inputs, [_array(tensor) for tensor in results], notes


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _array(tensor: torch.Tensor) -> Any:
    return ir.tensor(tensor.detach().cpu().contiguous()).numpy()
