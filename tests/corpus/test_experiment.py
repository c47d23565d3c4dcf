"""The table in docs/experiment.md is what the example prints today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURED = "Largest difference from torch"
"""The one row that depends on the processor."""


def rows(text: str) -> list[str]:
    """The table's lines, without the row that differs from machine to machine."""
    return [line for line in text.splitlines() if line.startswith("|") and MEASURED not in line]


def test_the_table_in_the_docs_is_current() -> None:
    """Every number in docs/experiment.md is what `python examples/modules_as_functions.py --markdown` prints."""
    command = [sys.executable, "examples/modules_as_functions.py", "--markdown"]
    finished = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert rows((ROOT / "docs" / "experiment.md").read_text(encoding="utf-8")) == rows(finished.stdout)
