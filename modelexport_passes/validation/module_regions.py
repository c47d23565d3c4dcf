"""The region of each module call in a flat model: its nodes, and the values that they make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.scope import Scope, scope_of
from modelexport_passes.scopes.walk import owned_nodes, values_read


class CallKey(NamedTuple):
    """A module call as scopes name it."""

    path: str
    call: int

    def __str__(self) -> str:
        name = self.path or "the root"
        return f"{name}@{self.call}" if self.call else name


@dataclass
class Regions:
    """All regions of a model without function calls.

    Attributes:
        nodes: the nodes of each region that stand in the main graph, in its order.
        hidden: number of nodes of each region that stand in bodies of If, Loop and Scan, where no value can be read.
        keys: node of the main graph -> the calls whose region it is in, outermost first; empty if unknown.
        outputs: the outputs of the graph.
        varying: the values of the main graph that depend on what an input of the graph holds, not on its shape alone.
        random: the values that depend on random numbers, which the model draws.
        concluded: the nodes of the main graph whose scope is known, and not by the exporter's word.
    """

    nodes: dict[CallKey, list[ir.Node]] = field(default_factory=dict[CallKey, list[ir.Node]])
    hidden: dict[CallKey, int] = field(default_factory=dict[CallKey, int])
    keys: dict[ir.Node, tuple[CallKey, ...]] = field(default_factory=dict[ir.Node, tuple[CallKey, ...]])
    outputs: frozenset[ir.Value] = frozenset()
    varying: set[ir.Value] = field(default_factory=set[ir.Value])
    random: set[ir.Value] = field(default_factory=set[ir.Value])
    concluded: set[ir.Node] = field(default_factory=set[ir.Node])

    @classmethod
    def of(cls, model: ir.Model) -> Regions:
        """Read the scopes of the nodes of the main graph and of the bodies in it."""
        inputs = {value for value in model.graph.inputs if not value.is_initializer()}
        regions = cls(outputs=frozenset(model.graph.outputs), varying=inputs)
        for node in model.graph:
            scope = scope_of(node)
            keys = _keys(scope)
            regions.keys[node] = keys
            if scope is not None and not scope.source.exact:
                regions.concluded.add(node)
            if node.op_type not in _SHAPE_ONLY and not regions.varying.isdisjoint(_reads(node)):
                regions.varying.update(node.outputs)
            if draws_random_numbers(node) or not regions.random.isdisjoint(_reads(node)):
                regions.random.update(node.outputs)
            for key in keys:
                regions.nodes.setdefault(key, []).append(node)
            for inner in owned_nodes([node]):
                if inner is not node:
                    for key in _keys(scope_of(inner)):
                        regions.hidden[key] = regions.hidden.get(key, 0) + 1
        return regions

    def __contains__(self, key: CallKey) -> bool:
        return key in self.nodes or key in self.hidden

    def __iter__(self) -> Iterator[CallKey]:
        yield from dict.fromkeys([*self.nodes, *self.hidden])

    def holds(self, value: ir.Value, keys: Iterable[CallKey]) -> bool:
        """Whether one of these regions makes a value."""
        producer = value.producer()
        return producer is not None and not set(keys).isdisjoint(self.keys[producer])

    def innermost(self, value: ir.Value) -> CallKey | None:
        """The innermost call whose region makes a value; None if unknown."""
        producer = value.producer()
        keys = self.keys[producer] if producer is not None else ()
        return keys[-1] if keys else None

    def chain(self, value: ir.Value) -> str:
        """The calls in whose regions a value is made, outermost first, without the root if there are others."""
        producer = value.producer()
        keys = self.keys[producer] if producer is not None else ()
        return " > ".join(map(str, keys[1:] or keys))

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value is the same whatever the model is given."""
        return value not in self.varying

    def completes(
        self,
        value: ir.Value,
        keys: Collection[CallKey],
        callers: Collection[CallKey],
        given: Callable[[ir.Value], bool],
    ) -> bool:
        """Whether a value is made by these regions and by concluded operations of their callers, of what was given.

        Regions that there are must have part in it, and then operations of unknown scope may.

        Args:
            value: of which no operation of the regions is the maker.
            keys: the regions, of one call.
            callers: the calls around it.
            given: whether a value is one that the call was given.
        """
        empty = not any(key in self for key in keys)
        inside = False
        seen: set[ir.Node] = set()
        waiting = [value]
        while waiting:
            read = waiting.pop()
            if self.holds(read, keys):
                inside = True
                continue
            if read is not value and given(read):
                continue
            producer = read.producer()
            if producer is None or not self._may_complete(producer, callers, unknown=not empty):
                if read is value or read in self.varying:
                    return False
            elif producer not in seen:
                seen.add(producer)
                waiting += _reads(producer)
                if len(seen) > _STEPS:
                    return False
        return inside or empty

    def _may_complete(self, node: ir.Node, callers: Collection[CallKey], *, unknown: bool) -> bool:
        keys = self.keys[node]
        return set(keys) <= set(callers) and node in self.concluded if keys else unknown

    def nodes_of(self, keys: Iterable[CallKey]) -> Iterator[ir.Node]:
        """The nodes of these regions in the main graph, each once."""
        yield from dict.fromkeys(node for key in keys for node in self.nodes.get(key, ()))

    def entering(self, keys: Collection[CallKey]) -> Iterator[ir.Value]:
        """The values that these regions read from outside, each once."""
        read = dict.fromkeys(value for node in self.nodes_of(keys) for value in _reads(node))
        yield from (value for value in read if not self.holds(value, keys))

    def leaving(self, keys: Collection[CallKey]) -> Iterator[ir.Value]:
        """The values that these regions make for others: used outside of them, or outputs of the graph."""
        for node in self.nodes_of(keys):
            for value in node.outputs:
                if value in self.outputs or any(self._is_outside(usage.node, keys) for usage in value.uses()):
                    yield value

    def _is_outside(self, node: ir.Node, keys: Collection[CallKey]) -> bool:
        found = self.keys.get(node)
        return found is not None and set(keys).isdisjoint(found)


_STEPS = 256
"""Operations of callers that may complete a region: more are no edge of it."""

_SHAPE_ONLY = frozenset({"Shape", "Size"})


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    return (value for value in values_read(node) if value is not None)


def _keys(scope: Scope | None) -> tuple[CallKey, ...]:
    if scope is None:
        return ()
    return tuple(dict.fromkeys(CallKey(frame.path, frame.call) for frame in scope.frames))
