"""Running a foreign tool on a model in place: guard, run, take over the result, carry what is known across."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.files import load, save
from modelexport_passes.exporting.weights import all_tensors
from modelexport_passes.inlining.inline import inline
from modelexport_passes.scopes.carry import CarryCounts, carry
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.snapshot import take_snapshot
from modelexport_passes.scopes.tags import METADATA_IR_VERSION
from modelexport_passes.scopes.walk import all_nodes, in_order
from modelexport_passes.tools.tool import OnFunctions, Tool, failed

_DIRECTORY_KEY = "modelexport_passes.tools.directory"

_Entry = TypeVar("_Entry", onnx.StringStringEntryProto, onnx.OperatorSetIdProto)


@dataclass(frozen=True)
class Applied:
    """What became of a model.

    Attributes:
        modified: the model is another one now.
        counts: how its nodes got their scopes.
        notes: what a person should know.
    """

    modified: bool
    counts: CarryCounts
    notes: list[str]


def apply_tool(model: ir.Model, tool: Tool, on_functions: OnFunctions) -> Applied:
    """Run a tool on a model and carry scopes, origins and tags across. If it fails, the model is as it was.

    Args:
        model: changed in place: its graph, functions, opset imports and IR version are those that the tool wrote.
        tool: what to run.
        on_functions: for a tool that does harm to local functions and a model that has some: ``error`` refuses,
            ``inline`` inlines them first, ``run`` lets the tool have them as they are.

    Raises:
        ModelExportError: the model has functions that the tool would harm, or the tool failed.
    """
    notes: list[str] = []
    inlined = False
    if model.functions and tool.harm is not None:
        inlined = on_functions == "inline"
        notes += _guard(model, tool, on_functions)
    snapshot = take_snapshot(model)
    directory = tempfile.TemporaryDirectory(prefix="mx-tool-", ignore_cleanup_errors=True)
    source, target = Path(directory.name, "source.onnx"), Path(directory.name, "result.onnx")
    save(model, source)
    before = _comparable(source)
    try:
        # stdout is for the result of a run; tools print there as they please.
        with contextlib.redirect_stdout(sys.stderr):
            tool.transform(source, target)
    except ModelExportError:
        raise
    except Exception as error:
        # A tool is foreign code and may raise anything; all of it means that there is no result.
        raise failed(tool.name, error) from error
    result = load(target)
    for graph in (result.graph, *(function.graph for function in result.functions.values())):
        if not in_order(graph):  # onnxruntime's float16 converter appends what it puts in
            graph.sort()
    _take_over(model, result)
    counts = carry(model, snapshot)
    if any(SCOPE_KEY in node.metadata_props for node in all_nodes(model)):
        model.ir_version = max(model.ir_version, METADATA_IR_VERSION)
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in all_tensors(model)):
        # The weights are read from there when they are needed: the directory lives as long as the model does.
        model.meta[_DIRECTORY_KEY] = directory
        modified = True
    else:
        directory.cleanup()
        modified = inlined or _normal(ir.to_proto(model)) != before
    return Applied(modified, counts, notes)


def _guard(model: ir.Model, tool: Tool, on_functions: OnFunctions) -> list[str]:
    count = len(model.functions)
    what = f"the model has {count} local function{'s' if count > 1 else ''}, and {tool.name} {tool.harm}"
    if on_functions == "error":
        raise ModelExportError(
            f"{what}; inline them first: put the pass 'inline' before this step, or set on_functions: inline "
            "(outline again afterwards); on_functions: run lets it"
        )
    if on_functions == "run":
        return [what]
    result = inline(model, lambda _: True)
    return [f"inlined {len(result.functions)} functions first: {tool.name} {tool.harm}"]


def _take_over(model: ir.Model, result: ir.Model) -> None:
    model.graph = result.graph
    model.functions.clear()
    model.functions.update(result.functions)
    model.ir_version = result.ir_version
    model.metadata_props.update(
        {key: value for key, value in result.metadata_props.items() if key not in model.metadata_props}
    )
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        setattr(model, field, getattr(result, field) or getattr(model, field))


def _comparable(path: Path) -> onnx.ModelProto:
    proto = onnx.load(path, load_external_data=False)  # pyright: ignore[reportUnknownMemberType]
    return _normal(proto)


def _normal(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model in which the order of metadata and opset imports does not matter, and no types of values in between."""
    _sort(proto.metadata_props)
    _sort(proto.opset_import)
    for graph in (proto.graph, *proto.functions):
        _sort(graph.metadata_props)
        del graph.value_info[:]
        for node in graph.node:
            _sort(node.metadata_props)
    return proto


def _sort(entries: MutableSequence[_Entry]) -> None:
    ordered = sorted(entries, key=lambda entry: entry.SerializeToString(deterministic=True))
    del entries[:]
    entries.extend(ordered)


def figures(counts: CarryCounts) -> dict[str, int]:
    """How nodes got their scopes, for a report."""
    return dataclasses.asdict(counts)
