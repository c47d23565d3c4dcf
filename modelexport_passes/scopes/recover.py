"""Recovery: every operation gets the scope that the strongest source can tell; what none can tell stays unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from modelexport_passes.fast_nodes import initializers_of, nodes_of
from modelexport_passes.scopes.body_metadata import infer_in_bodies, scopes_from_body_metadata
from modelexport_passes.scopes.dataflow import infer_scopes
from modelexport_passes.scopes.module_names import ModuleNames
from modelexport_passes.scopes.modules import PartOfModel, TorchModule, module_classes
from modelexport_passes.scopes.ownership import scopes_from_parameters
from modelexport_passes.scopes.parameters import ParameterOwners
from modelexport_passes.scopes.reference import scopes_from_reference
from modelexport_passes.scopes.scope import (
    SCOPE_KEY,
    UNKNOWN_CLASS,
    Frame,
    Scope,
    Source,
    format_scope,
    parse_source,
    scope_of,
    set_scope,
)
from modelexport_passes.scopes.torch_metadata import scopes_from_metadata
from modelexport_passes.scopes.torchscript_names import scopes_from_names
from modelexport_passes.scopes.traced_calls import TracedCall
from modelexport_passes.scopes.values import owners_by_value
from modelexport_passes.scopes.walk import all_owned_nodes, owned_nodes, subgraphs_of

SourceChoice = Literal["auto", "metadata", "name", "parameter"]
"""``auto``: every source, strongest first. Else: what that source tells, and what follows from it."""


@dataclass(frozen=True)
class ScopeStats:
    """How the nodes of a model's graphs know their scopes.

    Attributes:
        by_source: number of nodes per source.
        unknown: names of the nodes without a scope.
    """

    by_source: Mapping[Source, int] = field(default_factory=dict[Source, int])
    unknown: tuple[str, ...] = ()

    @property
    def exact(self) -> int:
        """Nodes whose scope the exporter told."""
        return sum(count for source, count in self.by_source.items() if source.exact)

    @property
    def coverage(self) -> float:
        """The share of nodes whose scope is known at all."""
        known = sum(self.by_source.values())
        return known / (known + len(self.unknown)) if known + len(self.unknown) else 1.0

    @property
    def inferred(self) -> int:
        """Nodes whose scope was concluded."""
        return sum(count for source, count in self.by_source.items() if not source.exact)


def recover(
    model: ir.Model,
    *,
    source: SourceChoice = "auto",
    module: TorchModule | None = None,
    reference: ir.Model | None = None,
    owners: ParameterOwners | None = None,
    traced: TracedCall | None = None,
    everywhere: Sequence[ir.Node] | None = None,
) -> bool:
    """Write a scope on every node of the main graph and its subgraphs that a source can tell. Returns if any was new.

    A scope that a node already has is kept: it came from a source at least as strong.

    Args:
        model: changed in place. Function bodies are not visited: their scopes are relative to the function's module.
        source: which source to trust.
        module: the torch model, when it is at hand.
        reference: the same model as another export, whose nodes have scopes.
        owners: `parameter_owners` of the model's graph and the module, if they are known already.
        traced: the calls of the run that the names of nodes are of, if it was recorded.
        everywhere: every node of the main graph and its subgraphs, if they are at hand.
    """
    if everywhere is None:
        everywhere = all_owned_nodes(model.graph)
    nodes = everywhere if len(everywhere) == len(model.graph) else nodes_of(model.graph)
    if _all_known(everywhere):
        return False
    classes = None if module is None else module_classes(module)
    owners = owners or parameter_owners(model.graph, module)
    changed = 0
    if source in ("auto", "metadata"):
        changed += _write_new(scopes_from_metadata(nodes, owners))
        if len(everywhere) > len(nodes):
            changed += _write_new(scopes_from_body_metadata(nodes, owners))
    if reference is None and (changed == len(everywhere) or _all_known(everywhere)):
        return changed > 0  # the usual: no other source has to look at all operations
    if source in ("auto", "name") and not _all_known(everywhere):
        # This exporter names an instance by the first of its names.
        known = owners.paths() if module is None else module_classes(module, aliases=False)
        modules = ModuleNames(known, complete=module is not None and not isinstance(module, PartOfModel))
        changed += _write_new(scopes_from_names(everywhere, modules, owners, traced))
    if reference is not None and not _all_known(nodes):
        changed += _write_new(scopes_from_reference(model.graph, reference.graph))
    if source in ("auto", "parameter") and not _all_known(nodes):
        changed += _write_new(scopes_from_parameters(nodes, owners, classes))
    changed += infer_scopes(nodes)
    if len(everywhere) > len(nodes):
        changed += infer_in_bodies(nodes) + _inherit(nodes)
    if reference is not None:
        changed += name_classes(everywhere, _classes_of(reference))
    return changed > 0


def parameter_owners(graph: ir.Graph, module: TorchModule | None = None) -> ParameterOwners:
    """Who owns the parameters of a graph: by name, and by value where the torch model is at hand."""
    if module is None:
        return ParameterOwners(graph)
    owners = ParameterOwners(graph, module_classes(module))
    nameless = [value for value in initializers_of(graph) if owners.owner(value) is None]
    owners.add(owners_by_value(nameless, module))
    return owners


def _classes_of(model: ir.Model) -> dict[str, str]:
    scopes = (scope for node in owned_nodes(model.graph) if (scope := scope_of(node)) is not None)
    frames = {frame for scope in scopes for frame in scope.frames if frame.class_name != UNKNOWN_CLASS}
    return {frame.path: frame.class_name for frame in sorted(frames)}


def name_classes(nodes: Iterable[ir.Node], classes: Mapping[str, str]) -> int:
    """Fill in the classes that were not told, where they are known."""
    named = 0
    for node in nodes:
        scope = scope_of(node)
        if scope is None or scope.relative:
            continue
        frames = tuple(
            frame._replace(class_name=classes.get(frame.path, UNKNOWN_CLASS))
            if frame.class_name == UNKNOWN_CLASS
            else frame
            for frame in scope.frames
        )
        if frames != scope.frames:
            set_scope(node, Scope(frames, scope.source))
            named += 1
    return named


def scope_stats(nodes: Iterable[ir.Node]) -> ScopeStats:
    """Count how these nodes know their scopes."""
    nodes = list(nodes)
    texts = Counter([node.metadata_props.get(SCOPE_KEY) for node in nodes])
    unknown: list[str] = []
    if texts.pop(None, 0):
        unknown = [node.name or f"<unnamed {node.op_type}>" for node in nodes if SCOPE_KEY not in node.metadata_props]
    by_source: Counter[Source] = Counter()
    for text, count in texts.items():
        by_source[parse_source(str(text))] += count
    return ScopeStats({source: by_source[source] for source in Source if by_source[source]}, tuple(unknown))


def _all_known(nodes: Iterable[ir.Node]) -> bool:
    return all(SCOPE_KEY in node.metadata_props for node in nodes)


def _write_new(scopes: Mapping[ir.Node, Scope]) -> int:
    written = 0
    # Equal scopes have one text. By identity first: to hash the frames of each operation would cost more than the rest.
    texts: dict[tuple[tuple[Frame, ...], Source], str] = {}
    known: dict[int, str] = {}
    for node, scope in scopes.items():
        metadata = node.metadata_props
        if SCOPE_KEY in metadata:
            continue
        text = known.get(id(scope))
        if text is None:
            key = scope.frames, scope.source
            if key not in texts:
                texts[key] = format_scope(scope)
            text = known[id(scope)] = texts[key]
        metadata[SCOPE_KEY] = text
        written += 1
    return written


def _inherit(nodes: Sequence[ir.Node]) -> int:
    """Bodies of If, Loop and Scan belong to the module call of the operation they are the body of."""
    written = 0
    stack = list(nodes)
    while stack:
        owner = stack.pop()
        scope = scope_of(owner)
        for graph in subgraphs_of(owner):
            for node in graph:
                if scope is not None and scope_of(node) is None:
                    set_scope(node, scope.with_source(Source.INHERITED))
                    written += 1
                stack.append(node)
    return written
