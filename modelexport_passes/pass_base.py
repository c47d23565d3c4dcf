"""The base of our passes: an ``onnx_ir`` in-place pass whose fields are its options and whose result has figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

import onnx_ir as ir

if TYPE_CHECKING:
    from modelexport_passes.exporting.record import ExportRecord

Figure = int | float | str | bool | None | list["Figure"] | dict[str, "Figure"]


@dataclasses.dataclass(repr=False)
class Outcome(ir.passes.PassResult):
    """What a pass did, for the run report.

    Attributes:
        figures: JSON-able facts; the scalar ones are the columns of the terminal table.
        notes: one line each for what a person should know (what could not be done, and why).
    """

    figures: dict[str, Figure] = dataclasses.field(default_factory=dict[str, Figure])
    notes: list[str] = dataclasses.field(default_factory=list[str])

    def __repr__(self) -> str:
        """Without the model, which a terminal would show in full: every node and every weight."""
        return f"Outcome(modified={self.modified}, figures={self.figures}, notes={self.notes})"


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What a pipeline knows and a single pass does not.

    Attributes:
        input_model: gives a fresh, untouched copy of the pipeline's input at each call.
        export: what was recorded when the pipeline's input was exported from torch; None for an .onnx input.
    """

    input_model: Callable[[], ir.Model]
    export: ExportRecord | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPass(ir.passes.InPlacePass):
    """A pass of ours: a frozen, keyword-only dataclass. Its fields are its options, in Python and in YAML.

    Runs alone (``InjectTags()(model)``), inside ``onnx_ir.passes.Sequential``, or as a pipeline step. ``call`` returns
    an `Outcome`; run state stays local to the call.
    """

    name: ClassVar[str]

    def bind(self, context: RunContext) -> Self:
        """The same pass with what only the pipeline knows filled in; called by the engine before the step runs."""
        del context
        return self
