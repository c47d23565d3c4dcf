"""The hierarchy that a model carries is consistent: scopes, the functions made from them, and the tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.scopes.ledger import MODULE_KEY
from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, parse_scope
from modelexport_passes.scopes.tags import tag_of, tag_templates
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.problem import Problem
from modelexport_passes.validation.structure import name_of, place_of


@dataclass
class HierarchyCounts:
    """How much of a model's hierarchy is known. Nodes of a shared function body count once.

    Attributes:
        nodes: operations and calls, in the main graph, subgraphs and functions.
        exact: with a scope that the exporter told.
        inferred: with a scope that was concluded.
        unknown: without a scope; never counted as known.
        tagged: with all the tags that the model is said to carry; 0 if it is said to carry none.
        calls: nodes that call a function made from a module.
    """

    nodes: int = 0
    exact: int = 0
    inferred: int = 0
    unknown: int = 0
    tagged: int = 0
    calls: int = 0


def check_hierarchy(model: ir.Model) -> tuple[HierarchyCounts, list[Problem]]:
    """Check scopes and tags: each reads, stands where its kind belongs, and agrees with what it is made from.

    Visits: main graph, subgraphs, functions.
    """
    counts = HierarchyCounts()
    templates = tag_templates(model)
    found: list[Problem] = []
    containers: list[tuple[str, Iterable[ir.Node], bool]] = [("the main graph", model.graph, False)]
    containers += [(place_of(f), f, MODULE_KEY in f.metadata_props) for f in model.functions.values()]
    for where, nodes, relative in containers:
        check = _Container(model, templates, where, relative, counts)
        for node in owned_nodes(nodes):
            found += check.node(node)
    return counts, found


@dataclass
class _Container:
    """The checks over the nodes that one graph or function holds."""

    model: ir.Model
    templates: Mapping[str, str]
    where: str
    relative: bool
    counts: HierarchyCounts
    owners: dict[tuple[str, str], tuple[Frame, ...]] = field(default_factory=dict[tuple[str, str], tuple[Frame, ...]])

    def node(self, node: ir.Node) -> Iterator[Problem]:
        self.counts.nodes += 1
        text = node.metadata_props.get(SCOPE_KEY)
        scope: Scope | None = None
        if text is None:
            self.counts.unknown += 1
        else:
            try:
                scope = parse_scope(text)
            except ValueError as error:
                self.counts.unknown += 1
                yield Problem("scope", self.where, f"{name_of(node)}: {error}")
                return
            self.counts.exact += scope.source.exact
            self.counts.inferred += not scope.source.exact
            if scope.relative != self.relative:
                kinds = ("an absolute", "a relative") if self.relative else ("a relative", "an absolute")
                found = f"{name_of(node)} has {kinds[0]} scope, expected {kinds[1]} one: {text}"
                yield Problem("scope", self.where, found)
        yield from self._call(node, scope)
        yield from self._tags(node, scope)

    def _call(self, node: ir.Node, scope: Scope | None) -> Iterator[Problem]:
        function = self.model.functions.get(node.op_identifier())
        module = function.metadata_props.get(MODULE_KEY) if function is not None else None
        if function is None or module is None:
            return
        self.counts.calls += 1
        if scope is None:
            yield Problem("call-scope", self.where, f"{name_of(node)} calls the module {module} and has no scope")
        elif scope.class_name != module:
            text = f"{name_of(node)} has the scope of a {scope.class_name} and calls {place_of(function)}, a {module}"
            yield Problem("call-scope", self.where, text)

    def _tags(self, node: ir.Node, scope: Scope | None) -> Iterator[Problem]:
        complete = bool(self.templates)
        for key, template in self.templates.items():
            tag = node.metadata_props.get(key)
            complete = complete and tag is not None
            expected = tag_of(node, template)
            if tag != expected:
                found = f"{name_of(node)} has the {key} {tag!r}; its scope says {expected!r}"
                yield Problem("tag", self.where, found)
            elif tag is not None and scope is not None and "{tag}" in template:
                owner = self.owners.setdefault((key, tag), scope.frames)
                if owner != scope.frames:
                    calls = f"{_chain(owner)} and {_chain(scope.frames)}"
                    yield Problem("tag", self.where, f"two module calls share the {key} {tag!r}: {calls}")
        self.counts.tagged += complete


def _chain(frames: tuple[Frame, ...]) -> str:
    return " > ".join(f"{frame.class_name} {str(frame) or 'root'!r}" for frame in frames)
