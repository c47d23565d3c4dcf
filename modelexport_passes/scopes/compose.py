"""The scope of a node of a function body at one call of it."""

from __future__ import annotations

import onnx_ir as ir

from modelexport_passes.scopes.ledger import MODULE_KEY, Call
from modelexport_passes.scopes.relative import to_absolute
from modelexport_passes.scopes.scope import Scope, Source, parse_scope, scope_of


def scope_in_call(
    node: ir.Node, function: ir.Function, call: Scope | None, differs: Call, *, inside: bool = False
) -> Scope | None:
    """Call and body put together.

    Args:
        node: in the body of ``function``, or in a body inside of that.
        function: what is called.
        call: the scope of the call; None if unknown.
        differs: what the ledger says of the call.
        inside: the call itself lies in a body, and so does the result: it is relative, too.

    Returns:
        The scope; None if it is unknown. Bodies of other makers say nothing of modules: their operations run in the
        module that calls them.
    """
    particular = differs.scopes.get(node.name or "")
    if particular is not None:
        return parse_scope(particular) if particular else None
    scope = scope_of(node)
    if scope is not None and not scope.relative:
        return scope
    if call is None:
        return None
    if scope is None:
        return None if MODULE_KEY in function.metadata_props else call.with_source(Source.INHERITED)
    frames = to_absolute(scope.frames, call.frames, differs.bases, inside=inside)
    return Scope(frames, scope.source, relative=inside)
