"""Exports whose every node carries its true module call, written by the benchmark itself: the package is not asked.

Dynamo: the module stack of the fx node that a node was translated from, call index included. The optimizer's nodes are
traced back by the values that they took over; a convolution that took in a norm is the convolution's.

TorchScript: the same export with another naming of scopes. Torch asks a map for the name of each module as it is
called; ours gives the full path and the number of the call, so that names spell out the whole stack. A second export
with torch's own names has the same nodes in the same order. Each is of a model made anew: one that has run before keeps
tables, and exports as other nodes.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from modelexport_passes.exporting.dynamo import (
    DynamoOptions,
    export_dynamo,
    export_dynamo_as_transformers,
    record_scopes,
)
from modelexport_passes.exporting.huggingface.patches import transformers_model
from modelexport_passes.exporting.torchscript import export_torchscript
from modelexport_passes.exporting.translations.table import translation_table
from modelexport_passes.scopes.scope import Frame, format_frames
from modelexport_passes.scopes.walk import owned_nodes
from tests.zoo import TensorsOut, ZooCase, build

TRUTH_KEY = "truth"
"""Metadata key of a node's true stack; absent where the exporter made the node outside of every module."""

KINDS = ("dynamo", "dynamo-optimized", "torchscript")


def wrapped(case: ZooCase) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The case's model in the form that every exporter takes, and its inputs."""
    model, inputs = build(case)
    return TensorsOut(model, list(inputs)).eval(), tuple(inputs.values())


def export_with_truth(case: ZooCase, exporter: str) -> dict[str, onnx.ModelProto]:
    """Kind -> exported model with `TRUTH_KEY` on its nodes; dynamo gives two kinds."""
    with _quiet():
        if exporter == "torchscript":
            return {"torchscript": _torchscript(case)}
        return _dynamo(*wrapped(case))


@contextmanager
def _quiet() -> Generator[None]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- dynamo ----------------------------------------------------------------------------------------------------------


def _dynamo(model: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> dict[str, onnx.ModelProto]:
    program = _program(model, args)
    assert program.exported_program is not None
    stacks = {
        node.name: _stack(node.meta["nn_module_stack"])
        for node in program.exported_program.graph.nodes
        if node.meta.get("nn_module_stack")
    }
    by_value: dict[str, str] = {}
    by_kernel: dict[str, str | None] = {}  # None where several calls read it
    for node in owned_nodes(program.model.graph):
        truth = stacks.get(_fx_name(node) or "")
        if truth is not None:
            node.metadata_props[TRUTH_KEY] = truth
            by_value.update({str(value.name): truth for value in node.outputs})
            if (kernel := _kernel(node)) is not None:
                by_kernel[kernel] = None if kernel in by_kernel else truth
    record_scopes(program)
    plain = ir.to_proto(program.model)
    program.optimize()
    record_scopes(program)
    # Kernels of equal content are one after optimization, and its name is that of the first.
    readers = Counter(_kernel(node) for node in owned_nodes(program.model.graph))
    for node in owned_nodes(program.model.graph):
        node.metadata_props.pop(TRUTH_KEY, None)
        names = [str(value.name) for value in node.outputs]
        truth = stacks.get(_fx_name(node) or "") or next((by_value[name] for name in names if name in by_value), None)
        kernel = _kernel(node)
        if kernel is not None and readers[kernel] == 1:
            truth = by_kernel.get(kernel) or truth
        if truth is not None:
            node.metadata_props[TRUTH_KEY] = truth
    return {"dynamo": plain, "dynamo-optimized": ir.to_proto(program.model)}


def _kernel(node: ir.Node) -> str | None:
    """The name of a convolution's kernel: its owner is the module, also where a norm was taken in."""
    kernel = node.inputs[1] if node.op_type in ("Conv", "ConvTranspose") else None
    return None if kernel is None else kernel.name


def _program(model: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> torch.onnx.ONNXProgram:
    """As ``mx.export`` does with ``exporter="auto"``: plain, then with the rewrites of transformers."""
    options: DynamoOptions = {
        "opset": None,
        "dynamic_shapes": None,
        "input_names": None,
        "output_names": None,
        "optimize": False,
    }
    translations = translation_table(None)
    try:
        return export_dynamo(model, args, None, translations=translations, **options)[0]
    except Exception:
        if transformers_model(model) is None:
            raise
        return export_dynamo_as_transformers(model, args, None, translations=translations, **options)


def _fx_name(node: ir.Node) -> str | None:
    names = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    return None if names is None else names.rstrip("]").rpartition("'")[0].rpartition("'")[2]


def _stack(stack: Mapping[str, tuple[str, Any]]) -> str:
    frames: list[Frame] = []
    for key, (path, _) in stack.items():
        _, at, call = key.rpartition("@")
        frames.append(Frame(path, call=int(call) if at else 0))
    return format_frames(tuple(frames))


# --- TorchScript -----------------------------------------------------------------------------------------------------


_SETUP = "_setup_trace_module_map"
_MAP = "_trace_module_map"


class _CallNames(dict[torch.nn.Module, str]):
    """Names each call of a module by path and number, where torch names each module by the end of its path."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._paths = {module: path for path, module in model.named_modules()}
        self._calls: Counter[str] = Counter()

    def get(self, module: torch.nn.Module, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if module not in self._paths:
            return default
        path = self._paths[module]
        name = f"<{path}@{self._calls[path]}>"
        self._calls[path] += 1
        return f"{torch.typename(type(module))}::{name}"


def _torchscript(case: ZooCase) -> onnx.ModelProto:
    recorded, _ = export_torchscript(
        *wrapped(case), None, opset=None, dynamic_shapes=None, input_names=None, output_names=None, optimize=True
    )
    named = ir.to_proto(recorded)
    with _call_names():
        told = _torchscript_export(*wrapped(case))
    _copy_truth(told.graph, named.graph)
    return named


@contextmanager
def _call_names() -> Generator[None]:
    """Torch has no public way to name scopes otherwise: its map is replaced for one export."""
    exporter = importlib.import_module("torch.onnx._internal.torchscript_exporter.utils")
    trace = importlib.import_module("torch.jit._trace")
    original = getattr(exporter, _SETUP)

    def setup(module: torch.nn.Module, as_functions: Any) -> set[str]:
        found = original(module, as_functions)
        setattr(trace, _MAP, _CallNames(module))
        return found

    setattr(exporter, _SETUP, setup)
    try:
        yield
    finally:
        setattr(exporter, _SETUP, original)


def _torchscript_export(model: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, args, path, dynamo=False)
        return onnx.load(path)


def _copy_truth(told: onnx.GraphProto, named: onnx.GraphProto) -> None:
    for teller, node in zip(told.node, named.node, strict=True):
        assert teller.op_type == node.op_type
        parts = teller.name.removeprefix("/").split("/")[:-1]
        if parts:
            frames = tuple(_frame(part) for part in parts)
            node.metadata_props.add(key=TRUTH_KEY, value=format_frames(frames))
        for inner, other in zip(teller.attribute, node.attribute, strict=True):
            if inner.HasField("g"):
                _copy_truth(inner.g, other.g)


def _frame(part: str) -> Frame:
    # A number behind the bracket would be torch's own, for a name that it has met before: ours never repeat.
    path, _, call = part.removeprefix("<").removesuffix(">").rpartition("@")
    return Frame(path, call=int(call))


# --- forgetting ------------------------------------------------------------------------------------------------------


def truths(graph: ir.Graph) -> dict[ir.Node, str]:
    """The true stack of each node that has one, taken off the nodes."""
    return {
        node: truth for node in owned_nodes(graph) if (truth := node.metadata_props.pop(TRUTH_KEY, None)) is not None
    }


def forget(model: ir.Model, *, parameters: bool) -> None:
    """Leave no name or metadata that tells a module, as old exporters and optimizers do.

    Args:
        model: changed in place. Names of the graph's inputs and outputs stay.
        parameters: forget the names of parameters as well.
    """
    counter = iter(range(10**9))
    keep = {*model.graph.inputs, *model.graph.outputs}

    def rename(value: ir.Value) -> None:
        if value not in keep and value.name:
            value.name = f"anonymous_{next(counter)}"
        value.metadata_props.clear()

    for value in list(model.graph.initializers.values()):
        if parameters or "::" in str(value.name) or str(value.name).startswith("/"):
            rename(value)
        value.metadata_props.clear()
    for node in owned_nodes(model.graph):
        node.name = f"{node.op_type}_{next(counter)}"
        truth = node.metadata_props.get(TRUTH_KEY)
        node.metadata_props.clear()
        if truth is not None:
            node.metadata_props[TRUTH_KEY] = truth
        for value in node.outputs:
            rename(value)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
