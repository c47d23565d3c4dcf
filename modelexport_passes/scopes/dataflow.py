"""Scopes of operations that nothing names, from the operations around them.

An operation on the way from one known operation to another lies in every module call that both lie in: what runs
between two operations of a call runs in it. That holds along the flow of data and, where a file is in the order in
which the model ran, along that order. Constants, and what is computed from constants alone, belong to their user; so do
the conversions of a quantized model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, Source, common_frames, scope_of, set_scope

_Frames = tuple[Frame, ...]

_Neighbours = Callable[[ir.Node], Iterable[ir.Node]]

_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

_PAIRS = 64
"""Module calls before an operation times those after it, at the most, that are looked at in pairs."""


def infer_scopes(nodes: Sequence[ir.Node]) -> int:
    """Give scopes to the nodes of one graph that have none. Returns how many got one.

    Args:
        nodes: of one graph, in its order.
    """
    unknown = [node for node in nodes if SCOPE_KEY not in node.metadata_props]
    if not unknown:
        return 0
    flow = _Flow(nodes)
    found = _told_neighbours(unknown, flow) if flow.told else _concluded_neighbours(nodes, unknown, flow)
    for node, frames in found.items():
        set_scope(node, Scope(frames, Source.DATAFLOW))
    return len(found)


def _told_neighbours(unknown: Sequence[ir.Node], flow: _Flow) -> dict[ir.Node, _Frames]:
    """A few operations among those that the exporter put into modules: helpers of them."""
    found: dict[ir.Node, _Frames] = {}
    for node in unknown:
        if node not in flow.constant and (frames := flow.between_told(node) or flow.between(node)):
            found[node] = frames
    flow.known.update(found)
    for node in reversed(unknown):
        serves = node in flow.constant or node.op_type in _CONVERSIONS
        if serves and (frames := flow.users(node, exact=node.op_type in _CONVERSIONS)):
            found[node] = flow.known[node] = frames
    return found


def _concluded_neighbours(nodes: Sequence[ir.Node], unknown: Sequence[ir.Node], flow: _Flow) -> dict[ir.Node, _Frames]:
    """Most operations, among the few that read parameters."""
    in_order = _between_in_order(nodes, flow.known)
    found: dict[ir.Node, _Frames] = {}
    for node in unknown:
        frames = in_order.get(node, ())
        if node not in flow.constant and flow.is_between(node):
            along = flow.between(node)
            # Both say what the operation lies in. Where the wires alone tell a longer stack, operations of another
            # module stand between: it was called in part, or twice, and what runs meanwhile may be its caller's.
            frames = frames if frames[: len(along)] == along else common_frames([frames, along]) if frames else along
        if frames:
            found[node] = frames
    flow.known.update(found)
    for node in reversed(unknown):
        if node.op_type == "Constant" and (frames := flow.users(node, exact=True)):
            found[node] = frames
    return found


def _between_in_order(nodes: Sequence[ir.Node], known: Mapping[ir.Node, _Frames]) -> dict[ir.Node, _Frames]:
    """The module call that the known operations next before and next after lie in."""
    before: dict[ir.Node, _Frames] = {}
    last: _Frames = ()
    for node in nodes:
        last = known.get(node, last)
        before[node] = last
    found: dict[ir.Node, _Frames] = {}
    following: _Frames = ()
    for node in reversed(nodes):
        following = known.get(node, following)
        if before[node] and following:
            found[node] = common_frames([before[node], following])
    return found


class _Flow:
    """What is known before and after each operation of a graph.

    Attributes:
        known: the frames of each operation whose scope is known.
        told: operations that the exporter itself put into their module.
        constant: operations that depend on no input of the graph.
    """

    def __init__(self, nodes: Sequence[ir.Node]) -> None:
        scopes = {node: scope for node in nodes if (scope := scope_of(node)) is not None}
        self.known: dict[ir.Node, _Frames] = {node: scope.frames for node, scope in scopes.items()}
        self.told = {node for node, scope in scopes.items() if scope.source.exact}
        self.constant = constant_nodes(nodes)
        self._before = self._sweep(nodes, _producers)
        self._after = self._sweep(reversed(nodes), _consumers)

    def _sweep(self, nodes: Iterable[ir.Node], neighbours: _Neighbours) -> dict[ir.Node, tuple[_Frames, bool]]:
        """The module call that all known operations lie in that are met first in one direction; and if all are told."""
        reached: dict[ir.Node, tuple[_Frames, bool]] = {}
        for node in nodes:
            if node in self.known:
                continue
            met: list[tuple[_Frames, bool]] = []
            for other in neighbours(node):
                if other in self.known:
                    if other not in self.constant or neighbours is _consumers:
                        met.append((self.known[other], other in self.told))
                elif other in reached:
                    met.append(reached[other])
            if met:
                reached[node] = common_frames([frames for frames, _ in met]), all(told for _, told in met)
        return reached

    def is_between(self, node: ir.Node) -> bool:
        """Whether something is known on both sides."""
        return node in self._before and node in self._after

    def between(self, node: ir.Node) -> _Frames:
        """The module call that an operation lies in by what is before and after it; empty if that does not tell."""
        before, after = self._before.get(node), self._after.get(node)
        if before and after:
            return common_frames([before[0], after[0]])
        one = before or after
        if one is None:
            return ()
        frames, told = one
        # At the edge of the graph only one side is known. Operations that the exporter put into one module call are
        # few there, and their helpers are theirs; what was itself concluded from parameters says no more than that
        # the operation lies around it.
        return frames if told else frames[:-1]

    def between_told(self, node: ir.Node) -> _Frames:
        """The innermost module call that runs both before and after an operation; empty if two such are not nested.

        One producer and one user in a call are enough: another producer, a size say, may be what an optimizer merged
        with that of a module that ran before.
        """
        before = {self.known[other] for other in _producers(node) if other in self.told and other not in self.constant}
        after = {self.known[user] for user in _consumers(node) if user in self.told}
        if len(before) * len(after) > _PAIRS:
            return ()
        calls = sorted({common_frames([one, other]) for one in before for other in after}, key=len)
        return calls[-1] if calls and all(calls[-1][: len(call)] == call for call in calls) else ()

    def users(self, node: ir.Node, *, exact: bool) -> _Frames:
        """The module call that all known users of an operation lie in; with ``exact`` only if it is one operation's."""
        stacks = {self.known[user] for user in _consumers(node) if user in self.known}
        return common_frames(list(stacks)) if stacks and (len(stacks) == 1 or not exact) else ()


def constant_nodes(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """The operations that depend on no input of the graph."""
    constant: set[ir.Node] = set()
    for node in nodes:
        if all(value is None or _is_constant(value, constant) for value in node.inputs):
            constant.add(node)
    return constant


def _is_constant(value: ir.Value, constant: set[ir.Node]) -> bool:
    producer = value.producer()
    return value.is_initializer() if producer is None else producer in constant


def _producers(node: ir.Node) -> Iterable[ir.Node]:
    producers = (value.producer() for value in node.inputs if value is not None)
    return dict.fromkeys(producer for producer in producers if producer is not None)


def _consumers(node: ir.Node) -> Iterable[ir.Node]:
    return dict.fromkeys(use.node for value in node.outputs for use in value.uses())
