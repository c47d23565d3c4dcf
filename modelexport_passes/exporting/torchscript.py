"""Export through TorchScript: deprecated by torch, and still the one that takes some models.

It leaves no metadata; scopes come from the names of nodes, resolved against the modules of the torch model.
"""

from __future__ import annotations

import importlib
import inspect
import tempfile
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir
import torch

from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.example_values import shown_places
from modelexport_passes.exporting.tracing import traced_calls
from modelexport_passes.scopes.recover import recover

_TORCH = str(Path(torch.__file__).parent)

_SUMS_SINCE = 16
"""The opset in which ScatterElements can add."""


def export_torchscript(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    opset: int | None,
    dynamic_shapes: Any,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    optimize: bool,
) -> tuple[ir.Model, list[str]]:
    """Run torch's TorchScript exporter; scopes by name, checked against the model's modules.

    Returns:
        the model, and what there is to know of it: where the trace made a constant of what Python asked of a tensor.

    Raises:
        Exception: whatever torch raises; `modelexport_passes.exporting.export` says it in one line.
    """
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    names = list(input_names) if input_names is not None else _input_names(model, args, kwargs or {})
    with (
        tempfile.TemporaryDirectory(prefix="mx-export-") as folder,
        warnings.catch_warnings(record=True) as warned,
        traced_calls(model) as calls,
        sums_of_repeated_indices(opset),
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        path = Path(folder) / "model.onnx"
        torch.onnx.export(  # pyright: ignore[reportUnknownMemberType]
            model,
            args,
            path,
            kwargs=dict(kwargs) if kwargs else None,
            opset_version=opset,
            input_names=names,
            output_names=output_names,
            dynamic_axes=dynamic_axes(dynamic_shapes, names),
            do_constant_folding=optimize,
            dynamo=False,
        )
        exported = ir.load(str(path))  # pyright: ignore[reportUnknownMemberType]
        # The folder goes, and with it what a model over 2 GB keeps in files of its own.
        ir.external_data.load_to_model(exported)
    recover(exported, source="name", module=model, traced=calls[0] if len(calls) == 1 else None)
    return exported, [*_notes(warned), *_as_before(exported, model, before)]


def _as_before(exported: ir.Model, model: torch.nn.Module, before: Mapping[str, torch.Tensor]) -> list[str]:
    """Give initializers the content that buffers had before torch ran the model; a note on those that are not found."""
    lost: list[str] = []
    for name, buffer in model.named_buffers():
        if name not in before or torch.equal(buffer, before[name]):
            continue
        value = exported.graph.initializers.get(name)
        if value is None:
            lost.append(name)
        else:
            value.const_value = ir.tensor(before[name].cpu().contiguous(), name=name)
    if not lost:
        return []
    return [f"torch ran the model, which wrote its buffers {lost}; where the graph has them, it has what was written"]


@contextmanager
def sums_of_repeated_indices(opset: int | None) -> Generator[None]:
    """Let ``index_add`` add all values of an index that occurs several times.

    The exporter writes it as of opset 9, which keeps one of them, and warns that the model is incorrect then. Opset 16
    can add.
    """
    try:
        symbolic: Any = importlib.import_module("torch.onnx._internal.torchscript_exporter.symbolic_opset9")
    except ImportError:
        symbolic = None
    if not hasattr(symbolic, "scatter_add") or (opset is not None and opset < _SUMS_SINCE):
        yield
        return

    def scatter_add(graph: Any, to: Any, axis: int, indices: Any, values: Any) -> Any:
        return graph.op("ScatterElements", to, indices, values, axis_i=axis, reduction_s="add")

    before, symbolic.scatter_add = symbolic.scatter_add, scatter_add
    try:
        yield
    finally:
        symbolic.scatter_add = before


def _notes(warned: Iterable[warnings.WarningMessage]) -> list[str]:
    """What a trace warns of: a truth or a number that Python read, from a tensor or from its sizes."""
    places = dict.fromkeys((warning.filename, warning.lineno) for warning in warned)
    asked = [place for place in places if not place[0].startswith(_TORCH)]
    return [f"the branches of the example are the graph's; asked in {shown_places(asked)}"] if asked else []


def dynamic_axes(dynamic_shapes: Any, names: Sequence[str]) -> dict[str, dict[int, str]] | None:
    """``torch.export``'s dynamic shapes in the form that the TorchScript exporter reads.

    Raises:
        ConfigError: the shapes are nested; this exporter knows them per flat input.
    """
    if not dynamic_shapes:
        return None
    per_input = _pairs(dynamic_shapes, names)
    axes = {str(name): _axes(str(name), shape) for name, shape in per_input if shape is not None}
    return {name: dims for name, dims in axes.items() if dims}


def _axes(name: str, shape: Any) -> dict[int, str]:
    dims: dict[int, str] = {}
    for axis, dim in _pairs(shape, range(len(shape))):
        if not isinstance(axis, int):
            raise ConfigError(f"dynamic_shapes[{name!r}]: nested; TorchScript takes {{axis: name}} per flat input")
        if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int)):
            dims[axis] = dim if isinstance(dim, str) else getattr(dim, "__name__", f"{name}_{axis}")
    return dims


def _pairs(shapes: Any, keys: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    """The items of a mapping, or of a sequence by these keys."""
    if isinstance(shapes, Mapping):
        return cast("Mapping[Any, Any]", shapes).items()
    return zip(keys, shapes, strict=False)


def _input_names(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """The names of ``forward``'s parameters that the example gives, as dynamo names its inputs."""
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    names: list[str] = []
    for name, value in bound.arguments.items():
        if isinstance(value, torch.Tensor):
            names.append(name)
        elif value is not None and not isinstance(value, (bool, int, float, str)):
            return []  # nested inputs: the exporter numbers them
    return names
