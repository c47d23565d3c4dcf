"""``inline``: calls of local functions become the operations of their bodies again."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.garbage import collector_paused
from modelexport_passes.inlining.inline import count_calls, inline
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.ledger import MODULE_KEY
from modelexport_passes.scopes.scope import Scope


@dataclass(frozen=True, kw_only=True)
class Inline(ModelPass):
    """Replace calls of local functions by what the functions do; the inverse of ``outline``.

    Before -> after::

        Block(x, layers.0.query.weight)      MatMul  layers.0.query
        Block(input_0, query.weight)
          MatMul  query

    Each operation gets the scope that its call and its place in the body make up, tags follow, and constants that
    outlining gave to every body become one again. Names in the body of the first call come back as they were; those
    of further calls are prefixed with the call's name. Functions made by others work the same way: their operations
    take the scope of the call.

    Visits: main graph, subgraphs, functions (the calls in functions that stay).

    Attributes:
        modules: ``all``, or globs over what a function is: its module's qualified class, or ``domain.name``.
        paths: globs over module paths: only these calls; a function stays while others call it.
        depth: only calls of modules at most so deep below the root (1: its children). Where a call is, its scope says:
            one whose scope is unknown stays, and so do those in functions that stay.
        max_nodes: only functions of at most so many operations, calls counted as one.
        max_calls: only functions that are called at most so often.
    """

    name: ClassVar[str] = "inline"

    modules: Literal["all"] | list[str] = "all"
    paths: list[str] | None = None
    depth: int | None = None
    max_nodes: int | None = None
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.modules, str) and self.modules != "all":
            raise ConfigError(f"inline: modules {self.modules!r}; expected 'all' or a list of globs over class names")
        for option in ("depth", "max_nodes", "max_calls"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ConfigError(f"inline: {option} {value}; expected 1 or more")

    def call(self, model: ir.Model) -> Outcome:
        """Inline the selected functions, wherever they are called."""
        before = len(model.graph)
        with collector_paused():
            calls = count_calls(model)
            wanted = None if self.paths is None and self.depth is None else self._wants
            result = inline(model, lambda function: self._selects(function, calls[function.identifier()]), wanted)
        figures = {
            "functions": len(result.functions),
            "calls": result.calls,
            "main_graph": f"{before} -> {len(model.graph)}",
        }
        return Outcome(model, bool(result.calls or result.functions), figures=dict(figures))

    def _wants(self, scope: Scope | None) -> bool:
        if scope is None or scope.relative:
            return False
        if self.depth is not None and len(scope.frames) - 1 > self.depth:
            return False
        return self.paths is None or any(fnmatch.fnmatchcase(scope.path, glob) for glob in self.paths)

    def _selects(self, function: ir.Function, calls: int) -> bool:
        if self.max_nodes is not None and len(function) > self.max_nodes:
            return False
        if self.max_calls is not None and calls > self.max_calls:
            return False
        if self.modules == "all":
            return True
        names = (function.metadata_props.get(MODULE_KEY, ""), f"{function.domain}.{function.name}")
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.modules for name in names if name)
