"""Operations of a body that a call does without, as the original had constants for what they compute."""

from __future__ import annotations

import onnx_ir as ir

from modelexport_passes.scopes.ledger import Call
from modelexport_passes.scopes.walk import owned_nodes


def without_stand_ins(function: ir.Function, call: Call) -> Call:
    """What the ledger says of a call; if the body is no longer the one of which it was said, the call has stand-ins."""
    if not call.absent or _is_as_told(function, call):
        return call
    return Call(call.bases, call.scopes, call.origins)


def _is_as_told(function: ir.Function, call: Call) -> bool:
    """Whether what the call does without is read by nothing else, and all its constants are read instead of that."""
    absent = set(call.absent)
    told = {(name, int(at)) for name, inputs in call.constants.items() for at in inputs}
    found: set[tuple[str, int]] = set()
    for node in owned_nodes(function):
        name = str(node.name)
        for at, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            if producer is not None and producer.name in absent and name not in absent:
                found.add((name, at))
    return found == told
