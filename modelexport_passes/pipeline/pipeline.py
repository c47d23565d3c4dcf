"""`Pipeline`: passes run one after another, timed, verified and reported."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import onnx_ir as ir

from modelexport_passes.config.pipeline_file import ExportInput, HfInput, ModelInput, load_pipeline
from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import ModelPass, RunContext
from modelexport_passes.pipeline.execution import Execution
from modelexport_passes.pipeline.observer import Observer
from modelexport_passes.pipeline.report import RunReport
from modelexport_passes.pipeline.source import Opened, describe_source, open_source
from modelexport_passes.pipeline.step import Step, as_steps, passes_of
from modelexport_passes.pipeline.writing import check_target, json_file, write_model
from modelexport_passes.progress import Progress, told_to
from modelexport_passes.scopes.copying import copy_model

if TYPE_CHECKING:
    from modelexport_passes.pipeline.source import RunInput

Verification: TypeAlias = Literal["none", "structure"]


@dataclass(frozen=True)
class RunResult:
    """What a run gives.

    Attributes:
        model: the model after the last step.
        report: what happened.
    """

    model: ir.Model
    report: RunReport


class Pipeline:
    """Passes in an order, as a value.

    Passes work in place: a model given as an object in memory is changed, also when a step fails half-way. A model
    given by path is read anew at each run.

    Example::

        result = mx.Pipeline([mx.RecoverScopes(), mx.InjectTags(), mx.Outline()]).run("model.onnx")
        mx.save(result.model, "outlined.onnx")

    Args:
        steps: onnx_ir passes of any origin, or each as a `Step`, which has an id of its own. A ``Sequential`` or
            ``PassManager`` is taken apart, so that each of its passes is timed, verified and reported.
        source: the model to run on when `run` is given none.
        output: where to write the model after the last step.
        report: where to write the report (JSON).
        verify_each: ``structure``: after each step that changed the model, check what is cheap to check, and stop at
            the step that broke it. ``none``: do not.
        file: the pipeline file, for the report.

    Raises:
        ConfigError: something is not a pass, or two steps have one id.
    """

    def __init__(
        self,
        steps: Sequence[Step | ir.passes.PassBase],
        *,
        source: ModelInput | ExportInput | HfInput | None = None,
        output: str | os.PathLike[str] | None = None,
        report: str | os.PathLike[str] | None = None,
        verify_each: Verification = "structure",
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.steps = as_steps(steps)
        self.source = source
        self.output = None if output is None else Path(output)
        self.report = None if report is None else Path(report)
        self.verify_each: Verification = verify_each
        self.file = None if file is None else Path(file)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Pipeline:
        """Read a pipeline file (its form: ``docs/pipeline.md``).

        Args:
            path: the file.
            overrides: address -> value, such as ``{"steps.tags.with.key": "x"}``, in place of what the file says.

        Raises:
            ConfigError: all that is wrong with it, one line each.
        """
        config = load_pipeline(Path(path), overrides)
        return cls(
            [Step(step.id, step.pass_, step.pass_name, step.options) for step in config.steps],
            source=config.input,
            output=config.output,
            report=config.report,
            verify_each=config.verify_each,
            file=config.file,
        )

    def run(self, x: RunInput | None = None, *, observers: Sequence[Observer] = ()) -> RunResult:
        """Run all steps; then, and only then, write the output and the report, if the pipeline has them.

        Args:
            x: path, ``onnx.ModelProto``, ``onnx_ir.Model`` or ``torch.onnx.ONNXProgram``; by default the pipeline's
                own input.
            observers: told of each step.

        Raises:
            StepError: a step failed; no file was written.
            ModelExportError: the input cannot be had, or the output cannot be written.
        """
        started = time.perf_counter()
        source = self.source if x is None else x
        if source is None:
            raise ConfigError("pipeline: there is no input; give one to run(), or in the file under input")
        for target in (self.output, self.report):
            if target is not None:
                check_target(target)

        def progressed(progress: Progress) -> None:
            for observer in observers:
                observer.progressed(progress)

        with told_to(progressed) if observers else contextlib.nullcontext():
            return self._run(source, started, observers)

    def _run(
        self, source: RunInput | ModelInput | ExportInput | HfInput, started: float, observers: Sequence[Observer]
    ) -> RunResult:
        for observer in observers:
            observer.input_started(describe_source(source)[1])
        opened = open_source(source)
        for observer in observers:
            observer.input_finished(opened.report)
        report = RunReport(opened.report, pipeline=None if self.file is None else str(self.file))
        execution = Execution(self._context(opened), observers, verify=self.verify_each == "structure")
        model = execution.run(self.steps, opened.model, report)
        self._write(model, report, started, observers)
        return RunResult(model, report)

    def _context(self, opened: Opened) -> RunContext:
        return RunContext(self._fresh_input(opened), opened.record)

    def _fresh_input(self, opened: Opened) -> Callable[[], ir.Model]:
        if opened.again is not None:
            return opened.again
        if not any(_uses_context(pass_) for step in self.steps for pass_ in passes_of(step.pass_)):
            # Nobody can ask. A copy would cost seconds on a large graph.
            return lambda: copy_model(opened.model)
        untouched = copy_model(opened.model)
        return lambda: copy_model(untouched)

    def _write(self, model: ir.Model, report: RunReport, started: float, observers: Sequence[Observer]) -> None:
        with json_file(self.report) if self.report is not None else contextlib.nullcontext() as write_report:
            if self.output is not None:
                for observer in observers:
                    observer.output_started(self.output)
                report.output = write_model(model, self.output)
                for observer in observers:
                    observer.output_finished(report.output)
            report.seconds = time.perf_counter() - started
            if write_report is not None:
                write_report(report.to_json())


def _uses_context(pass_: ir.passes.PassBase) -> bool:
    return isinstance(pass_, ModelPass) and type(pass_).bind is not ModelPass.bind
