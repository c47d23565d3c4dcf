"""Carrying scopes across a tool that drops metadata: the names of values survive where nodes do not."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.scope import Scope, scope_of, set_scope
from modelexport_passes.scopes.walk import owned_nodes


def scopes_by_value(model: ir.Model) -> dict[str, Scope]:
    """The name of each value -> the scope of the operation that makes it. Main graph and subgraphs."""
    return {
        value.name: scope
        for node in owned_nodes(model.graph)
        if (scope := scope_of(node)) is not None
        for value in node.outputs
        if value.name
    }


def restore_scopes(model: ir.Model, scopes: Mapping[str, Scope]) -> int:
    """Give nodes without a scope the one that made a value of the same name before; then infer the rest.

    Returns how many nodes had theirs restored by name.
    """
    restored = 0
    for node in owned_nodes(model.graph):
        if scope_of(node) is not None:
            continue
        scope = next((scopes[name] for value in node.outputs if (name := str(value.name)) in scopes), None)
        if scope is not None:
            set_scope(node, scope)
            restored += 1
    recover(model)
    return restored
