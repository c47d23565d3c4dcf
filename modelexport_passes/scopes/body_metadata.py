"""Scopes from torch's metadata on operations in bodies of If, Loop and Scan.

A merged decoder holds a whole exported graph in each branch; a tool that wraps an exported graph in a loop does the
same. Each body is read by itself, as the main graph is. Of the branches of one If, one runs: the calls of a module are
numbered anew in each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.fast_nodes import nodes_of
from modelexport_passes.scopes.dataflow import infer_scopes
from modelexport_passes.scopes.parameters import ParameterOwners
from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of
from modelexport_passes.scopes.torch_metadata import NAME_SCOPES, scopes_from_metadata
from modelexport_passes.scopes.walk import has_bodies, owned_nodes, subgraphs_of

_Told = tuple[ir.Node | None, Scope | None, Mapping[ir.Node, Scope]]
"""The operation with the bodies (None for the main graph), its scope, and what is told in its bodies."""


def scopes_from_body_metadata(nodes: Sequence[ir.Node], owners: ParameterOwners) -> dict[ir.Node, Scope]:
    """The scope of each operation below these whose metadata tells its modules.

    A scope is inferred, not exact, where the number of a call in it is in doubt: its module is also called in another
    place of the model, or the operation that the body belongs to is in a repeated call.

    Args:
        nodes: the operations of the main graph, with the scopes that are known.
        owners: who owns the parameters that the operations read.
    """
    outside = {node: scope for node in nodes if (scope := scope_of(node)) is not None}
    told: list[_Told] = [(None, None, outside)]
    scopes: dict[ir.Node, Scope] = {}
    work = [node for node in reversed(nodes) if has_bodies(node)]
    while work:
        owner = work.pop()
        bodies = [nodes_of(graph) for graph in subgraphs_of(owner)]
        around = scopes.get(owner) or scope_of(owner)
        found: dict[ir.Node, Scope] = {}
        for body in bodies:
            found |= _within(scopes_from_metadata(body, owners), around)
            work += [node for node in reversed(body) if has_bodies(node)]
        scopes |= found
        told.append((owner, around, found))
    doubtful = _called_in_several_places(told)
    return {
        node: scope.with_source(Source.DATAFLOW)
        if scope.source is Source.METADATA and any(frame.path in doubtful for frame in scope.frames)
        else scope
        for node, scope in scopes.items()
    }


def infer_in_bodies(nodes: Iterable[ir.Node]) -> int:
    """Conclude scopes in the bodies of which torch's metadata tells a part. Returns how many operations got one."""
    inferred = 0
    for owner in owned_nodes(nodes):
        for graph in subgraphs_of(owner) if has_bodies(owner) else ():
            body = nodes_of(graph)
            if any(NAME_SCOPES in node.metadata_props for node in body):
                inferred += infer_scopes(body)
    return inferred


def _within(told: Mapping[ir.Node, Scope], around: Scope | None) -> dict[ir.Node, Scope]:
    """What a body tells, with the call numbers of the operation that it is the body of."""
    if around is None or not any(frame.call for frame in around.frames):
        return dict(told)
    depth = len(around.frames)
    within: dict[ir.Node, Scope] = {}
    for node, scope in told.items():
        if _modules(scope.frames[:depth]) != _modules(around.frames):
            within[node] = scope
        elif len(scope.frames) == depth:
            within[node] = Scope(around.frames, scope.source)
        else:  # which of its calls, counted over all calls of the modules around, the body does not tell
            within[node] = Scope((*around.frames, *scope.frames[depth:]), Source.DATAFLOW)
    return within


def _modules(frames: Sequence[Frame]) -> list[tuple[str, str]]:
    return [(frame.path, frame.class_name) for frame in frames]


def _called_in_several_places(told: Iterable[_Told]) -> set[str]:
    """Paths of modules that are called both in the bodies of one operation and somewhere else."""
    places: Counter[str] = Counter()
    for _, around, found in told:
        shared = {frame.path for frame in around.frames} if around is not None else {""}
        stacks = {id(scope.frames): scope.frames for scope in found.values()}
        places.update({frame.path for frames in stacks.values() for frame in frames} - shared - {""})
    return {path for path, count in places.items() if count > 1}
