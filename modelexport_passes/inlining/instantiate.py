"""One call of a function, written out: its nodes copied, formals replaced, names made unique, scopes recomposed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
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
        self.calls = 0

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
        function = self._functions[node.op_identifier()]
        _check_arity(node, function)
        body = _BodyCopy(self, function, node, attributes, site, scope, prefix)
        body.bind(inputs, result_names)
        for inner in function:
            body.copy(inner)
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

    def copy(self, node: ir.Node) -> None:
        """Copy one node of the body; a call in it is written out in turn."""
        if self._all.selects(node, self._scope_of(node)):
            self._expand(node)
            return
        origin = self._origin(node)
        originals = self._site.originals
        if origin and originals is not None and (found := originals.find(origin)) is not None:
            self._values.update(zip(node.outputs, found, strict=False))
            return
        copied = self._clone(node)
        self._nodes.append(copied)
        if not self._site.inside:
            copied.metadata_props.pop(ORIGIN_KEY, None)
        if origin and originals is not None and (initializer := originals.restore(origin, copied)) is not None:
            self._nodes.pop()
            self._values[node.outputs[0]] = initializer

    def _origin(self, node: ir.Node) -> str:
        return self._particular.origins.get(str(node.name), node.metadata_props.get(ORIGIN_KEY, ""))

    def _expand(self, node: ir.Node) -> None:
        instance = self._all.call(
            node,
            [None if value is None else self._values[value] for value in node.inputs],
            {name: resolved for name, attr in node.attributes.items() if (resolved := self._attribute(name, attr))},
            self._site,
            scope=self._scope_of(node),
            result_names=[self._name_of(value) for value in node.outputs],
            prefix=self._prefixed(node.name or node.op_type),
        )
        self._nodes += instance.nodes
        self._values.update(zip(node.outputs, instance.outputs, strict=True))

    # --- copies ------------------------------------------------------------------------------------------------------

    def _clone(self, node: ir.Node) -> ir.Node:
        outputs: list[ir.Value] = []
        for value in node.outputs:
            copied = _copy_value(value, self._name_of(value) if value.name else value.name)
            self._values[value] = copied
            outputs.append(copied)
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else self._values.get(value, value) for value in node.inputs],
            self._resolved(node),
            overload=node.overload,
            outputs=outputs,
            version=node.version,
            name=self._site.node_names.take_or(node.name or node.op_type, self._prefixed(node.name or node.op_type)),
            doc_string=node.doc_string,
            metadata_props={**self._inherited, **node.metadata_props},
        )
        text = self._scoped(node)[1]
        if text is None:
            copy.metadata_props.pop(SCOPE_KEY, None)
        else:
            copy.metadata_props[SCOPE_KEY] = text
        return copy

    def _resolved(self, node: ir.Node) -> Iterable[ir.Attr]:
        """The attributes of a node of the body, at the call."""
        attributes = node.attributes.data
        if not has_bodies(node) and not any(attribute.is_ref() for attribute in attributes.values()):
            return attributes.values()
        resolved = [self._attribute(name, attribute) for name, attribute in attributes.items()]
        return [attribute for attribute in resolved if attribute is not None]

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
            self.copy(node)
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
        copied = _copy_value(value, self._name_of(value))
        copied.const_value = value.const_value
        self._values[value] = copied
        return copied

    # --- names and scopes --------------------------------------------------------------------------------------------

    def _name_of(self, value: ir.Value) -> str:
        wanted = self._wanted.get(value)
        return wanted or self._site.names.take_or(str(value.name), self._prefixed(str(value.name)))

    def _prefixed(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _scope_of(self, node: ir.Node) -> Scope | None:
        """The scope of a node of the body, at the site."""
        return self._scoped(node)[0]

    def _scoped(self, node: ir.Node) -> tuple[Scope | None, str | None]:
        """The scope of a node of the body, at the site, and its text. Many nodes share one."""
        key = None if node.name in self._particular.scopes else node.metadata_props.get(SCOPE_KEY, "")
        known = None if key is None else self._scopes.get(key)
        if known is None:
            scope = scope_in_call(node, self._function, self._scope, self._particular, inside=self._site.inside)
            known = scope, None if scope is None else format_scope(scope)
            if key is not None:
                self._scopes[key] = known
        return known


def _copy_value(value: ir.Value, name: str | None) -> ir.Value:
    copy = ir.Value(
        name=name,
        type=value.type,
        # One that is frozen may be shared (onnx_ir.Shape).
        shape=value.shape if value.shape is None or value.shape.frozen else value.shape.copy(),
        doc_string=value.doc_string,
    )
    copy.metadata_props.update(value.metadata_props)
    return copy
