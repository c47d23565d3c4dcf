"""``recover-scopes``: every operation knows the module call it came from, or that it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from modelexport_passes.builtin.inject_tags import METADATA_IR_VERSION
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.modules import module_classes
from modelexport_passes.scopes.recover import SourceChoice, recover, scope_stats
from modelexport_passes.scopes.walk import all_nodes

if TYPE_CHECKING:
    import torch

_NOTED = 5


@dataclass(frozen=True, kw_only=True)
class RecoverScopes(ModelPass):
    """Find the module call that each operation came from.

    Sources, strongest first: what the export recorded, torch's metadata in the file, names of the TorchScript
    exporter, the operations around (an operation that only one module uses is that module's). A scope that is already
    there is kept. What no source can tell stays unknown; it is counted and named, never given to the root.

    Visits: main graph and subgraphs. Function bodies keep the relative scopes they have.

    Attributes:
        source: ``auto`` for all of them, or the one to trust: ``metadata`` or ``name``.
    """

    name: ClassVar[str] = "recover-scopes"

    source: SourceChoice = "auto"
    module: torch.nn.Module | None = None

    def call(self, model: ir.Model) -> Outcome:
        """Recover, and count how each scope is known."""
        classes = None if self.module is None else module_classes(self.module)
        modified = recover(model, source=self.source, classes=classes)
        stats = scope_stats(all_nodes(model))
        if modified and model.ir_version < METADATA_IR_VERSION:
            model.ir_version = METADATA_IR_VERSION
        notes: list[str] = []
        if stats.unknown:
            some = ", ".join(stats.unknown[:_NOTED]) + (", ..." if len(stats.unknown) > _NOTED else "")
            notes.append(f"{len(stats.unknown)} operations of unknown module: {some}")
        return Outcome(
            model,
            modified,
            figures={
                "exact": stats.exact,
                "inferred": stats.inferred,
                "unknown": len(stats.unknown),
                "sources": {source.value: count for source, count in stats.by_source.items()},
            },
            notes=notes,
        )
