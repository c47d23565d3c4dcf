"""Keeping the ledger true while bodies of functions change."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from modelexport_passes.scopes.ledger import call_key, part_of, read_ledger, write_ledger
from modelexport_passes.surgery.calls import stacks


class LedgerUpkeep:
    """Remembers which call is of which function, before bodies change.

    Args:
        model: the model as it is before.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._needed = bool(read_ledger(model).calls)
        self._functions = self._calls() if self._needed else {}

    def _calls(self) -> dict[str, ir.OperatorIdentifier]:
        return {
            call_key(frames, part_of(node)): function.identifier()
            for frames, node, function in stacks(self._model)
            if function is not None
        }

    def follow(self, kept: Mapping[ir.OperatorIdentifier, Mapping[str, str]]) -> None:
        """Let the ledger follow the nodes that changed, and forget those and the calls that are gone.

        Args:
            kept: identifier of each function whose body changed -> name of each node that it kept -> its name now.
        """
        if not self._needed:
            return
        ledger = read_ledger(self._model)
        for key, call in ledger.calls.items():
            names = kept.get(self._functions[key]) if key in self._functions else None
            if names is not None:
                call.scopes = {names[name]: scope for name, scope in call.scopes.items() if name in names}
                call.origins = {names[name]: origin for name, origin in call.origins.items() if name in names}
                # What the body computes now need not be what the call had as a constant: all calls compute it.
                call.stand_ins, call.idle, call.constants = [], [], {}
        write_ledger(self._model, ledger)
        gone = self._functions.keys() - self._calls().keys()
        ledger.calls = {key: call for key, call in ledger.calls.items() if key not in gone}
        write_ledger(self._model, ledger)
