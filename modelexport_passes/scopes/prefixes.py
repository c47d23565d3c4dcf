"""What another tool wrote before every name of a model: ``onnx.compose.add_prefix``, or one that inlines models.

Names of TorchScript's exporter begin with a slash: ``m1_/encoder/MatMul`` had a prefix put before it. Other exporters
write slashes as well; this one alone names a result after its operation, ``m1_/encoder/MatMul_output_0``.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def common_prefix(nodes: Iterable[ir.Node], initializers: Iterable[str]) -> str:
    """The prefix before all names of TorchScript's exporter; empty if there is none, or more than one could be.

    Args:
        nodes: of the main graph.
        initializers: their names.
    """
    found: str | None = None
    for node in nodes:
        name = node.name
        if not name or "/" not in name:
            continue
        if name[0] == "/":
            return ""
        if not _torchscript(node, name):
            continue
        prefix = name[: name.index("/")]
        prefix += "/" * name.startswith("//", len(prefix))
        if found is None:
            found = prefix
        elif found != prefix:
            return ""
    # A parameter has no slash in its name: one behind the prefix shows that the prefix is a longer one.
    if found is None or any(_goes_on(name, found) for name in initializers):
        return ""
    return found


def _torchscript(node: ir.Node, name: str) -> bool:
    return name[name.rindex("/") + 1 :].startswith(node.op_type) and any(
        value.name == f"{name}_output_{place}" for place, value in enumerate(node.outputs)
    )


def _goes_on(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "/" in name[len(prefix) :] and "_output_" not in name and "." in name
