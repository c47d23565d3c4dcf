"""Random numbers as 0, in torch and in a graph: a model that draws them (a voice's noise) is compared without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_BOUNDS = {"RandomNormal": ("scale",), "RandomUniform": ("high",)}
"""Operator -> the attribute that makes it draw 0 everywhere; mean and lower bound are 0 as exporters write them."""

_SMALL = 1e-30
"""Of float32 as good as 0, at which onnxruntime aborts the process (a distribution without a width)."""

_aten = torch.ops.aten
_DRAWN_LIKE = (_aten.randn_like.default, _aten.rand_like.default)
_DRAWN = (_aten.randn.default, _aten.rand.default)


def silence(model: ir.Model) -> int:
    """Let operations that draw numbers give 0, in place; says how many there are."""
    found = 0
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for name in _BOUNDS.get(node.op_type.removesuffix("Like"), ()):
            node.attributes[name] = ir.AttrFloat32(name, _SMALL)
            found += 1
    return found


class Silent(TorchDispatchMode):
    """While it is in force, torch draws 0."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator, or make zeros of the shape that it would give."""
        del types
        if func in _DRAWN_LIKE:
            return torch.zeros_like(args[0], dtype=(kwargs or {}).get("dtype"))
        if func in _DRAWN:
            return torch.zeros(*args, dtype=(kwargs or {}).get("dtype"))
        return func(*args, **(kwargs or {}))
