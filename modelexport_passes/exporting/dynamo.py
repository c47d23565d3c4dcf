"""Export through ``torch.export`` and record the scope of every node from the exporter's own module stack.

The file that ``torch.onnx.export`` writes tells a node's modules but not which call of them; the exported program,
which it hands out beside the model, does (``L__self__lin@1`` in ``nn_module_stack``). The two are joined by the name of
the fx node, which the exporter writes as the last entry of ``pkg.torch.onnx.name_scopes``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from modelexport_passes.errors import ModelExportError
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from modelexport_passes.scopes.torch_metadata import fx_node_name, module_path

METADATA_OPSET = 18
"""The lowest opset that torch writes without a conversion that strips the metadata of all nodes."""


def export_dynamo(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    opset: int | None,
    dynamic_shapes: Any,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    optimize: bool,
) -> torch.onnx.ONNXProgram:
    """Run torch's exporter, quietly.

    Raises:
        Exception: whatever torch raises; `modelexport_passes.exporting.export` says it in one line.
    """
    with _quiet():
        program = torch.onnx.export(  # pyright: ignore[reportUnknownMemberType]
            model,
            args,
            kwargs=dict(kwargs) if kwargs else None,
            opset_version=None if opset is None else max(opset, METADATA_OPSET),
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=output_names,
            optimize=optimize,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelExportError("dynamo export: torch returned no program; expected an ONNXProgram")
    return program


def record_scopes(program: torch.onnx.ONNXProgram) -> int:
    """Write the scope of each node of the program's model whose fx node has a module stack. Returns how many."""
    stacks = module_stacks(exported_program_of(program))
    recorded = 0
    for node in program.model.graph:
        name = fx_node_name(node)
        frames = stacks.get(name) if name is not None else None
        if frames:
            set_scope(node, Scope(frames, Source.EXPORT))
            recorded += 1
    return recorded


def exported_program_of(program: torch.onnx.ONNXProgram) -> torch.export.ExportedProgram:
    """What the model was translated from.

    Raises:
        ModelExportError: the program does not say; one that torch's dynamo exporter made does.
    """
    if program.exported_program is None:
        raise ModelExportError("dynamo export: the program has no exported_program; expected what torch exported")
    return program.exported_program


def module_stacks(exported_program: torch.export.ExportedProgram) -> dict[str, tuple[Frame, ...]]:
    """The name of each fx node -> the module calls it was made in, root first."""
    return {
        node.name: frames_of_stack(node.meta["nn_module_stack"])
        for node in exported_program.graph.nodes
        if node.meta.get("nn_module_stack")
    }


def frames_of_stack(stack: Mapping[str, tuple[str, Any]]) -> tuple[Frame, ...]:
    """Frames of an ``nn_module_stack``: ``{key: (path, class)}``, the call index behind ``@`` in the key."""
    frames: list[Frame] = []
    for key, (path, module_class) in stack.items():
        _, at, call = key.rpartition("@")
        frames.append(Frame(module_path(path), _class_name(module_class), int(call) if at and call.isdecimal() else 0))
    return tuple(frames)


def _class_name(module_class: Any) -> str:
    if isinstance(module_class, type):
        return f"{module_class.__module__}.{module_class.__qualname__}"
    return str(module_class)


@contextmanager
def _quiet() -> Generator[None]:
    """The exporter's warnings concern its own internals (torchvision's absence, pytree classes)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
