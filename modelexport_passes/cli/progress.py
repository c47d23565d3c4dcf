"""A progress bar on stderr: what is running, and for how long."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelexport_passes.pipeline.observer import Observer
from modelexport_passes.pipeline.report import InputReport, OutputReport, StepReport
from modelexport_passes.pipeline.step import Step
from modelexport_passes.progress import Progress as Told


class ProgressBar(Observer):
    """Shows the running step while it is entered as a context; is gone afterwards.

    Args:
        steps: how many there are, as far as is known: a composite runs as several.
    """

    def __init__(self, steps: int) -> None:
        columns = (
            SpinnerColumn(),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=steps + 2)
        self._shown: set[str] = set()
        self._running = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _show(self, text: str) -> None:
        self._running = text
        self._describe(text)

    def _describe(self, text: str) -> None:
        # Escaped, because names may hold what rich takes for markup.
        self._progress.update(self._task, description=text.replace("[", r"\["))

    def input_started(self, source: str) -> None:
        """Show the input."""
        self._show(f"input {source}")

    def input_finished(self, report: InputReport) -> None:
        """Count it."""
        del report
        self._progress.advance(self._task)

    def step_started(self, step: Step) -> None:
        """Show the step."""
        self._show(step.id)

    def step_finished(self, step: Step, report: StepReport, model: ir.Model) -> None:
        """Count the step; the parts of a composite count once."""
        del report, model
        outermost = step.id.partition(".")[0]
        if outermost not in self._shown:
            self._shown.add(outermost)
            self._progress.advance(self._task)

    def progressed(self, progress: Told) -> None:
        """Show it behind what is running."""
        self._describe(f"{self._running}: {progress}")

    def output_started(self, path: Path) -> None:
        """Show the output."""
        self._show(f"write {path}")

    def output_finished(self, report: OutputReport) -> None:
        """Count it."""
        del report
        self._progress.advance(self._task)
