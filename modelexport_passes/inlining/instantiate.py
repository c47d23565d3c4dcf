"""One call of a function, written out: its nodes copied, formals replaced, names made unique, scopes recomposed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import copy_node, copy_value
from modelexport_passes.inlining.bodies import Bodies
from modelexport_passes.inlining.body import Body, Description, Part, parts_of
from modelexport_passes.inlining.flat import inherited
from modelexport_passes.inlining.flat_copy import FlatCall, Tags
from modelexport_passes.inlining.marks import told_by
from modelexport_passes.inlining.originals import Originals
from modelexport_passes.inlining.site import Instance, Site
from modelexport_passes.scopes.compose import scope_in_call
from modelexport_passes.scopes.ledger import NOTHING_PARTICULAR, ORIGIN_KEY, Call, Ledger
from modelexport_passes.scopes.scope import Scope, format_frames
from modelexport_passes.scopes.tags import names_nodes, retag
from modelexport_passes.scopes.walk import owned_nodes

Attributes = Mapping[str, ir.Attr]


class Instantiation:
    """Writes calls out, and the calls in the bodies of those.

    Args:
        functions: by identifier, those that shall be written out.
        ledger: what is particular to each call.
        tags: key -> template of the tags that operations carry.
        wanted: tells by its scope whether a call shall be written out; all of them if None.

    Attributes:
        functions: as given.
        tags: as given.
        node_tags: those of them that tell the operation, too.
        scope_tags: the others.
        calls: how many were written out, those inside of others included.
    """

    def __init__(
        self,
        functions: Mapping[ir.OperatorIdentifier, ir.Function],
        ledger: Ledger,
        tags: Mapping[str, str],
        wanted: Callable[[Scope | None], bool] | None = None,
    ) -> None:
        self.functions = functions
        self.tags = tags
        self.node_tags = {key: template for key, template in tags.items() if names_nodes(template)}
        self.scope_tags = {key: template for key, template in tags.items() if key not in self.node_tags}
        self.calls = 0
        self._ledger = ledger
        self._wanted = wanted
        self._differing = {_innermost(key) for key in ledger.calls}
        self._bodies = Bodies(
            functions, Tags(self.node_tags, self.scope_tags), self._is_special if self._differing else None
        )

    def wants(self, scope: Scope | None) -> bool:
        """Whether a call of a function, of this scope at its place, shall be written out."""
        return self._wanted is None or self._wanted(scope)

    def call(
        self,
        node: ir.Node,
        callee: ir.OperatorIdentifier,
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
            callee: one of the functions.
            inputs: what it passes, at the site.
            attributes: what it passes, references resolved.
            site: where.
            scope: the call's own scope, at the site.
            result_names: the name for each output; None to choose one.
            prefix: stands before names that are taken.
        """
        again = callee in self._bodies
        body = self._bodies.body(callee)
        _check_arity(node, body)
        copies = self._bodies.copies(callee) if again and self._wanted is None and not site.inside else None
        if copies is not None:
            instance = copies.copy(FlatCall(node, inputs, scope, result_names, prefix), site)
            if instance is not None:
                self.calls += len(copies.flat.calls)
                return instance
        self.calls += 1
        copy = _BodyCopy(self, body, node, attributes, site, scope, prefix)
        copy.bind(inputs, result_names)
        copy.write(body.parts)
        return copy.finish(len(node.outputs))

    def _is_special(self, call: ir.Node, scope: Scope | None) -> bool:
        """Whether the ledger says something of a call in the main graph."""
        if scope is None or format_frames(scope.frames[-1:]) not in self._differing:
            return False
        return self._ledger.call(scope.frames, call) != NOTHING_PARTICULAR

    def domains_of(self, nodes: Iterable[ir.Node]) -> set[str]:
        """The domains of these nodes and of all in their bodies, but for calls of the functions."""
        return {node.domain for node in owned_nodes(nodes) if node.op_identifier() not in self.functions}

    def domains(self) -> set[str]:
        """The domains of what was written out."""
        return set[str]().union(*map(self.domains_of, self._bodies.used()))

    def particular(self, call: ir.Node, scope: Scope | None, site: Site) -> Call:
        """What the ledger says of a call."""
        if scope is None or site.inside or format_frames(scope.frames[-1:]) not in self._differing:
            return NOTHING_PARTICULAR
        return self._ledger.call(scope.frames, call)


def _innermost(key: str) -> str:
    """The text of the last frame of a call in the ledger's words."""
    return key.partition("|")[0].rpartition("/")[2]


def _check_arity(node: ir.Node, body: Body) -> None:
    if len(node.inputs) > len(body.inputs) or len(node.outputs) > len(body.outputs):
        function = body.function
        raise ModelExportError(
            f"inline: call {node.name!r} has {len(node.inputs)} inputs and {len(node.outputs)} outputs; function "
            f"{function.domain}::{function.name} takes {len(function.inputs)} and gives {len(function.outputs)}"
        )


class _Values(dict["ir.Value | None", "ir.Value | None"]):
    """Value of a body -> what stands for it at the call. One that is not the body's is the caller's, and stays."""

    def __missing__(self, value: ir.Value | None) -> ir.Value | None:
        return value


@dataclass(slots=True)
class _Placed:
    """Where some operations of a body are, at a call.

    Attributes:
        scope: their scope; None if unknown.
        marks: their metadata that says so: scope and tags; None as long as no operation needed it.
    """

    scope: Scope | None
    marks: dict[str, str] | None = None


class _BodyCopy:
    """The copy of one body at one call."""

    def __init__(
        self,
        instantiation: Instantiation,
        body: Body,
        call: ir.Node,
        attributes: Attributes,
        site: Site,
        scope: Scope | None,
        prefix: str,
    ) -> None:
        self._all = instantiation
        self._body = body
        self._site = site
        self._scope = scope
        self._prefix = f"{prefix}/"
        self._particular = instantiation.particular(call, scope, site)
        restored = self._particular if site.originals is not None else Call()
        self._stand_ins, self._constants = frozenset(restored.stand_ins), restored.constants
        self._idle = frozenset(restored.idle)
        self._attributes = {**body.defaults, **attributes}
        self._inherited: dict[str, str] = {}
        if not body.is_module:
            self._inherited = inherited(call, instantiation.tags)
        self._values = _Values()
        self._wanted: dict[ir.Value, str] = {}
        self._placed: dict[str, _Placed] = {}
        self._metadata: dict[Description, dict[str, str]] = {}
        self._nodes: list[ir.Node] = []

    def bind(self, inputs: Sequence[ir.Value | None], result_names: Sequence[str | None]) -> None:
        self._values.update(dict.fromkeys(self._body.inputs))
        self._values.update(zip(self._body.inputs, inputs, strict=False))
        for value, name in zip(self._body.outputs, result_names, strict=False):
            if name:
                self._wanted.setdefault(value, name)

    def finish(self, outputs: int) -> Instance:
        return Instance(self._nodes, [self._values[value] for value in self._body.outputs[:outputs]])

    def write(self, parts: Iterable[Part]) -> None:
        """Copy nodes of the body, in order; calls among them are written out in turn."""
        originals, origins = self._site.originals, self._particular.origins
        for part in parts:
            if part.callee is not None and self._all.wants(self._place(part).scope):
                self._expand(part, part.callee)
                continue
            if self._idle and part.node.name in self._idle:
                self._values[part.node.outputs[0]] = self._values[part.node.inputs[0]]
                continue
            if originals is not None:
                origin = origins.get(str(part.node.name), part.origin) if origins else part.origin
                if origin:
                    self._copy_original(part, origin, originals)
                    continue
            self._put(part, self._clone(part))

    def _copy_original(self, part: Part, origin: str, originals: Originals) -> None:
        """Let the original stand for the copy that the body has of it, or make the copy the original again."""
        outputs = part.node.outputs
        found = originals.find(origin)
        if found is not None:
            self._values.update(zip(outputs, found, strict=False))
            return
        copied = self._clone(part)
        initializer = originals.restore(origin, copied)
        if initializer is None:
            retag([copied], self._all.tags)
            self._put(part, copied)
        else:
            self._values[outputs[0]] = initializer

    def _put(self, part: Part, copied: ir.Node) -> None:
        self._nodes.append(copied)
        if self._stand_ins and part.node.name in self._stand_ins:
            self._site.stand_ins.append(copied)

    def _expand(self, part: Part, callee: ir.OperatorIdentifier) -> None:
        node = part.node
        instance = self._all.call(
            node,
            callee,
            self._inputs(part),
            self._attributes_of(part),
            self._site,
            scope=self._place(part).scope,
            result_names=[self._name_of(value, str(name)) for value, name in part.outputs],
            prefix=self._prefix + part.name,
        )
        self._nodes += instance.nodes
        self._values.update(zip(node.outputs, instance.outputs, strict=True))

    # --- copies ------------------------------------------------------------------------------------------------------

    def _clone(self, part: Part) -> ir.Node:
        values = self._values
        inputs = tuple(self._inputs(part))
        outputs: list[ir.Value] = []
        for value, name in part.outputs:
            copied = values[value] = copy_value(value, self._name_of(value, name) if name else name)
            outputs.append(copied)
        node = copy_node(
            part.node,
            inputs,
            self._attributes_of(part),
            tuple(outputs),
            name=self._site.node_names.take_or(part.name, self._prefix + part.name),
            metadata_props=self._metadata_of(part),
        )
        if self._all.node_tags:
            retag([node], self._all.node_tags)
        return node

    def _inputs(self, part: Part) -> list[ir.Value | None]:
        """What a node of the body reads, at the call."""
        values = self._values
        inputs = [values[value] for value in part.inputs]
        if self._constants:
            self._recall(part.node, inputs)
        return inputs

    def _recall(self, node: ir.Node, inputs: list[ir.Value | None]) -> None:
        """Let a node read the constants that the original had for what stand-ins compute."""
        originals = self._site.originals
        for text, origin in self._constants.get(node.name or "", {}).items():
            at = int(text)
            value = node.inputs[at] if at < len(node.inputs) else None
            producer = None if value is None else value.producer()
            # Another pass may have put something between them: then that is what the node reads.
            if originals is not None and producer is not None and producer.name in self._stand_ins:
                inputs[at], constant = originals.recall(origin)
                if constant is not None:
                    retag([constant], self._all.tags)
                    self._nodes.append(constant)

    def _attributes_of(self, part: Part) -> dict[str, ir.Attr]:
        """The attributes of a node of the body, at the call."""
        if part.attributes is not None:
            return part.attributes.copy()
        resolved = [self._attribute(name, attribute) for name, attribute in part.node.attributes.items()]
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
        self.write(parts_of(graph, self._all.functions))
        inner, self._nodes, self._site.originals = self._nodes, nodes, originals
        outputs = [self._values[value] for value in graph.outputs]
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
        copied = copy_value(value, self._name_of(value, str(value.name)))
        copied.const_value = value.const_value
        self._values[value] = copied
        return copied

    # --- names and scopes --------------------------------------------------------------------------------------------

    def _name_of(self, value: ir.Value, name: str) -> str:
        wanted = self._wanted.get(value)
        if wanted is None and self._stand_ins and (producer := value.producer()) and producer.name in self._stand_ins:
            return self._site.names.take(self._prefix + name)  # the name is another call's, which stays
        return wanted or self._site.names.take_or(name, self._prefix + name)

    def _place(self, part: Part) -> _Placed:
        """Where an operation of the body is, at the site. Many share a scope."""
        particular = self._particular.scopes and part.node.name in self._particular.scopes
        text = part.description.scope
        placed = None if particular else self._placed.get(text)
        if placed is None:
            scope = scope_in_call(
                part.node, self._body.function, self._scope, self._particular, inside=self._site.inside
            )
            placed = _Placed(scope)
            if not particular:
                self._placed[text] = placed
        return placed

    def _metadata_of(self, part: Part) -> dict[str, str]:
        """The metadata of a copy, for it to keep."""
        if self._particular.scopes and part.node.name in self._particular.scopes:
            metadata = self._described(part)
        else:
            known = self._metadata.get(part.description)
            if known is None:
                known = self._metadata[part.description] = self._described(part)
            metadata = known.copy()
        if part.origin and self._site.inside:
            metadata[ORIGIN_KEY] = part.origin
        return metadata

    def _described(self, part: Part) -> dict[str, str]:
        """What the body says of some of its operations, with their scope and tags at the site."""
        metadata = {**self._inherited, **part.description.metadata}
        for key in self._all.tags:
            metadata.pop(key, None)
        placed = self._place(part)
        if placed.scope is not None:
            if placed.marks is None:
                placed.marks = told_by(placed.scope, self._all.scope_tags)
            metadata |= placed.marks
        return metadata
