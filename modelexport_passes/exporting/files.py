"""Loading and saving .onnx files: ``mx.load`` and ``mx.save``.

Weights of any size stay on disk: external data is mapped, never read as a whole, and copied by the kernel when a model
moves to another directory. A save is atomic, and a load refuses what would be lost.
"""

from __future__ import annotations

from modelexport_passes.exporting.data_files import DATA_SUFFIX
from modelexport_passes.exporting.loading import load
from modelexport_passes.exporting.saving import INLINE_LIMIT, save

__all__ = ["DATA_SUFFIX", "INLINE_LIMIT", "load", "save"]
