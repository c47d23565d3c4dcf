"""Which module owns a parameter, by its name: initializers keep the paths of the state dict."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import cast

import onnx_ir as ir

from modelexport_passes.fast_nodes import initializers_of, nodes_of
from modelexport_passes.scopes.prefixes import common_prefix
from modelexport_passes.scopes.scope import UNKNOWN_CLASS

FOLDED_FROM = "pkg.onnxscript.optimizer.folded_from"
_STATE_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_PLAIN_LIST = re.compile(r"\['[^'\"\\]*'(, '[^'\"\\]*')*\]")
"""Strings that need no quoting: nearly every list, and split in a hundredth of the time of a parser."""

# Operations that hand a weight on in another form.
VIEWS = frozenset(
    {"Transpose", "Cast", "Identity", "DequantizeLinear", "QuantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Slice"}
)
_CHAIN = 6
_PACKED = frozenset({"in_proj_weight", "in_proj_bias"})
"""Parameters of ``torch.nn.MultiheadAttention``."""


class ParameterOwners:
    """The modules that a file's parameters name.

    Args:
        graph: the main graph.
        modules: every module path of the torch model when it is at hand; else paths are read off the names.
    """

    def __init__(self, graph: ir.Graph, modules: Iterable[str] | None = None) -> None:
        known = None if modules is None else frozenset(modules)
        self._owner: dict[ir.Value, str] = {}
        self._parameter: dict[ir.Value, str] = {}
        self._graph = graph
        self._read: dict[ir.Node, list[ir.Value]] | None = None
        nodes = nodes_of(graph)
        self.prefix = common_prefix(nodes, graph.initializers)
        """What another tool wrote before all names."""
        self.uncalled: set[str] = set()
        """Modules that are never called: torch's own attention reads the parameters of its last projection."""
        copies = [value for node in nodes if node.op_type == "Identity" for value in node.outputs if _is_copy(value)]
        self._copies = copies
        items: dict[ir.Value, str] = {}
        for value in [*initializers_of(graph), *copies]:
            name = _state_name(value, self.prefix)
            if name is not None:
                self._parameter[value] = name
                owner, _, attribute = name.rpartition(".")
                if attribute in _PACKED:
                    self.uncalled.add(f"{owner}.out_proj")
                if known is None and attribute.isdecimal():
                    items[value] = owner
                    continue
                while known is not None and owner not in known:
                    owner = owner.rpartition(".")[0]
                self._owner[value] = owner
        if items:
            self._own_items(items)

    def _own_items(self, lists: Mapping[ir.Value, str]) -> None:
        """Items of a list of parameters, which is never called, belong to the module around it.

        That is one which other parameters show: exporters number what they make themselves as well
        (``p2o.pd_op.reshape.2.0``), and such names are of no module.
        """
        shown = self.paths()
        for value, path in lists.items():
            owner = path.rstrip("0123456789.").rpartition(".")[0]
            while owner not in shown:
                owner = owner.rpartition(".")[0]
            if owner:
                self._owner[value] = owner

    def add(self, owners: Mapping[ir.Value, str]) -> None:
        """Take in owners that are known in another way than by name."""
        self._owner.update(owners)

    def owner(self, value: ir.Value) -> str | None:
        """The path of the module that owns this initializer; None if its name does not tell."""
        return self._owner.get(value)

    def parameter(self, value: ir.Value) -> Hashable:
        """What an initializer is or was folded from: a tied weight that is folded for each reader is still one."""
        return self._parameter.get(value, value)

    def read(self, node: ir.Node) -> Sequence[ir.Value]:
        """`read_initializers` of a node, kept: only for as long as the graph stays as it is."""
        if self._read is None:
            self._read = _readers([*initializers_of(self._graph), *self._copies])
        found = self._read.get(node)
        if node.graph is self._graph:
            return () if found is None else found
        return read_initializers(node)  # in a body or a function: these have initializers of their own

    def paths(self) -> dict[str, str]:
        """Every module that owns a parameter, and those above it; their classes are unknown."""
        found = {""}
        for path in set(self._owner.values()):
            while path not in found:
                found.add(path)
                path = path.rpartition(".")[0]  # noqa: PLW2901 - up to what is found already
        return dict.fromkeys(sorted(found), UNKNOWN_CLASS)

    def of(self, node: ir.Node) -> list[str]:
        """The owners of the parameters that a node reads, also through views of them."""
        return self.of_all(self.read(node))

    def of_all(self, values: Iterable[ir.Value]) -> list[str]:
        """The owners of those of these initializers whose names tell."""
        return [owner for value in values if (owner := self._owner.get(value)) is not None]


def read_initializers(node: ir.Node) -> list[ir.Value]:
    """The initializers that a node reads, also those that reach it through casts, transposes and other views.

    A copy that the exporter made of a parameter equal to another one carries the name that it stands for.
    """
    read: list[ir.Value] = []
    for value in node.inputs:
        if value is None:
            continue
        producer = value.producer()
        if producer is None:
            if value.is_initializer():
                read.append(value)
        elif producer.op_type in VIEWS and (found := _behind_views(value)) is not None:
            read.append(found)
    return read


def _readers(sources: Iterable[ir.Value]) -> dict[ir.Node, list[ir.Value]]:
    """`read_initializers` of all nodes of a graph that read any, found from these: few nodes are looked at.

    Args:
        sources: the graph's initializers, and copies of these.
    """
    uses: dict[ir.Node, list[tuple[int, ir.Value]]] = {}
    level = [(value, value) for value in sources]
    for _ in range(_CHAIN):
        views: list[tuple[ir.Value, ir.Value]] = []
        for value, source in level:
            for node, at in value.uses():
                uses.setdefault(node, []).append((at, source))
                if at == 0 and node.op_type in VIEWS:
                    views += [(made, source) for made in node.outputs if not _is_copy(made)]
        level = views
    return {
        node: [found[0][1]] if len(found) == 1 else [source for _, source in sorted(found, key=lambda use: use[0])]
        for node, found in uses.items()
    }


def _behind_views(value: ir.Value) -> ir.Value | None:
    """The initializer, or copy of one, that a value is or is a view of."""
    found: ir.Value | None = value
    for _ in range(_CHAIN):
        if found is None:
            return None
        producer = found.producer()
        if producer is None:
            return found if found.is_initializer() else None
        op_type = producer.op_type
        if op_type not in VIEWS or not producer.inputs:
            return None
        if op_type == "Identity" and _is_copy(found):
            return found
        found = producer.inputs[0]
    return None


def _is_copy(value: ir.Value) -> bool:
    """A weight that TorchScript's exporter found equal to another: ``Identity(norm1.bias) -> norm2.bias``."""
    producer = value.producer()
    if producer is None or producer.op_type != "Identity":
        return False
    if _STATE_NAME.fullmatch((value.name or "").rpartition("/")[2]) is None:  # a prefix may end in a slash
        return False
    source = producer.inputs[0]
    # Other exporters name what the model computes in such a form, too.
    return source is not None and (source.is_initializer() or _is_copy(source))


def _state_name(value: ir.Value, prefix: str) -> str | None:
    folded = value.metadata_props.get(FOLDED_FROM)
    if folded is not None:
        names = literal_list(folded)
        if len(names) == 1:
            return names[0]
    name = (value.name or "").removeprefix(prefix)
    return name if _STATE_NAME.fullmatch(name) else None


def literal_list(text: str) -> list[str]:
    """A list that was written with Python's ``repr``; empty if the text is none."""
    if _PLAIN_LIST.fullmatch(text):
        return text[2:-2].split("', '")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else []
