"""``mx-pipeline extract MODEL MODULE -o OUT``: one module call as a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def extract(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.", show_default=False)],
    module: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="Path of a module call, PATH@1 for the second one; or a glob over classes that one call fits.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The .onnx file to write.", show_default=False)
    ],
) -> None:
    """Write one module call of MODEL, with the weights it needs, as a model of its own; print what it takes and gives.

    MODEL has scopes: mx-pipeline run with the pass recover-scopes writes them.
    """
    from modelexport_passes.exporting.files import load, save
    from modelexport_passes.surgery.extract import extract as extract_module

    part = extract_module(load(model), module)
    save(part, output)
    for kind, values in (("input", part.graph.inputs), ("output", part.graph.outputs)):
        for value in values:
            typer.echo(f"{kind}\t{value.name}\t{value.dtype or '?'}\t{value.shape or '?'}")
