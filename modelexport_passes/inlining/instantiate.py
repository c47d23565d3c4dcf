"""One call of a function, written out: its nodes copied, formals replaced, names made unique, scopes recomposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import copy_value, make_node
from modelexport_passes.inlining.originals import Originals
from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import MODULE_KEY, ORIGIN_KEY, Call, Ledger
from modelexport_passes.scopes.scope import SCOPE_KEY, Scope, format_scope
from modelexport_passes.scopes.walk import has_bodies
from modelexport_passes.unique_names import Names

Values = dict[ir.Value, ir.Value | None]
Attributes = Mapping[str, ir.Attr]


@dataclass
class Site:
    """Where a call is written out.

    Attributes:
        names: names of values that are taken there.
        node_names: names of nodes that are taken there.
        originals: values of the original graph that bodies have copies of; None where they cannot be restored.
        inside: the place is itself a function body.
    """

    names: Names
    node_names: Names
    originals: Originals | None
    inside: bool


@dataclass
class Instance:
    """A call written out.

    Attributes:
        nodes: in order.
        outputs: one for each output of the call; None where the function returns an input that the call leaves out.
    """

    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    outputs: list[ir.Value | None] = field(default_factory=list["ir.Value | None"])


class _Part(NamedTuple):
    """What is the same of a node of a body in all copies of it.

    Attributes:
        node: the node.
        is_call: of a function that is to be written out.
        attributes: what every copy has; None if they differ, for there are references or bodies among them.
        name: its name, or its operator.
        scope: the text of its scope in the body; empty if it has none.
        origin: the value that it is a copy of; empty if of none.
        metadata: what it has besides these two.
    """

    node: ir.Node
    is_call: bool
    attributes: dict[str, ir.Attr] | None
    name: str
    scope: str
    origin: str
    metadata: dict[str, str]


class Instantiation:
    """Writes calls out, and the calls in the bodies of those.

    Args:
        functions: by identifier, those that shall be written out.
        ledger: what is particular to each call.
        wanted: tells by its scope whether a call shall be written out; all of them if None.

    Attributes:
        calls: how many were written out, those inside of others included.
    """

    def __init__(
        self,
        functions: Mapping[ir.OperatorIdentifier, ir.Function],
        ledger: Ledger,
        wanted: Callable[[Scope | None], bool] | None = None,
    ) -> None:
        self._functions = functions
        self._ledger = ledger
        self._wanted = wanted
        self._parts: dict[ir.OperatorIdentifier, list[_Part]] = {}
        self.calls = 0

    def part(self, node: ir.Node) -> _Part:
        """What is to be known of a node of a body to copy it."""
        attributes = node.attributes.data
        fixed = not has_bodies(node) and not any(attribute.is_ref() for attribute in attributes.values())
        metadata = dict(node.metadata_props)
        return _Part(
            node,
            node.op_identifier() in self._functions,
            attributes if fixed else None,
            node.name or node.op_type,
            metadata.pop(SCOPE_KEY, ""),
            metadata.pop(ORIGIN_KEY, ""),
            metadata,
        )

    def _parts_of(self, key: ir.OperatorIdentifier) -> list[_Part]:
        if key not in self._parts:
            self._parts[key] = [self.part(node) for node in self._functions[key]]
        return self._parts[key]

    def selects(self, node: ir.Node, scope: Scope | None) -> bool:
        """Whether a node, of this scope at its place, is a call that shall be written out."""
        return node.op_identifier() in self._functions and (self._wanted is None or self._wanted(scope))

    def call(
        self,
        node: ir.Node,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes,
        site: Site,
        *,
        scope: Scope | None,
        result_names: Sequence[str | None],
        prefix: str,
    ) -> Instance:
        """Write out one call.

        Args:
            node: the call.
            inputs: what it passes, at the site.
            attributes: what it passes, references resolved.
            site: where.
            scope: the call's own scope, at the site.
            result_names: the name for each output; None to choose one.
            prefix: stands before names that are taken.
        """
        self.calls += 1
        key = node.op_identifier()
        function = self._functions[key]
        _check_arity(node, function)
        body = _BodyCopy(self, function, node, attributes, site, scope, prefix)
        body.bind(inputs, result_names)
        for part in self._parts_of(key):
            body.copy(part)
        return body.finish(len(node.outputs))

    def particular(self, call: ir.Node, scope: Scope | None, site: Site) -> Call:
        """What the ledger says of a call."""
        if scope is None or site.inside:
            return Call()
        return self._ledger.call(scope.frames, call)


def _check_arity(node: ir.Node, function: ir.Function) -> None:
    if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
        raise ModelExportError(
            f"inline: call {node.name!r} has {len(node.inputs)} inputs and {len(node.outputs)} outputs; function "
            f"{function.domain}::{function.name} takes {len(function.inputs)} and gives {len(function.outputs)}"
        )


class _BodyCopy:
    """The copy of one body at one call."""

    def __init__(
        self,
        instantiation: Instantiation,
        function: ir.Function,
        call: ir.Node,
        attributes: Attributes,
        site: Site,
        scope: Scope | None,
        prefix: str,
    ) -> None:
        self._all = instantiation
        self._function = function
        self._site = site
        self._scope = scope
        self._prefix = prefix
        self._particular = instantiation.particular(call, scope, site)
        self._attributes = {
            **{name: attribute for name, attribute in function.attributes.items() if attribute.value is not None},
            **attributes,
        }
        # Metadata on the call of a function by others (torch's, of an operator) is true of what is in it.
        own = MODULE_KEY in function.metadata_props
        self._inherited = {} if own else {k: v for k, v in call.metadata_props.items() if k != SCOPE_KEY}
        self._values: Values = {}
        self._wanted: dict[ir.Value, str] = {}
        self._scopes: dict[str, tuple[Scope | None, str | None]] = {}
        self._nodes: list[ir.Node] = []

    def bind(self, inputs: Sequence[ir.Value | None], result_names: Sequence[str | None]) -> None:
        for formal, actual in zip(self._function.inputs, [*inputs, *[None] * len(self._function.inputs)], strict=False):
            self._values[formal] = actual
        for value, name in zip(self._function.outputs, result_names, strict=False):
            if name:
                self._wanted.setdefault(value, name)

    def finish(self, outputs: int) -> Instance:
        return Instance(self._nodes, [self._values[value] for value in self._function.outputs[:outputs]])

    def copy(self, part: _Part) -> None:
        """Copy one node of the body; a call in it is written out in turn."""
        node = part.node
        if part.is_call and self._all.selects(node, self._scoped(part)[0]):
            self._expand(part)
            return
        origin = self._particular.origins.get(str(node.name), part.origin)
        originals = self._site.originals
        if origin and originals is not None and (found := originals.find(origin)) is not None:
            self._values.update(zip(node.outputs, found, strict=False))
            return
        copied = self._clone(part)
        self._nodes.append(copied)
        if origin and originals is not None and (initializer := originals.restore(origin, copied)) is not None:
            self._nodes.pop()
            self._values[node.outputs[0]] = initializer

    def _expand(self, part: _Part) -> None:
        node = part.node
        instance = self._all.call(
            node,
            [None if value is None else self._values[value] for value in node.inputs],
            {name: resolved for name, attr in node.attributes.items() if (resolved := self._attribute(name, attr))},
            self._site,
            scope=self._scoped(part)[0],
            result_names=[self._name_of(value) for value in node.outputs],
            prefix=self._prefixed(part.name),
        )
        self._nodes += instance.nodes
        self._values.update(zip(node.outputs, instance.outputs, strict=True))

    # --- copies ------------------------------------------------------------------------------------------------------

    def _clone(self, part: _Part) -> ir.Node:
        node, values = part.node, self._values
        outputs: list[ir.Value] = []
        for value in node.outputs:
            values[value] = copied = copy_value(value, self._name_of(value) if value.name else value.name)
            outputs.append(copied)
        metadata = {**self._inherited, **part.metadata}
        text = self._scoped(part)[1]
        if text is not None:
            metadata[SCOPE_KEY] = text
        if part.origin and self._site.inside:
            metadata[ORIGIN_KEY] = part.origin
        return make_node(
            node.domain,
            node.op_type,
            tuple([None if value is None else values.get(value, value) for value in node.inputs]),
            self._resolved(node) if part.attributes is None else part.attributes.copy(),
            tuple(outputs),
            overload=node.overload,
            version=node.version,
            name=self._site.node_names.take_or(part.name, self._prefixed(part.name)),
            doc_string=node.doc_string,
            metadata_props=metadata,
        )

    def _resolved(self, node: ir.Node) -> dict[str, ir.Attr]:
        """The attributes of a node of the body, at the call."""
        resolved = [self._attribute(name, attribute) for name, attribute in node.attributes.items()]
        return {attribute.name: attribute for attribute in resolved if attribute is not None}

    def _attribute(self, name: str, attribute: ir.Attr) -> ir.Attr | None:
        """An attribute with references to the function's own replaced by what the call passes; None if it has none."""
        if attribute.is_ref():
            passed = self._attributes.get(str(attribute.ref_attr_name))
            if passed is None:
                return None
            if passed.is_ref():
                return ir.RefAttr(name, str(passed.ref_attr_name), passed.type)
            # A body that the call passes uses values of the caller, which are not in `_values` and stay as they are.
            return self._attribute(name, ir.Attr(name, passed.type, passed.value))
        if attribute.type == ir.AttributeType.GRAPH:
            return ir.AttrGraph(name, self._graph(attribute.as_graph()))
        if attribute.type == ir.AttributeType.GRAPHS:
            return ir.AttrGraphs(name, [self._graph(graph) for graph in attribute.as_graphs()])
        return attribute

    def _graph(self, graph: ir.Graph) -> ir.Graph:
        """A copy of a body of If, Loop or Scan; calls in it are written out in it."""
        inputs = [self._declare(value) for value in graph.inputs]
        initializers = [self._declare(value) for value in graph.initializers.values()]
        nodes, originals = self._nodes, self._site.originals
        self._nodes, self._site.originals = [], None
        for node in graph:
            self.copy(self._all.part(node))
        inner, self._nodes, self._site.originals = self._nodes, nodes, originals
        outputs = [self._values.get(value, value) for value in graph.outputs]
        return ir.Graph(
            inputs,
            [value for value in outputs if value is not None],
            nodes=inner,
            initializers=initializers,
            doc_string=graph.doc_string,
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
            metadata_props=dict(graph.metadata_props),
        )

    def _declare(self, value: ir.Value) -> ir.Value:
        copied = copy_value(value, self._name_of(value))
        copied.const_value = value.const_value
        self._values[value] = copied
        return copied

    # --- names and scopes --------------------------------------------------------------------------------------------

    def _name_of(self, value: ir.Value) -> str:
        wanted = self._wanted.get(value)
        return wanted or self._site.names.take_or(str(value.name), self._prefixed(str(value.name)))

    def _prefixed(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _scoped(self, part: _Part) -> tuple[Scope | None, str | None]:
        """The scope of a node of the body, at the site, and its text. Many nodes share one."""
        node = part.node
        key = None if node.name in self._particular.scopes else part.scope
        known = None if key is None else self._scopes.get(key)
        if known is None:
            scope = scope_in_call(node, self._function, self._scope, self._particular, inside=self._site.inside)
            known = scope, None if scope is None else format_scope(scope)
            if key is not None:
                self._scopes[key] = known
        return known
