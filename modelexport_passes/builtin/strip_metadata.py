"""``strip-metadata``: what only debuggers read goes; what is asked for stays."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.tags import TAGS_KEY, tag_templates
from modelexport_passes.scopes.torch_metadata import NAME_SCOPES
from modelexport_passes.scopes.walk import all_nodes, owned_nodes, subgraphs_of

_OURS = "pkg.modelexport_passes.*"


@dataclass(frozen=True, kw_only=True)
class StripMetadata(ModelPass):
    """Remove metadata from nodes, values, graphs and functions, but for an allowlist.

    Before -> after::

        MatMul node_linear                                       MatMul node_linear
          hierarchy_tag: /Net/Linear.query                         hierarchy_tag: /Net/Linear.query
          pkg.torch.onnx.stack_trace: File "...", line 24 ...
          pkg.torch.onnx.fx_node: %linear : [num_users=1] ...

    Exporters write stack traces and the like on every node: most of a graph's bytes without its weights. The metadata
    of the model itself stays. Scopes that only torch's metadata tells are lost with it: run ``recover-scopes`` before.

    Visits: main graph, subgraphs, functions.

    Attributes:
        keep: globs over metadata keys that stay, besides those that the other options keep.
        scopes: keep what this project writes, so that outline, inline and carrying go on working. Without it, what it
            wrote on the model goes too.
        tags: keep the tags that ``inject-tags`` wrote.
        doc_strings: keep the doc strings of nodes and values (where the TorchScript exporter puts stack traces).
    """

    name: ClassVar[str] = "strip-metadata"

    keep: list[str] | None = None
    scopes: bool = True
    tags: bool = True
    doc_strings: bool = False

    def call(self, model: ir.Model) -> Outcome:
        """Go through everything that can hold metadata."""
        templates = tag_templates(model)
        globs = [*(self.keep or ()), *([_OURS] if self.scopes else ()), *(templates if self.tags else ())]

        @functools.cache  # far fewer keys than nodes
        def stays(key: str) -> bool:
            return any(fnmatch.fnmatchcase(key, glob) for glob in globs)

        nodes = list[ir.Node]() if stays(NAME_SCOPES) else list(all_nodes(model))
        lost = sum(1 for node in nodes if NAME_SCOPES in node.metadata_props and SCOPE_KEY not in node.metadata_props)
        entries = size = 0
        for props in _holders(model):
            for key in [key for key in props if not stays(key)]:
                size += len(key) + len(props.pop(key))
                entries += 1
        if not self.scopes:
            for key in [key for key in model.metadata_props if fnmatch.fnmatchcase(key, _OURS) and key != TAGS_KEY]:
                size += len(key) + len(model.metadata_props.pop(key))
                entries += 1
        if not (self.tags and self.scopes) and model.metadata_props.pop(TAGS_KEY, None) is not None:
            entries += 1
        texts = 0 if self.doc_strings else _drop_doc_strings(model)
        notes: list[str] = []
        if lost:
            notes.append(f"{lost} operations lost the only record of their module: run recover-scopes before this step")
        figures = {"entries": entries, "doc_strings": texts, "kilobytes": size // 1000}
        return Outcome(model, entries + texts > 0, figures=dict(figures), notes=notes)


def _holders(model: ir.Model) -> Iterator[MutableMapping[str, str]]:
    """The metadata of all that has some, but for the model itself."""
    for part in _parts(model):
        yield part.metadata_props


def _drop_doc_strings(model: ir.Model) -> int:
    dropped = 0
    for part in _parts(model):
        if isinstance(part, ir.Node | ir.Value) and part.doc_string:
            part.doc_string = None
            dropped += 1
    return dropped


def _parts(model: ir.Model) -> Iterator[ir.Node | ir.Value | ir.Graph | ir.Function]:
    yield from _graph_parts(model.graph)
    for function in model.functions.values():
        yield function
        yield from function.inputs
        for node in owned_nodes(function):
            yield from _node_parts(node)


def _graph_parts(graph: ir.Graph) -> Iterator[ir.Node | ir.Value | ir.Graph]:
    yield graph
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in owned_nodes(graph):
        yield from _node_parts(node)


def _node_parts(node: ir.Node) -> Iterator[ir.Node | ir.Value | ir.Graph]:
    yield node
    yield from node.outputs
    for graph in subgraphs_of(node):
        yield graph
        yield from graph.inputs
        yield from graph.initializers.values()
