"""The default domain has two names, and is kept under one."""

from __future__ import annotations

import onnx_ir as ir

_LONG_NAME = "ai.onnx"


def name_default_domain(model: ir.Model) -> None:
    """Import the default domain by its short name everywhere: nodes have that one, whatever the file says."""
    for holder in (model.graph, *model.functions.values()):
        version = holder.opset_imports.pop(_LONG_NAME, None)
        if version is not None:
            holder.opset_imports.setdefault("", version)
