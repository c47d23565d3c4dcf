"""Random numbers as 0, in torch and in a graph: a model that draws them (a voice's noise) is compared without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_DRAWING = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})

_aten = torch.ops.aten
_DRAWN_LIKE = (_aten.randn_like.default, _aten.rand_like.default)
_DRAWN = (_aten.randn.default, _aten.rand.default)


def silence(model: ir.Model) -> int:
    """Let operations that draw numbers give 0, in place; says how many there are.

    No distribution will do: onnxruntime aborts the process at one without a width, and a narrow one has signs.
    """
    found = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.op_type in _DRAWING]
    for node in found:
        like = node.inputs[0] if node.inputs else None
        kind = node.attributes.get_int("dtype", 0) or (like.dtype if like is not None else None)
        zero = ir.tensor([0.0], dtype=ir.DataType(kind or ir.DataType.FLOAT))
        tape = ir.tape.Tape()
        if like is not None:
            shape = tape.op("Shape", [like])
        else:
            shape = tape.op("Constant", [], {"value_ints": node.attributes["shape"].as_ints()})
        drawn = tape.op("ConstantOfShape", [shape], {"value": zero}, name=node.name)
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], tape.nodes, node.outputs, [drawn])
    return len(found)


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
