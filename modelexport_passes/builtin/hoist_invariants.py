"""``hoist-invariants``: what every call of a function computes alike is computed once, in front of the calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from modelexport_passes.inlining.inline import check_no_recursion
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.tags import retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes, owned_nodes
from modelexport_passes.surgery.hoist import hoist_invariants
from modelexport_passes.surgery.invariants import MAIN, Calls
from modelexport_passes.surgery.rooting import record_calls
from modelexport_passes.surgery.upkeep import LedgerUpkeep


@dataclass(frozen=True, kw_only=True)
class HoistInvariants(ModelPass):
    """Compute what is the same in every call of a repeated block once, outside, and pass it to the calls.

    Before -> after::

        Block(x, mask, weight_0)             m = Not(mask); b = Where(m, ...)
        Block(y, mask, weight_1)             Block(x, b, weight_0)
                                             Block(y, b, weight_1)
        Block(input_0, mask, weight)         Block(input_0, b, weight)
          m = Not(mask); b = Where(m, ...)     Add(..., b)
          Add(..., b)

    Rotary tables, masks and position ids leave the repeated body so. An operation leaves a function if it depends on
    nothing but constants, and inputs for which every call passes one and the same value; it goes as far out as those
    values reach, if the function runs more than once there. Constants, small shapes and axes stay where they are used.
    What is random, owns bodies, or is called in the body of an If, Loop or Scan stays. Results become inputs of the
    function, behind its activations; inputs that nothing reads any more go. Values stay equal to the bit.

    The operations that leave have the scope that they had in the first call; those of the other calls are gone, so
    ``inline`` does not bring them back. The model has functions: run ``outline`` first. In a flat model nothing can
    move: there, scopes say where an operation came from, and ``outline`` decides where it is placed.

    Visits: functions and the places of their calls.
    """

    name: ClassVar[str] = "hoist-invariants"

    def call(self, model: ir.Model) -> Outcome:
        """Hoist, from the innermost functions outwards."""
        if not model.functions:
            return Outcome(model, False, notes=["the model has no functions; outline makes functions of modules"])
        check_no_recursion(model)
        before = _runs(model)
        upkeep = LedgerUpkeep(model)
        hoisted = hoist_invariants(model)
        if hoisted.functions:
            kept = {
                key: {str(node.name): str(node.name) for node in owned_nodes(model.functions[key])}
                for key in hoisted.functions
            }
            upkeep.follow(kept)
            record_calls(model)
            retag(all_nodes(model), tag_templates(model))
        figures = {
            "functions": len(hoisted.functions),
            "operations": hoisted.operations,
            "executed": f"{before} -> {_runs(model)}",
        }
        return Outcome(model, bool(hoisted.functions), figures=dict(figures))


def _runs(model: ir.Model) -> int:
    """How many operations run in one run of the model, not counting the calls themselves."""
    runs = Calls(model).runs(MAIN)
    places = {MAIN: model.graph, **model.functions}
    return sum(
        count * sum(node.op_identifier() not in model.functions for node in places[place])
        for place, count in runs.items()
    )
