"""The rewrites that transformers itself makes so that its models can be exported, in force for one export.

``transformers.exporters`` replaces code that torch cannot capture (loops over data, in-place masks), repairs captured
graphs and translates operators. It names itself experimental, so it is asked only when the plain way fails, and what it
gives is compared with the untouched model like any other export.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from modelexport_passes.errors import MissingDependencyError


def transformers_model(model: torch.nn.Module) -> torch.nn.Module | None:
    """The outermost module that is a model of transformers; None if there is none. Imports nothing."""
    for module in model.modules():
        if any(base.__module__ == "transformers.modeling_utils" for base in type(module).__mro__):
            return module
    return None


@contextmanager
def masks_as_called() -> Generator[None]:
    """Let transformers leave out an attention mask that hides nothing, as it does when a model is called.

    While a model is captured it writes the mask out although none was given. The graph would hold work that the model
    does not do, and where a model takes no such mask (its scores are not keys by queries) there would be no graph.
    """
    masking: Any = sys.modules.get("transformers.masking_utils")
    name = "_ignore_bidirectional_mask_sdpa"
    may_leave_out: Callable[..., bool] | None = getattr(masking, name, None)
    if may_leave_out is None:
        yield
        return

    def leave_out(padding_mask: torch.Tensor | None, kv_length: Any, local_attention_size: Any = None) -> bool:
        hides_nothing = padding_mask is None and local_attention_size is None
        return hides_nothing or may_leave_out(padding_mask, kv_length, local_attention_size)

    setattr(masking, name, leave_out)
    try:
        yield
    finally:
        setattr(masking, name, may_leave_out)


@contextmanager
def transformers_patches(model: torch.nn.Module) -> Generator[Mapping[Any, Callable[..., Any]]]:
    """Let transformers' own rewrites be in force; gives its table of translations.

    Raises:
        MissingDependencyError: the installed transformers has no such rewrites.
    """
    try:
        dynamo = importlib.import_module("transformers.exporters.exporter_dynamo")
        onnx = importlib.import_module("transformers.exporters.exporter_onnx")
        utils = importlib.import_module("transformers.exporters.utils")
        apply_patches, reset = utils.apply_patches, dynamo.reset_model_state
        register_caches, table = (
            dynamo.register_cache_pytrees_for_model,
            vars(onnx)["_ONNX_TRANSLATION_TABLE"],
        )
    except (ImportError, AttributeError, KeyError) as error:
        raise MissingDependencyError(f"transformers has no rewrites for export: {error}; 5.23 has") from error
    register_caches(model)
    with torch.no_grad(), apply_patches("dynamo"), apply_patches("onnx"), reset(model):
        yield table


def repair_graph(program: torch.export.ExportedProgram) -> None:
    """Apply transformers' repairs to a captured graph, in place."""
    utils = importlib.import_module("transformers.exporters.utils")
    utils.apply_fx_node_fixes("onnx", program.graph_module)
