"""Making a module the root: what scopes, the ledger and functions say, told from inside one call of it, and back."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.ledger import CALLS_KEY, ORIGIN_KEY, Call, Ledger, read_ledger, write_ledger
from modelexport_passes.scopes.relative import Frames, to_relative
from modelexport_passes.scopes.scope import Frame, Scope, format_frames, format_scope, parse_scope, scope_of, set_scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.surgery.calls import stacks


def to_root(nodes: Iterable[ir.Node], class_name: str) -> None:
    """Scopes relative to a module become absolute ones, the module being the root."""
    for node in owned_nodes(nodes):
        scope = scope_of(node)
        if scope is not None and scope.relative:
            set_scope(node, Scope((Frame("", class_name), *scope.frames), scope.source))


def from_root(nodes: Iterable[ir.Node]) -> None:
    """The inverse of `to_root`: the root's frame goes, whatever its class."""
    for node in owned_nodes(nodes):
        scope = scope_of(node)
        if scope is not None and not scope.relative:
            set_scope(node, Scope(scope.frames[1:], scope.source, relative=True))


class Rooting:
    """One module call seen as the root of a model of its own.

    Args:
        model: the model that the call is in.
        call: the call.
        frames: its absolute scope.
    """

    def __init__(self, model: ir.Model, call: ir.Node, frames: Frames) -> None:
        self._ledger = read_ledger(model)
        self._frames = frames
        self._call = self._ledger.call(frames, call)

    def body(self, function: ir.Function) -> None:
        """Give the nodes of the body, which will be the main graph, the scopes that they have in this call."""
        class_name = self._frames[-1].class_name
        for node in owned_nodes(function):
            own = self._call.scopes.get(node.name or "")
            if own is not None:
                relative = self._relative(parse_scope(own)) if own else None
                set_scope(node, relative)
            node.metadata_props.pop(ORIGIN_KEY, None)
        to_root(function, class_name)

    def _relative(self, scope: Scope) -> Scope | None:
        frames = to_relative(scope.frames, self._frames, self._call.bases)
        return None if frames is None else Scope(frames, scope.source, relative=True)

    def functions(self, functions: Iterable[ir.Function]) -> None:
        """Rewrite what bodies say of modules elsewhere (``^path``): those below the new root lose its path."""
        for function in functions:
            for node in owned_nodes(function):
                node.metadata_props.pop(ORIGIN_KEY, None)
                scope = scope_of(node)
                if scope is not None and scope.relative and any(frame.path.startswith("^") for frame in scope.frames):
                    frames = tuple(
                        frame._replace(path=f"^{self._path(frame.path[1:])}") if frame.path.startswith("^") else frame
                        for frame in scope.frames
                    )
                    set_scope(node, Scope(frames, scope.source, relative=True))

    def _path(self, path: str) -> str:
        """A path from the old root, from the new one; ``^`` before one that does not lie below it."""
        own = self._frames[-1].path
        if path == own:
            return ""
        return path[len(own) + 1 :] if path.startswith(f"{own}.") else f"^{path}"

    def record(self, model: ir.Model) -> None:
        """Write the ledger, and the calls that functions serve, of the model that the call has become.

        That constants were one in the original graph is no longer of use: they stay copies.
        """
        ledger = Ledger()
        root = Frame("", self._frames[-1].class_name)
        for key, call in self._ledger.calls.items():
            text, bar, part = key.partition("|")
            frames = to_relative(parse_scope(f"export|{text}").frames, self._frames, self._call.bases)
            if frames:
                ledger.calls[f"{format_frames((root, *frames))}{bar}{part}"] = self._rebased(call, root)
        write_ledger(model, ledger)
        record_calls(model)

    def _rebased(self, call: Call, root: Frame) -> Call:
        bases = {self._path(path): base - self._call.bases.get(path, 0) for path, base in call.bases.items()}
        scopes: dict[str, str] = {}
        for name, text in call.scopes.items():
            scope = self._relative(parse_scope(text)) if text else None
            scopes[name] = "" if scope is None else format_scope(Scope((root, *scope.frames), scope.source))
        return Call({path: base for path, base in bases.items() if base}, scopes)


def record_calls(model: ir.Model) -> None:
    """Write on each function of a module which module calls it serves."""
    served: dict[ir.Function, dict[str, None]] = {}
    for frames, _, function in stacks(model):
        if function is not None:
            served.setdefault(function, {})[str(frames[-1])] = None
    for function, calls in served.items():
        function.metadata_props[CALLS_KEY] = as_text(list(calls))
