"""``mx-pipeline diff A B ...``: models side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def diff(
    models: Annotated[
        list[Path], typer.Argument(metavar="A B [MORE]...", help="Two or more .onnx files.", show_default=False)
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare models: nodes, functions, initializers, tags, operation types. Each is compared with A."""
    if len(models) < 2:
        raise typer.BadParameter("one model given; expected two or more to compare")
    from modelexport_passes.exporting.files import load
    from modelexport_passes.report.diff import diff_models

    found = diff_models([(name, load(path)) for name, path in zip(_names(models), models, strict=True)])
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    from modelexport_passes.report.tables import console, diff_table

    console().print(diff_table(found))


def _names(paths: list[Path]) -> list[str]:
    """The files' names without what is common to all of their directories."""
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [str(path.absolute().relative_to(common)) for path in paths]
