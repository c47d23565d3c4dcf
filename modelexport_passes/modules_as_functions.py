"""What ``torch.onnx.export(export_modules_as_functions=...)`` was, on today's exporter."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import onnx_ir as ir

from modelexport_passes.builtin.inject_tags import InjectTags
from modelexport_passes.builtin.outline import Outline
from modelexport_passes.builtin.recover_scopes import RecoverScopes
from modelexport_passes.errors import ConfigError
from modelexport_passes.exporting.export import Exporter, export
from modelexport_passes.exporting.files import save
from modelexport_passes.exporting.stack_traces import TraceMode

if TYPE_CHECKING:
    import torch


def export_modules_as_functions(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    path: str | Path | None = None,
    modules: Literal[True] | Collection[type[torch.nn.Module] | str] = True,
    *,
    kwargs: Mapping[str, Any] | None = None,
    exporter: Exporter = "dynamo",
    opset: int | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    optimize: bool = False,
    traces: TraceMode = "relative",
    tags: bool = True,
) -> ir.Model:
    """Export a torch model with its modules as ONNX local functions, one per distinct module, weights as inputs.

    Like the option that torch's exporter had, ``True`` takes every module but the model itself, and a set takes the
    modules of these classes; unlike it, equal modules share one function, and globs over qualified class names will do.

    Args:
        model: in the mode (``eval()``) it shall be exported in.
        args: positional example inputs of ``forward``.
        path: where to write the model; nothing is written if None.
        modules: True, or classes and globs (``{nn.Linear, "*.BertLayer"}``).
        kwargs: named example inputs of ``forward``.
        exporter: see `export`.
        opset: see `export`.
        dynamic_shapes: see `export`.
        input_names: see `export`.
        output_names: see `export`.
        optimize: see `export`.
        traces: see `export`.
        tags: let every operation carry its module call as ``hierarchy_tag``, inside of functions too.

    Returns:
        The model, as it was written.

    Raises:
        ConfigError: ``modules`` is neither True nor a collection of classes and strings.
        ModelExportError: the exporter failed.
    """
    chosen = _globs(modules)
    exported = export(
        model,
        args,
        kwargs,
        exporter=exporter,
        opset=opset,
        dynamic_shapes=dynamic_shapes,
        input_names=input_names,
        output_names=output_names,
        optimize=optimize,
        traces=traces,
    )
    passes = [RecoverScopes(), *([InjectTags()] if tags else []), Outline(modules=chosen)]
    for each in passes:
        each(exported)
    if path is not None:
        save(exported, path)
    return exported


def _globs(modules: object) -> Literal["all"] | list[str]:
    if modules is True:
        return "all"
    if isinstance(modules, str) or not isinstance(modules, Collection):
        raise ConfigError(f"export_modules_as_functions: modules {modules!r}; expected True, or classes and globs")
    globs: list[str] = []
    for entry in cast("Collection[object]", modules):
        if isinstance(entry, str):
            globs.append(entry)
        elif inspect.isclass(entry):
            globs.append(_literal(f"{entry.__module__}.{entry.__qualname__}"))
        else:
            raise ConfigError(f"export_modules_as_functions: {entry!r}; expected a module class or a glob")
    return sorted(globs)


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
