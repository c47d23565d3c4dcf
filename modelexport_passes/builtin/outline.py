"""``outline``: modules become ONNX local functions, one per distinct module, with the weights as inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from modelexport_passes.default_domain import name_default_domain
from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.garbage import collector_paused
from modelexport_passes.outlining.facts import record
from modelexport_passes.outlining.flow import UnsortedGraphError
from modelexport_passes.outlining.plan import OutlinePlan, plan_outline
from modelexport_passes.outlining.regions import Selection
from modelexport_passes.outlining.rewrite import rewrite
from modelexport_passes.outlining.sharing import Likeness
from modelexport_passes.outlining.source_code import find_sources, record_sources
from modelexport_passes.outlining.state import COMMON_RULES, StateRules
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.ledger import MODULE_KEY
from modelexport_passes.scopes.tags import METADATA_IR_VERSION, retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes


@dataclass(frozen=True, kw_only=True)
class Outline(ModelPass):
    """Turn module calls into calls of local functions.

    Before -> after::

        Net(x)                              Net(x)
          MatMul  layers.0.query              Block(x, layers.0.query.weight)
          MatMul  layers.1.query              Block(x, layers.1.query.weight)
                                            Block(input_0, query.weight)
                                              MatMul  query

    Module calls whose bodies are equal share one function: operators, attributes, wiring, outputs, callees, dtype and
    rank of inputs. Inputs of a function are its activations in order of use, then state, then its weights by local
    name; state is last among its outputs. Constants that an exporter shares between modules are cloned into each; work
    that one module does for its siblings (a mask) is placed in their caller. Scopes and tags in a body are relative to
    its module. ``inline`` undoes it exactly.

    Operations need scopes: run ``recover-scopes`` first, or export with ``mx.export``.

    Visits: main graph. Bodies of If, Loop and Scan move with their operation; functions that exist stay as they are.

    Attributes:
        modules: ``all``; ``auto``: the outermost repeated blocks; or globs over qualified class names.
        paths: globs over module paths, besides ``modules``.
        exclude: globs over class names or paths that stay inline.
        on_nonconvex: what to do with a module call that other operations lie between: ``skip`` leaves its operations
            in its caller and says so, ``split`` makes several calls of it, one for each part, ``error`` fails.
        lift: ``auto`` makes constants that differ between like modules inputs; ``attributes`` besides makes numbers and
            texts among the attributes of operations, where they differ, attributes of the function; ``never`` gives
            each its own function.
        weights: ``any`` lets like modules with weights of other shapes, of the same rank, share; ``shape`` does not.
        depth: module calls at most so deep below the root (1: its children); all if None.
        min_nodes: module calls with fewer operations stay inline.
        min_calls: bodies that fewer module calls share stay inline.
        state: which graph inputs are state, and which outputs are its next value: names with ``{i}`` for the number of
            the layer and other placeholders for any text, ``past_key_values.{i}.{kind}: present.{i}.{kind}``. In
            functions they have their names without the layer. ``auto`` knows the usual names of key-value caches.
    """

    name: ClassVar[str] = "outline"

    modules: Literal["all", "auto"] | list[str] = "all"
    paths: list[str] | None = None
    exclude: list[str] | None = None
    on_nonconvex: Literal["skip", "split", "error"] = "skip"
    lift: Literal["auto", "attributes", "never"] = "auto"
    weights: Literal["any", "shape"] = "any"
    depth: int | None = None
    min_nodes: int = 1
    min_calls: int = 1
    state: Literal["auto"] | dict[str, str] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.modules, str) and self.modules not in ("all", "auto"):
            raise ConfigError(
                f"outline: modules {self.modules!r}; expected 'all', 'auto' or a list of globs over class names"
            )
        for option, values in (("lift", ("auto", "attributes", "never")), ("weights", ("any", "shape"))):
            if getattr(self, option) not in values:
                raise ConfigError(f"outline: {option} {getattr(self, option)!r}; expected {' or '.join(values)}")
        for option in ("depth", "min_nodes", "min_calls"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ConfigError(f"outline: {option} {value}; expected 1 or more")
        self._state_rules()

    def plan(self, model: ir.Model) -> OutlinePlan:
        """What this pass would do to the model; changes nothing."""
        # With paths alone, the default "all" would make them pointless.
        modules = () if self.modules == "all" and self.paths else self.modules
        return plan_outline(
            model.graph,
            Selection(modules, self.paths or (), self.exclude or (), self.depth),
            taken=[(domain, name) for domain, name, _ in model.functions],
            own_calls=_own_calls(model),
            likeness=Likeness(self.lift, self.weights),
            split=self.on_nonconvex == "split",
            min_nodes=self.min_nodes,
            min_calls=self.min_calls,
            state=self._state_rules(),
        )

    def _state_rules(self) -> StateRules:
        if not isinstance(self.state, str):
            return StateRules(self.state)
        if self.state != "auto":
            raise ConfigError(f"outline: state {self.state!r}; expected 'auto' or a mapping of names")
        return StateRules(COMMON_RULES)

    def call(self, model: ir.Model) -> Outcome:
        """Plan, then rewrite."""
        with collector_paused():
            return self._call(model)

    def _call(self, model: ir.Model) -> Outcome:
        before = len(model.graph)
        plan, was_sorted = self._plan_sorted(model)
        if plan.obstacles and self.on_nonconvex == "error":
            reasons = "; ".join(str(obstacle) for obstacle in plan.obstacles)
            raise ModelExportError(f"outline: {reasons}; exclude them, or set on_nonconvex: skip or split")
        notes = [f"left in place: {obstacle}" for obstacle in plan.obstacles]
        notes += [f"split: {split}" for split in plan.splits]
        notes += [f"not shared: {miss}" for miss in plan.near_misses() if miss.alike]
        calls = sum(len(function.group.instances) for function in plan.functions)
        if plan.functions:
            name_default_domain(model)
            sources = find_sources(model, plan)
            made = rewrite(model, plan)
            record(model, plan, made)
            record_sources(model, plan, sources)
            retag(all_nodes(model), tag_templates(model))
            model.ir_version = max(model.ir_version, METADATA_IR_VERSION)
        figures = {
            "functions": len(plan.functions),
            "calls": calls,
            "main_graph": f"{before} -> {len(model.graph)}",
            "left_in_place": len(plan.obstacles),
        }
        return Outcome(model, bool(plan.functions) or not was_sorted, figures=dict(figures), notes=notes)

    def _plan_sorted(self, model: ir.Model) -> tuple[OutlinePlan, bool]:
        """The plan, and whether the graph was in order; it is put in order if not (onnxruntime takes such graphs)."""
        try:
            return self.plan(model), True
        except UnsortedGraphError as error:
            try:
                model.graph.sort()
            except ValueError as circle:
                raise ModelExportError(f"{error}, and there is no order in which it does not") from circle
            return self.plan(model), False


def _own_calls(model: ir.Model) -> dict[ir.Node, int]:
    """Calls in the main graph that an earlier outlining made, and how many operations are in each."""
    own = {key: function for key, function in model.functions.items() if MODULE_KEY in function.metadata_props}
    if not own:
        return {}
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(key: ir.OperatorIdentifier) -> int:
        if key not in sizes:
            sizes[key] = sum(size(node.op_identifier()) if node.op_identifier() in own else 1 for node in own[key])
        return sizes[key]

    return {node: size(node.op_identifier()) for node in model.graph if node.op_identifier() in own}
