"""Watching a run: progress bars, snapshots, logs."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir

from modelexport_passes.pipeline.report import InputReport, OutputReport, StepReport
from modelexport_passes.pipeline.step import Step
from modelexport_passes.progress import Progress


class Observer:
    """Is told what a run does. Each method does nothing by default; override those of interest.

    What an observer raises ends the run; what `progressed` raises is taken for an error of the work that told it.
    """

    def input_started(self, source: str) -> None:
        """The model is about to be loaded or exported."""

    def input_finished(self, report: InputReport) -> None:
        """The model is there."""

    def step_started(self, step: Step) -> None:
        """A pass is about to run."""

    def step_finished(self, step: Step, report: StepReport, model: ir.Model) -> None:
        """A pass has run, and what it left was verified."""

    def progressed(self, progress: Progress) -> None:
        """Something that may take long, inside of a step or while reading or writing, is further than before."""

    def output_started(self, path: Path) -> None:
        """All steps have succeeded; the model is about to be written."""

    def output_finished(self, report: OutputReport) -> None:
        """The model is written."""


class SaveAfter(Observer):
    """Saves the model after each step that changed it: ``DIR/03-outline.onnx``. The files stay when the run fails.

    Args:
        directory: made when the first file is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._steps = 0

    def step_finished(self, step: Step, report: StepReport, model: ir.Model) -> None:
        """Save the model if the step changed it."""
        from modelexport_passes.exporting.files import save

        self._steps += 1
        if report.modified:
            self.directory.mkdir(parents=True, exist_ok=True)
            save(model, self.directory / f"{self._steps:02}-{re.sub(r'[^A-Za-z0-9._-]', '-', step.id)}.onnx")
