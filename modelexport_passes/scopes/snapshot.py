"""What is known about the operations of a model, kept while a tool that drops metadata works on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.scopes.ledger import ORIGIN_KEY, PART_KEY
from modelexport_passes.scopes.origins import ORIGINS_KEY, parse_origins
from modelexport_passes.scopes.scope import SCOPE_KEY, Scope, parse_scope

KEPT = (SCOPE_KEY, ORIGINS_KEY, ORIGIN_KEY, PART_KEY)
"""Metadata keys of a node that are kept."""

_CONSTANTS = frozenset({"Constant", "ConstantOfShape"})


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One node as it was.

    Attributes:
        index: its place in the order of nodes.
        kind: domain, operator and overload.
        inputs: names of its inputs, ``""`` for a missing one.
        outputs: names of its outputs.
        facts: its metadata under the keys `KEPT`.
    """

    index: int
    kind: ir.OperatorIdentifier
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: Mapping[str, str]

    @property
    def scope(self) -> Scope | None:
        """Its scope, or None if unknown."""
        text = self.facts.get(SCOPE_KEY)
        return None if text is None else parse_scope(text)

    @property
    def origins(self) -> tuple[Scope, ...]:
        """The scopes that went into it: its own, or those that it was fused from."""
        scope = self.scope
        if scope is None:
            return ()
        text = self.facts.get(ORIGINS_KEY)
        return (text is not None and parse_origins(scope, text)) or (scope,)

    @property
    def constant(self) -> bool:
        """It makes a value from nothing."""
        return self.kind[1] in _CONSTANTS


@dataclass(eq=False)
class Container:
    """The operations of the main graph, or of a function, with those in the bodies that they own.

    Attributes:
        constants: names of initializers.
        metadata: the metadata of the graph or function itself.
    """

    constants: frozenset[str]
    metadata: Mapping[str, str]
    _outer: dict[str, Operation] = field(default_factory=dict[str, Operation])
    _inner: dict[tuple[str, str], Operation] = field(default_factory=dict[tuple[str, str], Operation])
    _inner_names: dict[str, Operation | None] = field(default_factory=dict[str, "Operation | None"])
    _users: dict[str, list[Operation]] = field(default_factory=dict[str, list[Operation]])

    def add(self, place: str, node: ir.Node, index: int) -> None:
        """Take note of a node at a place (`placed_nodes`)."""
        props = node.metadata_props
        operation = Operation(
            index,
            node.op_identifier(),
            tuple("" if value is None else value.name or "" for value in node.inputs),
            tuple(value.name or "" for value in node.outputs),
            {key: props[key] for key in KEPT if key in props},
        )
        for name in operation.outputs:
            if name and not place:
                self._outer[name] = operation
            elif name:
                self._inner[place, name] = operation
                # Sibling bodies may use one name for two values: then the name alone tells nothing.
                self._inner_names[name] = None if name in self._inner_names else operation
        for name in dict.fromkeys(operation.inputs):
            if name:
                self._users.setdefault(name, []).append(operation)

    def maker(self, name: str, place: str = "") -> Operation | None:
        """The operation that made a value, looked for at its place first."""
        if place and (place, name) in self._inner:
            return self._inner[place, name]
        return self._outer.get(name) or self._inner_names.get(name)

    def users(self, name: str) -> list[Operation]:
        """The operations that took a value as an input."""
        return self._users.get(name, [])


@dataclass(frozen=True)
class Snapshot:
    """A model's containers and the metadata of the model itself.

    Attributes:
        containers: by the identifier of the function; None is the main graph.
        metadata: the model's own metadata.
    """

    containers: Mapping[ir.OperatorIdentifier | None, Container]
    metadata: Mapping[str, str]


def take_snapshot(model: ir.Model) -> Snapshot:
    """Note what is known about every operation of a model: main graph, subgraphs, functions."""
    containers: dict[ir.OperatorIdentifier | None, Container] = {None: _container(model.graph)}
    containers |= {key: _container(function) for key, function in model.functions.items()}
    return Snapshot(containers, dict(model.metadata_props))


def _container(owner: ir.Graph | ir.Function) -> Container:
    graph = owner.graph if isinstance(owner, ir.Function) else owner
    container = Container(frozenset(graph.initializers), dict(owner.metadata_props))
    for index, (place, node) in enumerate(placed_nodes(graph)):
        container.add(place, node, index)
    return container


def placed_nodes(nodes: Iterable[ir.Node], place: str = "") -> Iterator[tuple[str, ir.Node]]:
    """Nodes and those in the bodies they own, each with where it stands.

    A place is ``""`` outside of bodies; of a body, what the operation that owns it makes, and the attribute it is.
    """
    for node in nodes:
        yield place, node
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            graphs: tuple[ir.Graph, ...] = ()
            if attribute.type is ir.AttributeType.GRAPH:
                graphs = (attribute.as_graph(),)
            elif attribute.type is ir.AttributeType.GRAPHS:
                graphs = tuple(attribute.as_graphs())
            for number, graph in enumerate(graphs):
                first = next((value.name for value in node.outputs if value.name), "")
                yield from placed_nodes(graph, f"{place}/{first}.{attribute.name}.{number}")
