"""A Hugging Face model from a folder, the hub's cache or the hub, by its task."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import torch

from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError, first_line

WITH_PAST = "-with-past"
"""Ends the name of a task whose model takes and gives its cache."""

_OTHER_TASKS = {
    "multiple-choice": "AutoModelForMultipleChoice",
    "question-answering": "AutoModelForQuestionAnswering",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "text2text-generation": "AutoModelForSeq2SeqLM",
}
"""Tasks that transformers has models but no pipeline for."""


def load_model(
    source: str | os.PathLike[str],
    task: str | None,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> torch.nn.Module:
    """Load a model in the mode for inference, its attention written out so that exporters see its parts.

    Args:
        source: a local folder, or the name of a model in the hub's cache or on the hub.
        task: such as ``fill-mask``; None for the class that the weights were saved from.
        dtype: ``float32``, ``float16``, ``bfloat16``; None for that of the weights.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run code that comes with the weights.

    Raises:
        MissingDependencyError: transformers is not installed.
        ConfigError: the task is not known, or the model has none of its classes.
        ModelExportError: the model cannot be loaded.
    """
    transformers = transformers_package()
    location = os.fspath(source)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    common = {name: value for name, value in common.items() if value}
    try:
        config = transformers.AutoConfig.from_pretrained(location, **common)
    except (OSError, ValueError) as error:
        folder = "" if Path(location).exists() else "; it is no folder here either"
        raise ModelExportError(f"hf: no configuration of {location!r}{folder}: {first_line(error)}") from error
    options = {**common, "config": config, "attn_implementation": "eager"}
    if dtype is not None:
        options["dtype"] = _torch_dtype(dtype)
    problems: list[str] = []
    for model_class in classes_for(task, config):
        try:
            return model_class.from_pretrained(location, **options).eval()
        except (OSError, ValueError) as error:
            problems.append(f"{model_class.__name__}: {first_line(error)}")
    raise ModelExportError(f"hf: {location!r} cannot be loaded for {task or 'its own class'}: {'; '.join(problems)}")


def classes_for(task: str | None, config: Any) -> list[Any]:
    """The model classes of a task, to be tried in order.

    Raises:
        ConfigError: the task is not known; or it is None and the configuration names no class.
    """
    transformers = transformers_package()
    if task is None:
        names: list[str] = config.architectures or []
        found = [getattr(transformers, name) for name in names if hasattr(transformers, name)]
        if not found:
            raise ConfigError(f"hf: the configuration names no known class ({names}); say which task: ...")
        return found
    name = task.removesuffix(WITH_PAST)
    if name in _OTHER_TASKS:
        return [getattr(transformers, _OTHER_TASKS[name])]
    known = importlib.import_module("transformers.pipelines").SUPPORTED_TASKS
    if name not in known:
        expected = ", ".join(sorted({*known, *_OTHER_TASKS}))
        raise ConfigError(f"hf: unknown task {task!r}; expected one of {expected}")
    return list(known[name]["pt"])


def transformers_package() -> Any:
    """The package, imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependencyError("hf: transformers is not installed; pip install transformers") from error


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"hf: dtype {name!r}; expected float32, float16 or bfloat16")
    return dtype
