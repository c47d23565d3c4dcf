"""Export through ``torch.export`` and record the scope of every node from the exporter's own module stack.

The file that ``torch.onnx.export`` writes tells a node's modules but not which call of them; the exported program,
which it hands out beside the model, does (``L__self__lin@1`` in ``nn_module_stack``). The two are joined by the name of
the fx node, which the exporter writes as the last entry of ``pkg.torch.onnx.name_scopes``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, TypedDict, Unpack, cast

import torch

from modelexport_passes.errors import ModelExportError, root_cause
from modelexport_passes.exporting.complex_axes import add_complex_axes_by_stack
from modelexport_passes.exporting.example_values import answered, answers_of
from modelexport_passes.exporting.faithful import check_same, results_of
from modelexport_passes.exporting.huggingface.patches import repair_graph, transformers_model, transformers_patches
from modelexport_passes.exporting.lost_constants import register_lost_constants
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.strided import in_order_of_memory
from modelexport_passes.scopes.class_names import class_name, readable_class_name
from modelexport_passes.scopes.fusions import fused_kernel, keep_origins
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from modelexport_passes.scopes.torch_metadata import NO_STACK, fx_node_name, module_path, one_root

Translations: TypeAlias = Mapping[Any, Callable[..., Any]]

_STRICT_CAPTURE = re.compile(r"strict=True\)`\.\.\. ✅")
"""What torch prints when it has captured a model in its second way. There is no other word of it."""

_NO_TRANSLATIONS: Translations = {}

METADATA_OPSET = 18
"""The lowest opset that torch writes without a conversion that strips the metadata of all nodes."""


class DynamoOptions(TypedDict):
    """What is asked of torch's exporter; see `modelexport_passes.export`."""

    opset: int | None
    dynamic_shapes: Any
    input_names: Sequence[str] | None
    output_names: Sequence[str] | None
    optimize: bool


def export_dynamo(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    translations: Translations,
    **options: Unpack[DynamoOptions],
) -> tuple[torch.onnx.ONNXProgram, list[str]]:
    """Run torch's exporter, quietly.

    Returns:
        the program, and a note if torch captured the model in its second way.

    Raises:
        Exception: whatever torch raises; `modelexport_passes.exporting.export` says it in one line.
    """
    said = io.StringIO()
    with _quiet(), _without_gradients(), contextlib.redirect_stdout(said):
        program = _to_onnx(model, args, kwargs, translations, options, verbose=True)
    if not _STRICT_CAPTURE.search(said.getvalue()):
        return program, []
    reason = _why_not_plain(model, args, kwargs)
    return program, [
        f"captured by TorchDynamo (strict), as a plain trace failed: {reason}",
        "strict capture: scopes are torch's own, but a region compiled once is labelled as its first use everywhere",
    ]


def export_dynamo_as_transformers(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    translations: Translations,
    **options: Unpack[DynamoOptions],
) -> torch.onnx.ONNXProgram:
    """Run torch's exporter on a model of transformers while transformers' own rewrites for export are in force.

    Raises:
        ModelExportError: the rewrites change what the model computes.
        Exception: whatever torch raises; `modelexport_passes.exporting.export` says it in one line.
    """
    inner = transformers_model(model)
    assert inner is not None
    return _checked(model, args, kwargs, inner, contextlib.nullcontext(), translations, options)


def export_dynamo_by_example(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    rewritten: bool,
    translations: Translations,
    **options: Unpack[DynamoOptions],
) -> tuple[torch.onnx.ONNXProgram, list[str]]:
    """Run torch's exporter on a model that asks for values of tensors, and let it know the example's.

    With ``rewritten``, transformers' own rewrites for export are in force.

    Returns:
        the program, and a note that it takes the example's way.

    Raises:
        ModelExportError: the capture asks for other values than a run, or computes something else.
        Exception: whatever torch raises; `modelexport_passes.exporting.export` says it in one line.
    """
    inner = transformers_model(model) if rewritten else None
    notes: list[str] = []
    asking = _answered_as_in_a_run(model, args, kwargs, notes)
    return _checked(model, args, kwargs, inner, asking, translations, options), notes


@contextmanager
def _answered_as_in_a_run(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, notes: list[str]
) -> Generator[None]:
    """Run the model once, note it, and give what it asks the same answers again."""
    with state_kept(model):
        answers = answers_of(model, args, kwargs or {})
    notes.append(answers.note())
    with answered(model, answers), contextlib.redirect_stdout(io.StringIO()):
        yield


def _checked(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    inner: torch.nn.Module | None,
    capturing: AbstractContextManager[None],
    translations: Translations,
    options: DynamoOptions,
) -> torch.onnx.ONNXProgram:
    """Capture, compare with the model, translate; with transformers' rewrites in force if there is an inner model."""
    expected = _results(model, args, kwargs)
    rewrites = contextlib.nullcontext(_NO_TRANSLATIONS) if inner is None else transformers_patches(inner)
    with _quiet(), _without_gradients(), rewrites as theirs:
        with capturing:
            shapes = _unnamed(options["dynamic_shapes"])
            captured = torch.export.export(model, args, dict(kwargs or {}), dynamic_shapes=shapes, strict=False)
        if inner is not None:
            repair_graph(captured)
        check_same(_results(captured.module(check_guards=False), args, kwargs), expected)
        return _to_onnx(captured, (), None, {**theirs, **translations}, options)


def _results(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> list[torch.Tensor]:
    with state_kept(model):
        return results_of(model, args, kwargs or {})


def _to_onnx(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    translations: Translations,
    options: DynamoOptions,
    *,
    verbose: bool = False,
) -> torch.onnx.ONNXProgram:
    if isinstance(model, torch.export.ExportedProgram):
        in_order_of_memory(model)
        add_complex_axes_by_stack(model)
    program = _translate(model, args, kwargs, translations, options, verbose=verbose)
    captured = exported_program_of(program)
    if in_order_of_memory(captured):
        return _translate(captured, (), None, translations, options)
    return program


def _translate(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    translations: Translations,
    options: DynamoOptions,
    *,
    verbose: bool = False,
) -> torch.onnx.ONNXProgram:
    opset = options["opset"]
    program = torch.onnx.export(  # pyright: ignore[reportUnknownMemberType]
        model,
        args,
        kwargs=dict(kwargs) if kwargs else None,
        opset_version=None if opset is None else max(opset, METADATA_OPSET),
        dynamic_shapes=options["dynamic_shapes"],
        input_names=options["input_names"],
        output_names=options["output_names"],
        optimize=options["optimize"],
        custom_translation_table=dict(translations),
        dynamo=True,
        verbose=verbose,
    )
    if program is None:
        raise ModelExportError("dynamo export: torch returned no program; expected an ONNXProgram")
    if options["optimize"]:
        register_lost_constants(program.model)
    return program


def _why_not_plain(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> str:
    """The error of torch's first way, which it keeps to itself when the second works."""
    try:
        with _without_gradients():
            torch.export.export(model, args, dict(kwargs or {}), strict=False)
    except Exception as error:  # noqa: BLE001 - of any class, from the model's code too
        return root_cause(error)
    return "torch does not say why"


def _unnamed(shapes: Any) -> Any:
    """Dynamic shapes with dimensions given by name in the form that ``torch.export`` reads."""
    if isinstance(shapes, str):
        return torch.export.Dim.DYNAMIC
    if isinstance(shapes, Mapping):
        return {key: _unnamed(value) for key, value in cast("Mapping[Any, Any]", shapes).items()}
    if isinstance(shapes, list | tuple):
        values = [_unnamed(value) for value in cast("Sequence[Any]", shapes)]
        return tuple(values) if isinstance(shapes, tuple) else values
    return shapes


def record_scopes(program: torch.onnx.ONNXProgram) -> int:
    """Write the scope of each node of the program's model whose fx node has a module stack. Returns how many."""
    exported_program = exported_program_of(program)
    stacks = module_stacks(exported_program)
    readers = _stacks_of_readers(exported_program)
    recorded = 0
    for node in program.model.graph:
        name = fx_node_name(node)
        frames = stacks.get(name) if name is not None else None
        if frames:
            scope = Scope(frames, Source.EXPORT)
            kernel = fused_kernel(node)
            owner = readers.get(str(kernel.name)) if kernel is not None else None
            if owner:
                keep_origins(node, Scope(owner, Source.EXPORT), scope)
                scope = Scope(owner, Source.EXPORT)
            set_scope(node, scope)
            recorded += 1
    return recorded


def _stacks_of_readers(exported_program: torch.export.ExportedProgram) -> dict[str, tuple[Frame, ...]]:
    """Parameter -> the module calls of the one operation that reads it; parameters read more than once are left out."""
    parameters = exported_program.graph_signature.inputs_to_parameters
    stacks = module_stacks(exported_program)
    return {
        parameters[node.name]: stacks[next(iter(node.users)).name]
        for node in exported_program.graph.nodes
        if node.name in parameters and len(node.users) == 1 and next(iter(node.users)).name in stacks
    }


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
        if node.meta.get("nn_module_stack") and NO_STACK not in node.meta["nn_module_stack"]
    }


def frames_of_stack(stack: Mapping[str, tuple[str, Any]]) -> tuple[Frame, ...]:
    """Frames of an ``nn_module_stack``: ``{key: (path, class)}``, the call index behind ``@`` in the key."""
    frames: list[Frame] = []
    for key, (path, module_class) in stack.items():
        # The first call of a module has its path for a key: one that is named ``default@7`` is no seventh call.
        _, at, call = ("", "", "") if path and key.endswith(path) else key.rpartition("@")
        frames.append(Frame(module_path(path), _class_name(module_class), int(call) if at and call.isdecimal() else 0))
    return one_root(tuple(frames))


def _class_name(module_class: Any) -> str:
    if isinstance(module_class, type):
        return class_name(module_class)
    return readable_class_name(str(module_class))


def _without_gradients() -> contextlib.AbstractContextManager[Any]:
    """Nothing is trained here, and a stretch of the model that says so is no graph of its own.

    Where gradients are on, ``torch.export`` cuts out what a model runs under ``torch.no_grad()`` and forgets which
    modules it is of: every operation in it would be left with the scope of the one who said it.
    """
    return torch.no_grad()


_NOISY = ("torch.onnx", "torch.export", "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def _quiet() -> Generator[None]:
    """What torch logs on the way concerns its own internals, or a failure that it raises too."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
