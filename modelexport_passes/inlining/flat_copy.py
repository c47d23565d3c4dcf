"""A call of a flat body, written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.fast_copies import copy_nodes
from modelexport_passes.inlining.flat import Flat, Place, inherited
from modelexport_passes.inlining.marks import SAMPLE, around, marks_of, told_by
from modelexport_passes.inlining.originals import Originals
from modelexport_passes.inlining.site import Instance, Site
from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import NOTHING_PARTICULAR
from modelexport_passes.scopes.scope import Scope
from modelexport_passes.scopes.tags import retag


class Tags(NamedTuple):
    """Key -> template of the tags that operations carry: those that tell the operation, too, and the others."""

    of_nodes: Mapping[str, str]
    of_scopes: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all."""
        return (*self.of_nodes, *self.of_scopes)


class FlatCall(NamedTuple):
    """A call of a flat body.

    Attributes:
        node: the call.
        inputs: what it passes.
        scope: its scope.
        result_names: the name for each output; None to choose one.
        prefix: stands before all names.
    """

    node: ir.Node
    inputs: Sequence[ir.Value | None]
    scope: Scope | None
    result_names: Sequence[str | None]
    prefix: str


class FlatCopies:
    """Writes calls of one flat body out, in the main graph.

    Args:
        flat: the body.
        tags: of the operations.
        is_special: tells whether something is particular to a call of this scope; None if there is no such call.
    """

    def __init__(self, flat: Flat, tags: Tags, is_special: Callable[[ir.Node, Scope | None], bool] | None) -> None:
        self.flat = flat
        self._tags = tags
        self._is_special = is_special
        scopes = _scopes_of_calls(flat, SAMPLE)
        self._marks = [marks_of(_scope_of_place(place, scopes), tags.of_scopes) for place in flat.places]

    def copy(self, call: FlatCall, site: Site) -> Instance | None:
        """Write a call out. The body's own names are all taken: that is so from the second call on.

        Returns:
            What came of it. None, and nothing is done, if it must be written out call by call: something is particular
            to a call, the graph lacks a constant that is to come back, or a name is taken.
        """
        flat = self.flat
        if self._is_special is not None:
            calls = [call.node, *(inner.node for inner in flat.calls if inner is not None)]
            if any(map(self._is_special, calls, _scopes_of_calls(flat, call.scope))):
                return None
        found = _originals(flat, site.originals)
        names = None if found is None else _names(flat, call, site)
        if found is None or names is None:
            return None
        values: list[ir.Value | None] = [None, *call.inputs, *[None] * (flat.inputs - len(call.inputs)), *found]
        nodes = copy_nodes(
            flat.templates, values, node_names=names[0], value_names=names[1], metadata=self._metadata(call)
        )
        if self._tags.of_nodes:
            retag(nodes, self._tags.of_nodes)
        return Instance(nodes, [values[at] for at in flat.outputs[: len(call.node.outputs)]])

    def _metadata(self, call: FlatCall) -> list[dict[str, str]]:
        """For each place, what its nodes have."""
        here = around(call.scope)
        scopes: list[Scope | None] = []
        found: list[dict[str, str]] = []
        for place, marks in zip(self.flat.places, self._marks, strict=True):
            metadata = inherited(call.node, self._tags.keys) | place.metadata if place.inherits else place.metadata
            if marks is None or here is None:
                scopes = scopes or _scopes_of_calls(self.flat, call.scope)
                scope = _scope_of_place(place, scopes)
                told = {} if scope is None else told_by(scope, self._tags.of_scopes)
            else:
                told = marks.at(here)
            found.append(metadata | told)
        return found


def _scope_of_place(place: Place, scopes: Sequence[Scope | None]) -> Scope | None:
    return scope_in_call(place.node, place.function, scopes[place.call], NOTHING_PARTICULAR)


def _scopes_of_calls(flat: Flat, scope: Scope | None) -> list[Scope | None]:
    scopes = [scope]
    for inner in flat.calls:
        if inner is not None:
            scopes.append(scope_in_call(inner.node, inner.function, scopes[inner.around], NOTHING_PARTICULAR))
    return scopes


def _originals(flat: Flat, originals: Originals | None) -> list[ir.Value] | None:
    """The originals that the body has copies of; None unless the graph has all."""
    if originals is None:
        return None
    found: list[ir.Value] = []
    for origin in flat.originals:
        values = originals.find(origin)
        if values is None:
            return None
        found.append(values[0])
    return found


def _names(flat: Flat, call: FlatCall, site: Site) -> tuple[list[str], list[str]] | None:
    """Names for all nodes and all values; None if one is taken."""
    prefix = f"{call.prefix}/"
    nodes, values = [prefix + name for name in flat.node_names], [prefix + name for name in flat.value_names]
    ours = set(values)
    first = 1 + flat.inputs + len(flat.originals)
    for at, name in reversed([*zip(flat.outputs, call.result_names, strict=False)]):
        if name and at >= first:
            ours.discard(values[at - first])
            values[at - first] = name
    if not (site.node_names.are_free(nodes) and site.names.are_free(ours)):
        return None
    site.node_names.add(nodes)
    site.names.add(ours)
    return nodes, values
