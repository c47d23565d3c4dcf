"""``recover-scopes``: every operation knows the module call it came from, or that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, VerificationError
from modelexport_passes.exporting.loading import load
from modelexport_passes.garbage import collector_paused
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.conflicts import Conflict, conflicts_of
from modelexport_passes.scopes.copying import copy_model
from modelexport_passes.scopes.fit import check_reference, fitting
from modelexport_passes.scopes.modules import PartOfModel, TorchModule, make_module
from modelexport_passes.scopes.recover import ScopeStats, SourceChoice, parameter_owners, recover, scope_stats
from modelexport_passes.scopes.scope import scope_of
from modelexport_passes.scopes.tags import METADATA_IR_VERSION
from modelexport_passes.scopes.walk import all_owned_nodes

_NOTED = 5


@dataclass(frozen=True, kw_only=True)
class RecoverScopes(ModelPass):
    """Find the module call that each operation came from.

    Sources, strongest first: what the export recorded, torch's metadata in the file, names of the TorchScript
    exporter, another file of the same model, the owners of parameters, the operations around (what runs between two
    operations of a module call runs in it). A scope that is already there is kept. What no source can tell stays
    unknown; it is counted and named, never given to the root.

    Visits: main graph and subgraphs. Function bodies keep the relative scopes they have.

    Attributes:
        source: ``auto`` for all of them, or the one to trust: ``metadata``, ``name`` or ``parameter``.
        module: the torch model, or ``package.module:function`` that makes it. It tells classes, modules that own no
            parameter, and whose a weight is that lost its name.
        reference: a file of the same model that tells scopes, such as a fresh plain export; or that model.
        min_coverage: the smallest share of operations, 0 to 1, whose scope must be known.
        max_unknown: the largest number of operations whose scope may be unknown.
        on_conflict: what to do when a scope and the owner of a parameter tell different modules: ``report`` it, or take
            it as an ``error``.

    Raises:
        VerificationError: ``min_coverage``, ``max_unknown`` or ``on_conflict`` does not hold. The scopes are written.
    """

    name: ClassVar[str] = "recover-scopes"

    source: SourceChoice = "auto"
    module: str | TorchModule | None = None
    reference: Path | ir.Model | None = None
    min_coverage: float | None = None
    max_unknown: int | None = None
    on_conflict: Literal["report", "error"] = "report"

    def __post_init__(self) -> None:
        """Refuse shares and numbers that no model can reach.

        Raises:
            ConfigError: naming the option.
        """
        if self.min_coverage is not None and not 0 <= self.min_coverage <= 1:
            raise ConfigError(f"recover-scopes: min_coverage {self.min_coverage}; expected a share from 0 to 1")
        if self.max_unknown is not None and self.max_unknown < 0:
            raise ConfigError(f"recover-scopes: max_unknown {self.max_unknown}; expected 0 or more")

    @collector_paused()
    def call(self, model: ir.Model) -> Outcome:
        """Recover, and count how each scope is known.

        Raises:
            ModelExportError: the module or the reference is not the model of the file.
            VerificationError: a limit is not kept.
        """
        module = make_module(self.module) if isinstance(self.module, str) else self.module
        reference = _with_scopes(self.reference)
        if module is not None:
            module = fitting(module, model.graph)
        if reference is not None:
            check_reference(reference.graph, model.graph)
        nodes = all_owned_nodes(model.graph)
        owners = parameter_owners(model.graph, module)
        modified = recover(
            model,
            source=self.source,
            module=module,
            reference=reference,
            owners=owners,
            everywhere=nodes,
        )
        for function in model.functions.values():
            nodes += all_owned_nodes(function)
        stats = scope_stats(nodes)
        conflicts = conflicts_of(nodes, owners)
        if modified and model.ir_version < METADATA_IR_VERSION:
            model.ir_version = METADATA_IR_VERSION
        self._check(stats, conflicts)
        return Outcome(
            model,
            modified,
            figures={
                "exact": stats.exact,
                "inferred": stats.inferred,
                "unknown": len(stats.unknown),
                "coverage": round(stats.coverage, 4),
                "conflicts": sum(conflict.operations for conflict in conflicts),
                "sources": {source.value: count for source, count in stats.by_source.items()},
                "conflicts_by_module": [
                    {
                        "module": conflict.module,
                        "source": conflict.source.value,
                        "owner": conflict.owner,
                        "operations": conflict.operations,
                    }
                    for conflict in conflicts
                ],
            },
            notes=[*_notes_of_fit(module), *_notes(stats, conflicts)],
        )

    def _check(self, stats: ScopeStats, conflicts: Sequence[Conflict]) -> None:
        failures: list[str] = []
        unknown = _some(stats.unknown)
        if self.min_coverage is not None and stats.coverage < self.min_coverage:
            failures.append(
                f"the scopes of {100 * stats.coverage:.2f} % of the operations are known, min_coverage asks for "
                f"{100 * self.min_coverage:.2f} %; unknown: {unknown}"
            )
        if self.max_unknown is not None and len(stats.unknown) > self.max_unknown:
            failures.append(f"{len(stats.unknown)} operations of unknown module, max_unknown allows {self.max_unknown}")
            failures[-1] += f": {unknown}"
        if self.on_conflict == "error" and conflicts:
            failures.append(f"{len(conflicts)} conflicts between sources: {_some(list(map(str, conflicts)), '; ')}")
        if failures:
            advice = "give the torch model (module) or another file of the model (reference), or lower the demand"
            raise VerificationError(f"recover-scopes: {'; '.join(failures)}. To know more, {advice}")


def _with_scopes(reference: Path | ir.Model | None) -> ir.Model | None:
    if reference is None:
        return None
    found = reference if isinstance(reference, ir.Model) else load(reference)
    if isinstance(reference, ir.Model) and any(scope_of(node) is not None for node in found.graph):
        return found
    if isinstance(reference, ir.Model):
        found = copy_model(reference)  # it is only looked at
    recover(found)
    return found


def _notes_of_fit(module: TorchModule | None) -> list[str]:
    if not isinstance(module, PartOfModel):
        return []
    return [f"the module is a part of the file's model, at {module.path!r}: what lies around it has no known class"]


def _notes(stats: ScopeStats, conflicts: Sequence[Conflict]) -> list[str]:
    notes: list[str] = []
    if stats.unknown:
        notes.append(f"{len(stats.unknown)} operations of unknown module: {_some(stats.unknown)}")
    if conflicts:
        notes.append(f"{len(conflicts)} conflicts between sources: {_some(list(map(str, conflicts)), '; ')}")
    return notes


def _some(names: Sequence[str], separator: str = ", ") -> str:
    return separator.join(names[:_NOTED]) + (f"{separator}..." if len(names) > _NOTED else "")
