"""The main graph as operations and wires: what planning reads and changes instead of the model itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, cast

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import node_parts, nodes_of
from modelexport_passes.outlining.constants import computes_constant, is_embeddable
from modelexport_passes.outlining.regions import Region
from modelexport_passes.scopes.scope import Frame, Scope
from modelexport_passes.scopes.walk import captures_of, has_bodies

OF_ITS_OWN = -1
"""`Op.kind` of an operation that is not compared by it."""


class UnsortedGraphError(ModelExportError):
    """An operation stands before another whose result it reads."""


class Wire:
    """One value as planning sees it. A cloned constant has a wire of its own for the same value.

    Attributes:
        value: the value in the model.
        producer: the operation that makes it; None for graph inputs and initializers.
        readers: operations that read it, once for each input or capture.
        is_output: it is an output of the graph.
        is_weight: an initializer that no caller of the model can replace.
        is_embeddable: such a one that is no weight but a shape, axes or a scalar that an optimizer folded.
    """

    __slots__ = ("is_embeddable", "is_output", "is_weight", "producer", "readers", "value")

    def __init__(
        self, value: ir.Value, producer: Op | None, is_output: bool = False
    ) -> None:  # made by the hundred thousand
        self.value = value
        self.producer = producer
        self.readers: list[Op] = []
        self.is_output = is_output
        self.is_weight = self.is_embeddable = False
        if producer is None and value.is_initializer() and not value.is_graph_input():
            self.is_weight = True
            self.is_embeddable = is_embeddable(self)


class Op:
    """One operation as planning sees it.

    Attributes:
        node: the node in the model. Clones name the node they are a copy of.
        order: position in the graph.
        scope: what the node says; None if unknown.
        region: where it is placed. Begins at its own module call and moves by boundary repair.
        ins: wires of the inputs; None for an input that is left out.
        has_bodies: the node owns graphs (If, Loop, Scan).
        captured: values that the bodies of the node use from outside.
        captures: the wires that stand for them.
        reads: wires of inputs, then of captures, without those left out. Only to be looked at.
        outs: wires of the outputs.
        copy_of: wires that a cloned constant copies; None for an operation that is itself in the model.
        local_frames: frames that a clone takes from its first reader, since its own lie elsewhere.
        constant: it computes a small value from constants alone.
        withdrawn: nothing reads it where it was: its clones serve all readers.
        weight: number of operations that it stands for: those of its function, for a call.
        stands_in: the model has it not: it computes what the module that it is in has as a constant.
        kind: equal numbers mean the same operator and the very same attributes; `OF_ITS_OWN` means nothing.
    """

    __slots__ = (
        "captured", "captures", "constant", "copy_of", "has_bodies", "ins", "kind", "local_frames", "node",
        "order", "outs", "reads", "region", "scope", "stands_in", "weight", "withdrawn",
    )  # fmt: skip

    def __init__(self, node: ir.Node, order: int, region: Region, scope: Scope | None) -> None:
        self.node = node
        self.order = order
        self.region = region
        self.scope = scope
        self.ins: list[Wire | None] = []
        self.captured: Sequence[ir.Value] = ()
        self.captures: Sequence[Wire] = ()
        self.reads: Sequence[Wire] = ()
        self.outs: list[Wire] = []
        self.copy_of: list[Wire] | None = None
        self.local_frames: tuple[Frame, ...] | None = None
        self.has_bodies = self.constant = self.withdrawn = self.stands_in = False
        self.weight = 1
        self.kind = OF_ITS_OWN

    @property
    def origin(self) -> str | None:
        """Name of the value that this operation makes a copy of."""
        return None if self.copy_of is None else self.copy_of[0].value.name

    @property
    def is_added(self) -> bool:
        """Whether the model has other operations, of which this has the names."""
        return self.stands_in or self.copy_of is not None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The module calls it belongs to where it is placed; empty if unknown."""
        if self.local_frames is not None:
            return self.local_frames
        return () if self.scope is None else self.scope.frames

    def take(self, ins: list[Wire | None], captures: Sequence[Wire] = ()) -> None:
        """Take these inputs and captures."""
        self.ins = ins
        self.captures = captures
        if captures or None in ins:
            self.reads = [wire for wire in (*ins, *captures) if wire is not None]
        else:
            self.reads = ins  # pyright: ignore[reportAttributeAccessIssue] - none is left out

    def reroute(self, old: Wire, new: Wire) -> None:
        """Read ``new`` wherever ``old`` was read."""
        captures = [new if wire is old else wire for wire in self.captures]
        self.take([new if wire is old else wire for wire in self.ins], captures)


class Flow(NamedTuple):
    """A graph, read.

    Attributes:
        ops: its operations, in its order.
        unsettled: those that may have to lie elsewhere: their results are read in other regions or leave the graph.
        folding: those that read what is embeddable.
    """

    ops: list[Op]
    unsettled: list[Op]
    folding: list[Op]


def read_graph(graph: ir.Graph, scopes: Sequence[Scope | None], regions: Sequence[Region]) -> Flow:
    """Operations of a graph in its order, placed in these regions. Each is looked at once: there are very many.

    Raises:
        UnsortedGraphError: an operation stands before another whose result it reads.
    """
    outputs = set(graph.outputs)
    wires: dict[ir.Value, Wire] = {}
    kinds: dict[tuple[str | int, ...], int] = {}
    ops: list[Op] = []
    unsettled: set[Op] = set()
    folding: list[Op] = []

    known = cast("Callable[[ir.Value | None], Wire | None]", wires.get)
    nodes = nodes_of(graph)
    rows = zip(nodes, map(node_parts, nodes), scopes, regions, strict=True)
    for order, (node, (operator, domain, overload, inputs, outs, attributes), scope, region) in enumerate(rows):
        op = Op(node, order, region, scope)
        ins = list(map(known, inputs))
        if None in ins:  # seldom: it is left out, or from outside of the graph and read for the first time
            ins = [None if value is None else _wire_of(value, wires, outputs) for value in inputs]
        # Nodes that a file says the same of share the objects for it (`exporting.reader`).
        key = (operator, domain, overload, len(outs), *map(id, attributes.values()))
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = OF_ITS_OWN if has_bodies(node) else len(kinds)
        op.kind = kind
        if kind == OF_ITS_OWN:
            op.has_bodies = True
            op.captured = captures_of(node)
            op.take(ins, [_wire_of(value, wires, outputs) for value in op.captured])
        else:
            op.take(ins)
        for value in outs:
            wire = Wire(value, op, value in outputs)
            op.outs.append(wire)
            if wires.setdefault(value, wire) is not wire:
                raise UnsortedGraphError(f"outline: {value.name!r} is used before {node.name or operator} makes it")
        constant, folds = True, False
        for wire in op.reads:
            wire.readers.append(op)
            producer = wire.producer
            if producer is None:
                constant = constant and wire.is_embeddable
                folds = folds or wire.is_embeddable
            else:
                constant = constant and producer.constant
                if producer.region is not region:
                    unsettled.add(producer)
        op.constant = constant and computes_constant(op)
        if folds:
            folding.append(op)
        ops.append(op)
    made = [wires[value].producer for value in outputs if value in wires]
    unsettled.update([op for op in made if op is not None])
    return Flow(ops, sorted(unsettled, key=lambda op: op.order), folding)


def _wire_of(value: ir.Value, wires: dict[ir.Value, Wire], outputs: Collection[ir.Value]) -> Wire:
    """The wire of a value; of one that no operation has made so far, a new one."""
    wire = wires.get(value)
    if wire is None:
        wire = wires[value] = Wire(value, None, value in outputs)
    return wire
