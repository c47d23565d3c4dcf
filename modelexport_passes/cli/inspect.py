"""``mx-pipeline inspect MODEL``: the module tree of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.", show_default=False)],
    *,
    nodes: Annotated[bool, typer.Option("--nodes", help="List the operations of each module.")] = False,
    depth: Annotated[int | None, typer.Option(min=0, help="Show this many levels below the root.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the modules of MODEL: operations, parameters, functions and their calls."""
    from modelexport_passes.exporting.files import load
    from modelexport_passes.report.tree import module_tree

    loaded = load(model)
    tree = module_tree(loaded)
    if as_json:
        typer.echo(json.dumps(tree.to_json(nodes=nodes, depth=depth), indent=2))
        return
    from modelexport_passes.report.tables import console, function_table, module_tree_view

    out = console()
    out.print(module_tree_view(tree, nodes=nodes, depth=depth))
    if tree.functions:
        out.print(function_table(tree.functions))
