"""``mx-pipeline list``: the passes there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelexport_passes.errors import ModelExportError

if TYPE_CHECKING:
    from modelexport_passes.registry import PassEntry


def list_passes(
    pass_dirs: Annotated[
        list[Path] | None, typer.Option("--pass-dir", metavar="DIR", help="List the passes of this directory too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the catalogue with all options.")] = False,
) -> None:
    """List built-in passes, plug-ins, and passes of directories; one that cannot be imported with the reason."""
    from modelexport_passes.config.catalogue import describe_pass, markdown
    from modelexport_passes.registry import Registry

    entries = Registry(pass_dirs or []).entries()
    if as_markdown:
        typer.echo(markdown([describe_pass(entry) for entry in entries]), nl=False)
    elif as_json:
        rows = [{"name": entry.name, "owner": entry.owner, "summary": _summary(entry)} for entry in entries]
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(entries)


def _summary(entry: PassEntry) -> str:
    from modelexport_passes.config.catalogue import describe_pass

    try:
        return describe_pass(entry).summary
    except ModelExportError as error:  # one broken plug-in must not hide the others
        return f"cannot be used: {error}"


def _print_table(entries: list[PassEntry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from modelexport_passes.report.tables import console

    table = Table("pass", "owner", "what it does")
    for entry in entries:
        table.add_row(Text(entry.name), Text(entry.owner), Text(_summary(entry)))
    console().print(table)
