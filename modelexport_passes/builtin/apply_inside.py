"""``apply-inside``: any pass, run within the bodies of functions."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import ModelPass, Outcome, RunContext
from modelexport_passes.scopes.ledger import MODULE_KEY
from modelexport_passes.scopes.tags import retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes, owned_nodes
from modelexport_passes.surgery.body import drop_uncalled, fingerprint, reachable
from modelexport_passes.surgery.inside import Inside, apply_inside, take_over
from modelexport_passes.surgery.rooting import record_calls
from modelexport_passes.surgery.upkeep import LedgerUpkeep

_OWN_FUNCTIONS = frozenset({"outline", "inline", "replace", "apply-inside", "recover-scopes"})
"""Passes that work on functions themselves, or on the whole model."""


@dataclass(frozen=True, kw_only=True)
class ApplyInside(ModelPass):
    """Run a pass on the body of each function, as if it were a model with the function's inputs and outputs.

    Before -> after, with a pass that merges two Negs::

        Block(input_0, fc.weight)            Block(input_0, fc.weight)
          Neg, Neg, MatMul                     MatMul

    Tools that see the main graph alone reach the bodies so, and a body that is shared is worked on once. Weights are
    inputs there: nothing can be computed from them. Signatures stay: a pass that changes one is an error, outputs that
    it made equal or an input get an Identity, initializers that it made become constants. Functions that take
    attributes have no body that could run by itself; they are left alone, with a note. If the pass fails in one
    function, the model is as it was.

    Visits: functions.

    Attributes:
        apply: the pass to run.
        modules: ``all``, or globs over what a function is: its module's qualified class, or ``domain.name``.
    """

    name: ClassVar[str] = "apply-inside"

    apply: ir.passes.PassBase
    modules: Literal["all"] | list[str] = "all"

    def __post_init__(self) -> None:
        if isinstance(self.modules, str) and self.modules != "all":
            raise ConfigError(
                f"apply-inside: modules {self.modules!r}; expected 'all' or a list of globs over class names"
            )
        for pass_ in _leaves(self.apply):
            if isinstance(pass_, ModelPass) and pass_.name in _OWN_FUNCTIONS:
                raise ConfigError(f"apply-inside: {pass_.name} works on functions itself; run it as a step of its own")

    def bind(self, context: RunContext) -> Self:
        """Bind the pass inside, too."""
        inner = self.apply
        return dataclasses.replace(self, apply=inner.bind(context)) if isinstance(inner, ModelPass) else self

    def call(self, model: ir.Model) -> Outcome:
        """Run the pass in each function, then put all the new bodies in."""
        chosen = [function for function in model.functions.values() if self._selects(function)]
        skipped = [function for function in chosen if function.attributes]
        notes = [f"left alone, as it takes attributes: {function.domain}::{function.name}" for function in skipped]
        insides: list[Inside] = []
        visited = [function for function in chosen if not function.attributes]
        for function in visited:
            inside = apply_inside(model, function, self.apply)
            notes += inside.notes
            retag(owned_nodes(inside.function), tag_templates(model))
            if fingerprint(inside.function) != fingerprint(function):
                insides.append(inside)
        before = sum(len(function) for function in model.functions.values())
        if insides:
            self._put_in(model, insides)
        after = sum(len(function) for function in model.functions.values())
        figures = {"functions": len(visited), "changed": len(insides), "operations": f"{before} -> {after}"}
        return Outcome(model, bool(insides), figures=dict(figures), notes=notes)

    def _put_in(self, model: ir.Model, insides: list[Inside]) -> None:
        upkeep, called = LedgerUpkeep(model), reachable(model)
        for inside in insides:
            take_over(model, inside)
        drop_uncalled(model, called)
        upkeep.follow({inside.function.identifier(): inside.kept for inside in insides})
        record_calls(model)
        retag(all_nodes(model), tag_templates(model))

    def _selects(self, function: ir.Function) -> bool:
        if self.modules == "all":
            return True
        names = (function.metadata_props.get(MODULE_KEY, ""), f"{function.domain}.{function.name}")
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.modules for name in names if name)


def _leaves(pass_: ir.passes.PassBase) -> Iterator[ir.passes.PassBase]:
    """The passes of a composite, at any depth; the pass itself if it is none."""
    if isinstance(pass_, ir.passes.Sequential):
        for child in pass_.passes:
            yield from _leaves(child)
    else:
        yield pass_
