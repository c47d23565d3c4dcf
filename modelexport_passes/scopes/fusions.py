"""Operations that an exporter's optimizer made of several: whose they are, and what they were made from.

A convolution that took in the norm behind it carries the norm's metadata. It is still the convolution: the owner of its
kernel is its module, and both are kept as its origins.
"""

from __future__ import annotations

import onnx_ir as ir

from modelexport_passes.scopes.origins import ORIGINS_KEY, format_origins
from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame, Scope

RULE_NAME = "pkg.onnxscript.rewriter.rule_name"
"""Metadata key of the rewrite rule that made an operation of others."""

_NORM_RULE = "FuseBatchNormInto"


def fused_kernel(node: ir.Node) -> ir.Value | None:
    """The kernel of an operation into which a norm was fused; None for any other operation."""
    if _NORM_RULE not in node.metadata_props.get(RULE_NAME, "") or len(node.inputs) < 2:
        return None
    return node.inputs[1]


def frames_of_owner(frames: tuple[Frame, ...], owner: str) -> tuple[Frame, ...]:
    """The stack of a neighbour's operation with the module ``owner`` in the neighbour's place; its class is unknown."""
    above = tuple(frame for frame in frames if not frame.path or owner.startswith(frame.path + "."))
    return (*above, Frame(owner, UNKNOWN_CLASS))


def keep_origins(node: ir.Node, scope: Scope, other: Scope) -> None:
    """Note on an operation with this scope that it was made from one of ``other`` as well."""
    text = format_origins(scope, [scope, other])
    if text is not None:
        node.metadata_props[ORIGINS_KEY] = text
