"""Exporters tried one after another; the ones that failed say why in one line each, the cause first."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from modelexport_passes.errors import ModelExportError, root_cause

Exported = TypeVar("Exported")


@dataclass(frozen=True)
class Attempt(Generic[Exported]):
    """One way to export.

    Attributes:
        name: the exporter, as it is recorded.
        run: exports.
        scopes: how good the scopes are that this way gives, in words; told when it is a fallback.
    """

    name: str
    run: Callable[[], Exported]
    scopes: str


@dataclass(frozen=True)
class Success(Generic[Exported]):
    """The first attempt that worked.

    Attributes:
        name: its exporter.
        exported: its result.
        notes: nothing if it was the first attempt; else which one was taken, why, and what that means for the scopes.
    """

    name: str
    exported: Exported
    notes: list[str]


def first_that_works(
    attempts: Iterable[Attempt[Exported]], error_report: str | os.PathLike[str] | None = None
) -> Success[Exported]:
    """Run the attempts in order until one works.

    Args:
        attempts: the ways to export, by preference.
        error_report: file for the traceback of the first failure if none works; None to write none.

    Raises:
        ModelExportError: none did: the cause of each.
    """
    failures: list[tuple[str, Exception]] = []
    for attempt in attempts:
        try:
            exported = attempt.run()
        # torch's exporters raise errors of every class there is, from their own and from the model's code; all mean
        # the same here, and each is kept: in the notes of the attempt that works, or in the error raised below.
        except Exception as error:  # noqa: BLE001
            failures.append((attempt.name, error))
        else:
            return Success(attempt.name, exported, _notes(attempt, failures))
    causes = "; ".join(f"{name}: {root_cause(error)}" for name, error in failures)
    # The first attempt is the one that the others stand in for; its failure is the one to mend.
    first = failures[0][1]
    raise ModelExportError(f"export failed: {causes} ({_full_report(first, error_report)})") from first


def _notes(taken: Attempt[Exported], failures: Sequence[tuple[str, Exception]]) -> list[str]:
    if not failures:
        return []
    return [*(f"{name} failed: {root_cause(error)}" for name, error in failures), f"{taken.name} taken: {taken.scopes}"]


def _full_report(error: BaseException, path: str | os.PathLike[str] | None) -> str:
    """Write the traceback where it was asked for; where it stands, or how to get it."""
    if path is None:
        return "error_report: PATH writes the full traceback"
    report = Path(path)
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as failure:
        return f"full traceback not written to {report}: {failure.strerror or failure}"
    return f"full traceback: {report}"
