"""``mx.export``: from a torch model to a plain ONNX model whose nodes know their module calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.attempts import Attempt, first_that_works
from modelexport_passes.exporting.dynamo import METADATA_OPSET, DynamoOptions
from modelexport_passes.exporting.huggingface.patches import transformers_model
from modelexport_passes.exporting.opset import check_opset, convert_opset
from modelexport_passes.exporting.plain_modules import without_compilation
from modelexport_passes.exporting.record import ExportRecord, OutputsOnDemand, TorchRun, set_record
from modelexport_passes.exporting.stack_traces import TraceMode, settle_traces
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.translations.table import translation_table
from modelexport_passes.exporting.ways import Arguments, Captured, Exporter, Sizes, Ways
from modelexport_passes.scopes.class_names import class_name
from modelexport_passes.scopes.rebase import drop_wrapper
from modelexport_passes.scopes.recover import name_classes, recover
from modelexport_passes.scopes.tags import METADATA_IR_VERSION
from modelexport_passes.scopes.walk import all_nodes


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
    traces: TraceMode = "relative",
    error_report: str | os.PathLike[str] | None = None,
) -> ir.Model:
    """Export a torch model to plain ONNX; every node carries the scope of the module call it came from.

    Args:
        model: in the mode (``eval()``) it shall be exported in.
        args: positional example inputs of ``forward``.
        kwargs: named example inputs of ``forward``.
        exporter: ``dynamo``; ``dynamo+transformers``, with transformers' own rewrites for export in force; either with
            ``+example`` behind it, which lets a model know the example's values where it branches by data;
            ``torchscript`` (deprecated by torch; traces, and takes models that dynamo does not); or ``auto``: the first
            of these that works, in this order. The record's notes say which one was taken, why, and what that means
            for the scopes.
        opset: opset version of the result; the exporter's default if None.
        dynamic_shapes: as for ``torch.export``: per input, axis -> name of the dimension.
        input_names: names of the graph's inputs.
        output_names: names of the graph's outputs.
        optimize: let torch's exporter optimize. Off by default: a plain export is the faithful one.
        root: path of the submodule to take as the root of all scopes, for a model inside a wrapper made for export.
        translations: operator (``"aten::cummax"``, or itself) -> function that writes it in ONNX, beside ours and
            torch's and before them. For dynamo only.
        traces: the Python stack traces that dynamo writes on operations: ``relative`` names files relative to their
            package or project, so that the model does not tell on which machine it was made; ``keep`` leaves absolute
            paths; ``drop`` removes the traces.
        error_report: file to write the whole traceback to if the export fails. Missing directories are made.

    Returns:
        The model. `modelexport_passes.exporting.record.record_of` gives the example inputs and torch's own outputs.

    Raises:
        ModelExportError: the exporter failed: the one line that matters. Or it wrote another opset than the
            one asked for.
        ConfigError: ``exporter`` or ``traces`` is none of these, ``root`` names no submodule, or ``translations`` is
            wrong.
    """
    model = without_compilation(model)
    check_exporter(exporter, model, translations, traces)
    if root:
        _check_submodule(model, root)
    options: DynamoOptions = {
        "opset": opset,
        "dynamic_shapes": dynamic_shapes,
        "input_names": input_names,
        "output_names": output_names,
        "optimize": optimize,
    }
    ways = Ways(model, args, dict(kwargs or {}), options, translation_table(translations), [Sizes(dynamic_shapes)])
    return export_first(ways.attempts(exporter), root, traces, error_report)


def export_first(
    attempts: Iterable[Attempt[Captured]],
    root: str | None,
    traces: TraceMode,
    error_report: str | os.PathLike[str] | None,
) -> ir.Model:
    """The model of the first attempt that works, with scopes, and with the record of its export.

    Raises:
        ModelExportError: none works.
    """
    started = time.perf_counter()
    done = first_that_works(attempts, error_report)
    ways, exported = done.exported.ways, done.exported.model
    recover(exported)
    opset = ways.options["opset"]
    if opset is not None and opset < METADATA_OPSET and done.name.startswith("dynamo"):
        exported = convert_opset(exported, opset)
    check_opset(exported, opset, done.name)
    name_classes(all_nodes(exported), {"": class_name(type(ways.model))})
    if root:
        drop_wrapper(exported, root)
    settle_traces(exported, traces)  # recovery has read them
    exported.ir_version = max(exported.ir_version, METADATA_IR_VERSION)
    notes = [*done.notes, *done.exported.notes]
    inputs = _example_inputs(done.exported.example, exported, notes)
    count = len(exported.graph.outputs)
    outputs = OutputsOnDemand(lambda: _torch_outputs(ways, count, notes) if inputs is not None else [])
    run = TorchRun(ways.model, ways.args, ways.kwargs, root or "")
    seconds = time.perf_counter() - started
    set_record(exported, ExportRecord(done.name, inputs or {}, outputs, notes, seconds, run))
    return exported


def check_exporter(exporter: str, model: torch.nn.Module, translations: object, traces: str) -> None:
    """Refuse what would not work, or not be read.

    Raises:
        ConfigError: no such exporter, or not for this model, or not with translations; no such form of traces.
    """
    if traces not in get_args(TraceMode):
        raise ConfigError(f"export: traces {traces!r}; expected one of {', '.join(get_args(TraceMode))}")
    if exporter not in get_args(Exporter):
        raise ConfigError(f"export: exporter {exporter!r}; expected one of {', '.join(get_args(Exporter))}")
    if exporter == "torchscript" and translations:
        raise ConfigError("export: translations are read by dynamo only; remove them, or take exporter 'dynamo'")
    if exporter.startswith("dynamo+transformers") and transformers_model(model) is None:
        raise ConfigError(
            f"export: exporter {exporter!r} is for models of transformers; {type(model).__name__} has none"
        )


def _check_submodule(model: torch.nn.Module, root: str) -> None:
    try:
        model.get_submodule(root)
    except AttributeError as error:
        children = ", ".join(name for name, _ in model.named_children())
        raise ConfigError(f"export: root {root!r} is no submodule of {type(model).__name__} ({children})") from error


def _example_inputs(example: Arguments, exported: ir.Model, notes: list[str]) -> dict[str, Any] | None:
    """Example inputs by graph input name; None and a note where they cannot be told apart."""
    tensors = _tensors(example)
    names = [str(value.name) for value in exported.graph.inputs]
    if len(names) != len(tensors):
        notes.append(f"example inputs not recorded: {len(tensors)} tensors for {len(names)} graph inputs {names}")
        return None
    return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}


def _torch_outputs(ways: Ways, count: int, notes: list[str]) -> list[Any]:
    """What torch returns for the example; none and a note where that is not what the graph returns."""
    # What this run writes would be in the next capture, and in the initializers, which share the model's memory.
    with torch.no_grad(), state_kept(ways.model):
        copied_args, copied_kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (ways.args, ways.kwargs))
        results = _tensors(ways.model(*copied_args, **copied_kwargs))
        if len(results) != count:
            notes.append(f"torch outputs not recorded: {len(results)} for {count} graph outputs")
            return []
        if any(isinstance(tensor, FakeTensor) for tensor in results):
            notes.append("torch outputs not recorded: the model has kept tensors without values from the exporter")
            return []
        # Copies, as a model may return the buffer that it wrote.
        return [_array(tensor.clone()) for tensor in results]


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _array(tensor: torch.Tensor) -> Any:
    return ir.tensor(tensor.detach().cpu().contiguous()).numpy()
