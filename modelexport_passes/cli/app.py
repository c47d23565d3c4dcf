"""``mx-pipeline``: the verbs, imported when they are called, and what errors look like."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modelexport_passes import __version__
from modelexport_passes.errors import ModelExportError

VERBS = {
    "run": "Run a pipeline file: load or export, run each step, write the result.",
    "check": "Check a pipeline file; run nothing.",
    "list": "List the passes there are.",
    "show": "Show a pass and its options.",
    "inspect": "Show the modules, functions and operations of a model.",
    "diff": "Compare models: nodes, initializers, functions, operation types.",
    "extract": "Write one module call of a model as a model of its own.",
    "schema": "Print the JSON schema of pipeline files.",
}
"""Verb -> what it does, in the order of the help. Verb ``x`` is the function ``x`` of ``cli/x.py``."""

_FUNCTION = {"list": "list_passes"}
"""Verbs whose function has another name, because theirs means something in Python."""

INTERRUPTED = 130
TERMINATED = 143
"""As shells say that SIGTERM ended a process: 128 and its number."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM was received. It ends a run as an interrupt does: in order, with nothing half written."""


class VerbGroup(TyperGroup):
    """A group that imports a verb's file when the verb is called, so that ``--help`` imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in the order of the help."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a verb; None if there is no such verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"modelexport_passes.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name, help=VERBS[cmd_name])(getattr(module, _FUNCTION.get(cmd_name, cmd_name)))
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs' section of the help without importing them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; turn our errors into one message and an exit code."""
        try:
            return super().invoke(ctx)
        except ModelExportError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            terminated = isinstance(error, _Terminated)
            typer.echo("terminated" if terminated else "interrupted", err=True)
            raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from error


def print_error(error: ModelExportError) -> None:
    """Print an error to stderr. Problems of a file are printed as they are: ``file:line:column: ...``."""
    # Asked by name: importing the class would import pydantic and all of it for an error that may be another.
    located = type(error).__name__ == "ConfigFileError"
    typer.echo(str(error) if located else f"error: {error}", err=True)


app = typer.Typer(cls=VerbGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mx-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the Python traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep the modules of a torch model in its ONNX file: run passes over models, and look at them.

    Exit codes: 0 ok, 1 a step failed, 2 usage or configuration, 3 verification or parity failed, 4 something that is
    needed is not installed, 130 interrupted, 143 terminated.
    """
    del debug, version


def _terminate(number: int, frame: object) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough, and what it began shall end
    raise _Terminated


def main() -> None:
    """Entry point of ``mx-pipeline``."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(typer.main.get_command(app)(prog_name="mx-pipeline"))
