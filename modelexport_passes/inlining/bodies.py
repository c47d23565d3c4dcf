"""The bodies of the functions that are written out, each looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from modelexport_passes.inlining.body import Body
from modelexport_passes.inlining.flat import Flat, flatten
from modelexport_passes.inlining.flat_copy import FlatCopies, Tags
from modelexport_passes.scopes.scope import Scope


class Bodies:
    """Bodies by function, as they stand and flat.

    Args:
        functions: those that are written out.
        tags: of the operations.
        is_special: tells whether something is particular to a call of this scope; None if there is no such call.
    """

    def __init__(
        self,
        functions: Mapping[ir.OperatorIdentifier, ir.Function],
        tags: Tags,
        is_special: Callable[[ir.Node, Scope | None], bool] | None,
    ) -> None:
        self._functions = functions
        self._tags = tags
        self._is_special = is_special
        self._bodies: dict[ir.OperatorIdentifier, Body] = {}
        self._flats: dict[ir.OperatorIdentifier, Flat | None] = {}
        self._copies: dict[ir.OperatorIdentifier, FlatCopies | None] = {}

    def __contains__(self, callee: ir.OperatorIdentifier) -> bool:
        """Whether the body was asked for before."""
        return callee in self._bodies

    def used(self) -> Iterable[ir.Function]:
        """The functions whose bodies were asked for."""
        return [body.function for body in self._bodies.values()]

    def body(self, callee: ir.OperatorIdentifier) -> Body:
        """The body of a function."""
        body = self._bodies.get(callee)
        if body is None:
            body = self._bodies[callee] = Body.of(self._functions[callee], self._functions)
        return body

    def copies(self, callee: ir.OperatorIdentifier) -> FlatCopies | None:
        """What writes calls of a function out in one go, from the second on; None if it must be done call by call."""
        if callee not in self._copies:
            flat = self._flat(callee)
            self._copies[callee] = None if flat is None else FlatCopies(flat, self._tags, self._is_special)
        return self._copies[callee]

    def _flat(self, callee: ir.OperatorIdentifier) -> Flat | None:
        if callee not in self._flats:
            body = self.body(callee)
            for part in body.parts:
                if part.callee is not None:
                    self._flat(part.callee)
            self._flats[callee] = flatten(body, self._flats, self._tags.keys)
        return self._flats[callee]
