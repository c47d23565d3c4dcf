"""The bases of the passes that run other people's tools."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import get_args

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.tools.apply import apply_tool, figures
from modelexport_passes.tools.tool import OnFunctions, Tool


@dataclass(frozen=True, kw_only=True)
class ToolPass(ModelPass):
    """A pass that is somebody else's tool, with scopes and tags carried across (``docs/tools.md``)."""

    @abstractmethod
    def tool(self) -> Tool:
        """The tool, with its options set.

        Raises:
            MissingDependencyError: it is not installed.
        """

    def call(self, model: ir.Model) -> Outcome:
        """Run the tool; say how each operation got its scope."""
        return self._apply(model, "error")

    def _apply(self, model: ir.Model, on_functions: OnFunctions) -> Outcome:
        applied = apply_tool(model, self.tool(), on_functions)
        counts = {name: value for name, value in figures(applied.counts).items() if value or name == "unknown"}
        return Outcome(model, applied.modified, figures=dict(counts), notes=applied.notes)


@dataclass(frozen=True, kw_only=True)
class GuardedToolPass(ToolPass):
    """A tool that does harm to local functions, which is said before it runs.

    Attributes:
        on_functions: when the model has local functions: ``error`` says what the tool would do to them, ``inline``
            inlines them first, ``run`` lets it have them.
    """

    on_functions: OnFunctions = "error"

    def __post_init__(self) -> None:
        if self.on_functions not in get_args(OnFunctions):
            raise ConfigError(f"{self.name}: on_functions {self.on_functions!r}; expected error, inline or run")

    def call(self, model: ir.Model) -> Outcome:
        """Guard, then run the tool."""
        return self._apply(model, self.on_functions)
