"""``mx.extract``: one module call as a model of its own, with the weights that it needs and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from modelexport_passes.default_domain import name_default_domain
from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.record import RECORD_KEY
from modelexport_passes.garbage import collector_paused
from modelexport_passes.outlining.facts import record
from modelexport_passes.outlining.plan import plan_outline
from modelexport_passes.outlining.regions import Selection
from modelexport_passes.outlining.rewrite import rewrite
from modelexport_passes.outlining.sharing import Likeness
from modelexport_passes.scopes.copying import copy_model
from modelexport_passes.scopes.ledger import PART_KEY, read_ledger
from modelexport_passes.scopes.relative import Frames, to_relative
from modelexport_passes.scopes.scope import Frame, scope_of
from modelexport_passes.scopes.tags import METADATA_IR_VERSION, retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes, owned_nodes
from modelexport_passes.surgery.calls import find_call, function_of
from modelexport_passes.surgery.standalone import stand_alone


def extract(model: ir.Model, module: str) -> ir.Model:
    """One module call as a runnable model of its own; the given model is not changed.

    The module becomes the root: scopes, tags and the names of weights are told from there (``query.weight``). Inputs
    are what the module reads, in order of use, outputs what it makes for others; both keep the names that they have
    in the model around, so that recorded values can be fed to the new model. Constants and shape arithmetic that
    others share with the module come along. A model with functions gives the body of the module's function, with the
    functions that it calls. Weights are shared with the given model, and stay on disk if they are there.

    Args:
        model: flat with scopes (``recover-scopes``), or outlined.
        module: path of a module call (``layers.0.attention``; ``@1`` behind it for the module's second call), or a
            glob over qualified class names that one call alone fits.

    Raises:
        ModelExportError: no such call, or several; or it cannot stand alone: other operations lie between its own,
            or the dtype of one of its inputs is not known.
    """
    target = find_call(model, module, "extract")
    with collector_paused():
        work = _copy(model)
        rest: Frames | None = None
        while rest is None or rest:
            calls = _calls(work)
            container = next((target[:depth] for depth in range(len(target), 1, -1) if target[:depth] in calls), None)
            if container is None:
                _cut(work, target)
                container, calls = target, _calls(work)
            if PART_KEY in calls[container].metadata_props:
                raise ModelExportError(
                    f"extract: {container[-1]} was cut into parts, and none of them is the module; inline it first"
                )
            bases = read_ledger(work).call(container, calls[container]).bases
            rest = to_relative(target, container, bases)
            stand_alone(work, calls[container], container)
            target = (Frame("", container[-1].class_name), *(rest or ()))
        retag(all_nodes(work), tag_templates(work))
    work.ir_version = max(work.ir_version, METADATA_IR_VERSION)
    return work


def _copy(model: ir.Model) -> ir.Model:
    """A copy with the same tensors; what was recorded of the export is not true of the part."""
    copy = copy_model(model)
    name_default_domain(copy)
    # onnx_ir leaves the types of its stores open.
    meta = cast("Mapping[str, object]", model.meta)  # pyright: ignore[reportUnknownMemberType]
    for key, value in meta.items():
        if key != RECORD_KEY:
            copy.meta[key] = value
    return copy


def _calls(model: ir.Model) -> dict[Frames, ir.Node]:
    """The calls of modules in the main graph, by what they call."""
    calls: dict[Frames, ir.Node] = {}
    for node in owned_nodes(model.graph):
        scope = scope_of(node)
        if scope is not None and function_of(model, node) is not None:
            calls.setdefault(scope.frames, node)
    return calls


@dataclass(frozen=True)
class _OneCall(Selection):
    """Selects a single module call."""

    frames: Frames = ()

    def predicate(self, stacks: Iterable[Frames]) -> Callable[[Frames], bool]:
        del stacks
        return lambda stack: stack == self.frames


def _cut(model: ir.Model, frames: Frames) -> None:
    """Outline one module call of the main graph."""
    plan = plan_outline(
        model.graph,
        _OneCall((), frames=frames),
        taken=[(domain, name) for domain, name, _ in model.functions],
        own_calls={node: 1 for node in model.graph if function_of(model, node) is not None},
        likeness=Likeness(lift="never"),
    )
    if plan.obstacles:
        reasons = "; ".join(map(str, plan.obstacles))
        raise ModelExportError(f"extract: {reasons}; extract the module around it, or one inside of it")
    if not plan.functions:
        raise ModelExportError(f"extract: {frames[-1]} cannot stand alone: {_why_empty(model, frames)}")
    made = rewrite(model, plan)
    record(model, plan, made)


def _why_empty(model: ir.Model, frames: Frames) -> str:
    """Why a module call that scopes speak of gives no function."""
    own = [node for node in model.graph if (scope := scope_of(node)) and scope.frames[: len(frames)] == frames]
    if not own:
        return "its operations are in bodies, of If, Loop or Scan or of other modules; extract the module around it"
    return "nothing outside of it reads what its operations compute"
