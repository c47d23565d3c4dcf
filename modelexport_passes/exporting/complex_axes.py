"""Axes of one element before, in or behind complex numbers: torch's exporter adds them to real tensors only.

What it does translate for complex numbers is ``stack``, which of one tensor is the same.
"""

from __future__ import annotations

from typing import Any

import torch

_UNSQUEEZE = torch.ops.aten.unsqueeze.default
_STACK = torch.ops.aten.stack.default


def add_complex_axes_by_stack(program: torch.export.ExportedProgram) -> bool:
    """Write ``unsqueeze`` of complex tensors as ``stack`` of one, in place; says whether there was any."""
    changed = False
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target is _UNSQUEEZE and _is_complex(node.args[0]):
            node.target, node.args = _STACK, ([node.args[0]], *node.args[1:])
            changed = True
    if changed:
        program.graph.lint()
        program.graph_module.recompile()
    return changed


def _is_complex(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return isinstance(value, torch.Tensor) and value.is_complex()
