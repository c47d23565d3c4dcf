"""What there is to know of how a file was read, kept in memory with the model (``model.meta``), never saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

_KEY = "modelexport_passes.reading_notes"


def reading_notes(model: ir.Model) -> list[str]:
    """A line for each; none for a model that was not read from a file, or of which there is nothing to say."""
    notes = cast("object", model.meta.get(_KEY))  # pyright: ignore[reportUnknownMemberType]
    return list(cast("Sequence[str]", notes)) if isinstance(notes, tuple) else []


def set_reading_notes(model: ir.Model, notes: Sequence[str]) -> None:
    """Keep notes with a model."""
    if notes:
        model.meta[_KEY] = tuple(notes)
