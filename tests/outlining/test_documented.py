"""What docs/outlining.md shows is what there is: its examples are read as a pipeline file is."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

import modelexport_passes as mx

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "outlining.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_step_of_a_pipeline(example: str, tmp_path: Path) -> None:
    """Every option is known and of its type."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"version: 1\nsteps:\n{textwrap.indent(example, '  ')}", encoding="utf-8")
    assert len(mx.Pipeline.from_yaml(file).steps) == 1


def test_there_are_examples() -> None:
    """Of outlining, of state, of the way back."""
    assert len(EXAMPLES) >= 3
