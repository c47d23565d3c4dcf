"""``mx-pipeline check``: is a pipeline file right?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from modelexport_passes.cli.overrides import read_overrides


def check(
    file: Annotated[Path, typer.Argument(help="The pipeline file.")] = Path("pipeline.yaml"),
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as in run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Check a pipeline file: its form, the passes it names, their options, the files it reads. Runs nothing."""
    overrides = read_overrides(sets or [])
    from modelexport_passes.config.pipeline_file import load_pipeline

    config = load_pipeline(file, overrides)
    if as_json:
        steps = [{"id": step.id, "pass": step.pass_name, "with": step.options} for step in config.steps]
        typer.echo(json.dumps({"file": str(file), "steps": steps}, indent=2))
    else:
        typer.echo(f"{file}: ok, {len(config.steps)} steps: {', '.join(step.id for step in config.steps)}")
