"""``mx-pipeline show``: one pass and its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modelexport_passes.config.catalogue import PassInfo


def show(
    name: Annotated[str, typer.Argument(metavar="PASS", help="As in a pipeline file; package.module:Class works too.")],
    pass_dirs: Annotated[
        list[Path] | None, typer.Option("--pass-dir", metavar="DIR", help="Look in this directory too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a pass does and which options it takes."""
    from modelexport_passes.config.catalogue import describe_pass
    from modelexport_passes.registry import Registry

    info = describe_pass(Registry(pass_dirs or []).entry(name))
    if as_json:
        typer.echo(json.dumps(info.to_json(), indent=2))
    else:
        _print(info)


def _print(info: PassInfo) -> None:
    from rich.table import Table
    from rich.text import Text

    from modelexport_passes.config.catalogue import default_text
    from modelexport_passes.report.tables import console

    typer.echo(f"{info.name} ({info.owner})\n\n{info.doc}\n")
    if not info.options:
        typer.echo("No options.")
        return
    table = Table("option", "takes", "default", "meaning")
    for option in info.options:
        default = default_text(option)
        shown = "required" if default is None else default
        table.add_row(Text(option.name), Text(option.expected), Text(shown), Text(option.doc))
    console().print(table)
