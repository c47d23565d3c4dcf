"""Exporters tried one after another; the ones that failed say why in one line each, the cause first."""

from __future__ import annotations

import tempfile
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


def first_that_works(attempts: Iterable[Attempt[Exported]]) -> Success[Exported]:
    """Run the attempts in order until one works.

    Raises:
        ModelExportError: none did: the cause of each, and the path of a file with the whole of the first failure.
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
    raise ModelExportError(f"export failed: {causes} (full report: {_write_report(first)})") from first


def _notes(taken: Attempt[Exported], failures: Sequence[tuple[str, Exception]]) -> list[str]:
    if not failures:
        return []
    return [*(f"{name} failed: {root_cause(error)}" for name, error in failures), f"{taken.name} taken: {taken.scopes}"]


def _write_report(error: BaseException) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mx-export-"))
    report = folder / "export_error.txt"
    report.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return report
