"""``as_strided`` of tensors whose elements do not lie in the order of their axes, such as transposed ones.

torch reads the memory behind a tensor there, and its translation takes that to be the tensor flattened. Where it is
not, the graph would be wrong without a word; so the axes are put in the order of the memory first.
"""

from __future__ import annotations

from typing import Any

import torch

from modelexport_passes.errors import ModelExportError

_AS_STRIDED = torch.ops.aten.as_strided.default
_ARGUMENTS = ("self", "size", "stride", "storage_offset")


def in_order_of_memory(program: torch.export.ExportedProgram) -> bool:
    """Transpose what is read by ``as_strided`` to the order in which its elements lie, in place; says whether any was.

    Raises:
        ModelExportError: it is a part of something larger, which a graph cannot reach from there.
    """
    graph = program.graph
    changed = False
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is _AS_STRIDED:
            changed = _put_in_order(graph, node) or changed
    if changed:
        graph.lint()
        program.graph_module.recompile()
    return changed


def _put_in_order(graph: torch.fx.Graph, node: torch.fx.Node) -> bool:
    given: dict[str, Any] = {**dict(zip(_ARGUMENTS, node.args, strict=False)), **node.kwargs}
    read, offset = given["self"], given.get("storage_offset")
    tensor: torch.Tensor = read.meta["val"]
    begins = tensor.storage_offset()
    if tensor.is_contiguous() and (offset is None or begins == 0):
        return False
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    if not tensor.permute(order).is_contiguous() or (offset is not None and offset < begins):
        what = f"{node.name} reads the memory around {read.name}, a part of a larger tensor"
        raise ModelExportError(f"as_strided: {what}; a graph has no such memory")
    with graph.inserting_before(node):
        turned = graph.call_function(torch.ops.aten.permute.default, (read, order))
        # A memory of its own, which begins at 0: the program stays one that torch itself can run.
        copied = graph.call_function(
            torch.ops.aten.clone.default, (turned,), {"memory_format": torch.contiguous_format}
        )
    turned.meta = {**node.meta, "val": tensor.permute(order)}
    copied.meta = {**node.meta, "val": tensor.permute(order).clone(memory_format=torch.contiguous_format)}
    node.args = (copied, given["size"], given["stride"], *([] if offset is None else [offset - begins]))
    node.kwargs = {}
    return True
