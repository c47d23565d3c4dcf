"""Writing what a run made, all or nothing: the model and the report appear together, after everything else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, VerificationError
from modelexport_passes.exporting.files import save
from modelexport_passes.pipeline.report import OutputReport, count
from modelexport_passes.scopes.saved_tags import TagCounts, count_saved_tags, count_tags
from modelexport_passes.scopes.tags import tag_templates

_CHUNK = 1 << 20


def check_target(path: Path) -> None:
    """Find out before a long run whether a file can be written at a path; makes nothing.

    Raises:
        ConfigError: it cannot.
    """
    if path.is_dir():
        raise ConfigError(f"output {path} is a directory; expected the path of a file")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"output {path}: {folder} is not a directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"output {path}: {folder} cannot be written to")


def write_model(model: ir.Model, path: Path) -> OutputReport:
    """Save a model and say what was written. Directories are made, and removed again if the save fails.

    Raises:
        VerificationError: the file, read again, does not hold all tags of the model.
    """
    started = time.perf_counter()
    with _folder_of(path):
        save(model, path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    saved = _saved_tags(model, path)
    seconds = time.perf_counter() - started
    return OutputReport(str(path), path.stat().st_size, digest.hexdigest(), seconds, saved.nodes, saved.tags)


def _saved_tags(model: ir.Model, path: Path) -> TagCounts:
    """Count the tags in the file that was just written; none may be lost."""
    keys = sorted(tag_templates(model))
    if not keys:
        return TagCounts(count(model).nodes + count(model).function_nodes, {})
    saved = count_saved_tags(path, keys)
    if saved != (expected := count_tags(model, keys)):
        raise VerificationError(
            f"output {path}: the file holds {saved}, the model {expected}: tags were lost in saving"
        )
    return saved


@contextlib.contextmanager
def json_file(path: Path) -> Generator[Callable[[Any], None]]:
    """Write a JSON file: takes its place (a temporary file beside it) on entry, gets its name on a clean exit.

    Yields:
        what writes a value as the content.
    """
    with _folder_of(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                yield lambda value: print(json.dumps(value, indent=2, allow_nan=False), file=file)
            # mkstemp makes private files; a report is as readable as any file of the user
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(0o666 & ~umask)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _folder_of(path: Path) -> Generator[None]:
    """Make the directories above a path; when the body fails, remove those that were made and are empty."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
                folder.rmdir()
        raise
