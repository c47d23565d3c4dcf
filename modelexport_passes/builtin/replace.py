"""``replace``: another body for the functions of a class, or one operation of a backend in place of their calls."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.ledger import MODULE_KEY, PART_KEY
from modelexport_passes.scopes.tags import retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes, owned_nodes
from modelexport_passes.surgery.body import drop_uncalled, fingerprint, reachable
from modelexport_passes.surgery.replace import read_body, replaced
from modelexport_passes.surgery.rooting import record_calls
from modelexport_passes.surgery.upkeep import LedgerUpkeep

if TYPE_CHECKING:
    from modelexport_passes.surgery.replace import ScriptFunction

Attribute = int | float | str | list[int] | list[float] | list[str]


@dataclass(frozen=True, kw_only=True)
class Replace(ModelPass):
    """Give the functions of a class another body, or make their calls one operation that a backend has a kernel for.

    Before -> after, with ``as_op: vendor.Attention``::

        Block(x, ...)                        Block(x, ...)
          pkg::Attention(x, query.weight)      vendor::Attention(x, query.weight)
        pkg::Attention(input_0, query.weight)
          MatMul, Softmax, ...

    A body has the signature of the function that it replaces: number of inputs and outputs, and dtype and rank where
    both are known. Inputs fit by position; an initializer of a model that is named as an input of the function
    (``query.weight``) is that input, so that what ``extract`` wrote can come back changed. Scopes of such a model are
    taken over; operations without one belong to the module. Calls, their scopes and tags stay as they are.

    The model has functions: run ``outline`` first. Visits: functions, and their calls in main graph, subgraphs and
    functions.

    Attributes:
        modules: globs over what a function is: its module's qualified class, or ``domain.name``.
        body: .onnx file whose main graph is the body.
        entry: take this function of the file, ``domain.name``, and not its main graph.
        as_op: ``domain.Name`` of the operation that the calls become; the functions go.
        attributes: of that operation.
        opset: version of that operation's domain; that which the model imports, or 1, if not given.
        function: the body as an ``onnx_ir`` model or function, or an ``onnxscript`` function.
    """

    name: ClassVar[str] = "replace"

    modules: list[str]
    body: Path | None = None
    entry: str | None = None
    as_op: str | None = None
    attributes: dict[str, Attribute] | None = None
    opset: int | None = None
    function: ir.Model | ir.Function | ScriptFunction | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.body, self.as_op, self.function)) != 1:
            raise ConfigError("replace: expected exactly one of body, as_op and function")
        if isinstance(self.modules, str):
            raise ConfigError(f"replace: modules {self.modules!r}; expected a list of globs over class names")
        if self.as_op is not None and not all(self.as_op.rpartition(".")[::2]):
            raise ConfigError(f"replace: as_op {self.as_op!r}; expected domain.Name, such as vendor.Attention")
        if self.as_op is None and (self.attributes or self.opset is not None):
            raise ConfigError("replace: attributes and opset are of the operation that as_op names; give as_op too")

    def call(self, model: ir.Model) -> Outcome:
        """Replace in every function that fits."""
        chosen = [key for key, function in model.functions.items() if self._selects(function)]
        if not chosen:
            notes = [f"no function fits {', '.join(self.modules)}; outline makes functions of modules"]
            return Outcome(model, False, figures={"functions": 0, "calls": 0}, notes=notes)
        parts = [f"{key[0]}::{key[1]}" for key in chosen if PART_KEY in model.functions[key].metadata_props]
        if parts:
            raise ModelExportError(
                f"replace: {', '.join(parts)} is a part of a module (outline: on_nonconvex: split), and a body or an "
                "operation is for the whole; inline these first, or name another class"
            )
        calls = [node for node in all_nodes(model) if node.op_identifier() in chosen]
        upkeep, called = LedgerUpkeep(model), reachable(model)
        changed = self._as_op(model, chosen, calls) if self.as_op is not None else self._bodies(model, chosen)
        if changed:
            drop_uncalled(model, called)
            upkeep.follow({key: {} for key in changed})
            record_calls(model)
            retag(all_nodes(model), tag_templates(model))
        figures = {"functions": len(changed), "calls": len(calls)}
        return Outcome(model, bool(changed), figures=dict(figures))

    def _selects(self, function: ir.Function) -> bool:
        names = (function.metadata_props.get(MODULE_KEY, ""), f"{function.domain}.{function.name}")
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.modules for name in names if name)

    def _bodies(self, model: ir.Model, chosen: Iterable[ir.OperatorIdentifier]) -> list[ir.OperatorIdentifier]:
        source = self.body or self.function
        assert source is not None
        body = read_body(source, self.entry)
        # All are made before one is put in, so that a body that does not fit leaves the model as it was.
        functions = {key: replaced(model, model.functions[key], body) for key in chosen}
        retag(owned_nodes(node for function in functions.values() for node in function), tag_templates(model))
        changed = [
            key for key, function in functions.items() if fingerprint(function) != fingerprint(model.functions[key])
        ]
        model.functions.update({key: functions[key] for key in changed})
        return changed

    def _as_op(
        self, model: ir.Model, chosen: list[ir.OperatorIdentifier], calls: Iterable[ir.Node]
    ) -> list[ir.OperatorIdentifier]:
        domain, _, op_type = str(self.as_op).rpartition(".")
        taken = sorted(f"{owner}::{name}" for owner, name, _ in model.functions.keys() - set(chosen) if owner == domain)
        if taken:
            raise ModelExportError(
                f"replace: the domain {domain!r} of as_op is that of the functions {', '.join(taken[:3])}; an "
                "operation without a body needs another"
            )
        domain = "" if domain == "ai.onnx" else domain
        known = model.opset_imports.get(domain, self.opset or 1)
        if self.opset not in (None, known):
            raise ModelExportError(f"replace: as_op {self.as_op} is of opset {self.opset}, the model imports {known}")
        for node in calls:
            node.domain, node.op_type, node.overload = domain, op_type, ""
            for name, value in sorted((self.attributes or {}).items()):
                node.attributes[name] = ir.convenience.convert_attribute(name, value)
        for key in chosen:
            del model.functions[key]
        model.opset_imports[domain] = known
        for function in model.functions.values():
            if any(node.domain == domain for node in function.all_nodes()):
                function.opset_imports[domain] = known
        return chosen
