"""``mx-pipeline schema``: the JSON schema of pipeline files."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON schema of pipeline files, for editors that complete and check YAML by one."""
    from modelexport_passes.config.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
