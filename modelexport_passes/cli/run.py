"""``mx-pipeline run``: run a pipeline file."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelexport_passes.cli.overrides import read_overrides

if TYPE_CHECKING:
    from modelexport_passes.pipeline.pipeline import Pipeline, RunResult


def run(
    file: Annotated[Path, typer.Argument(help="The pipeline file.")] = Path("pipeline.yaml"),
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override: steps.tags.with.key=x. Repeatable."),
    ] = None,
    model: Annotated[Path | None, typer.Option("--input", "-i", help="Run on this .onnx file instead.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the model here instead.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the JSON report here instead.")] = None,
    save_after: Annotated[
        Path | None, typer.Option("--save-after", metavar="DIR", help="Save the model after each step that changed it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, not as a table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Run a pipeline file."""
    overrides = read_overrides(sets or [])
    from modelexport_passes.pipeline.pipeline import Pipeline

    pipeline = Pipeline.from_yaml(file, overrides)
    pipeline.output = output or pipeline.output
    pipeline.report = report or pipeline.report
    result = _run(pipeline, model, save_after, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(result.report.to_json(), indent=2))
    elif not quiet:
        _print(result)


def _run(pipeline: Pipeline, model: Path | None, save_after: Path | None, *, quiet: bool) -> RunResult:
    from modelexport_passes.cli.progress import ProgressBar
    from modelexport_passes.pipeline.observer import Observer, SaveAfter

    observers: list[Observer] = [] if save_after is None else [SaveAfter(save_after)]
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty() and not quiet:
            observers.append(stack.enter_context(ProgressBar(len(pipeline.steps))))
        # stdout is for the result; exporters and simplifiers print there as they please.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        return pipeline.run(model, observers=observers)


def _print(result: RunResult) -> None:
    from modelexport_passes.report.tables import console, run_table

    report = result.report
    console().print(run_table(report))
    for note in report.input.notes:
        typer.echo(f"input: {note}")
    for step in report.steps:
        for note in step.notes:
            typer.echo(f"{step.id}: {note}")
