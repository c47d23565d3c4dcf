"""Carrying scopes across a tool that drops metadata: what is known before it is brought back after it.

The evidence, strongest first:

1. The name of an output value. Tools that drop, rename and rewire nodes keep most of these names.
2. Position: a value that stands where a vanished one stood, as an input of an operation that is known.
3. The names of the weights that an operation reads.
4. The operations around it.

An operation whose operator differs from the one that made its value before is *fused*: it stands for that one and for
all operations before it whose values are gone. It gets the lowest module call that these share; but where one of them
has its operator and takes the same value, the others were folded into the weights of that one, and it is its (Conv and
BatchNormalization make a Conv, of the convolution). Either way it keeps the list of its origins.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.scopes.neighbours import settle
from modelexport_passes.scopes.origins import ORIGINS_KEY, format_origins
from modelexport_passes.scopes.scope import SCOPE_KEY, Scope, Source, common_frames, scope_of, set_scope
from modelexport_passes.scopes.snapshot import KEPT, Container, Operation, Snapshot, placed_nodes
from modelexport_passes.scopes.tags import retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes

_MOST_ORIGINS = 512
"""Operations that one can be fused from. More means that a tool renamed everything, not that it fused it."""

_CONVERSIONS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})


@dataclass
class CarryCounts:
    """How the nodes of a model got their scopes back. Each node counts once.

    Attributes:
        by_name: an output name survived, and the operator did.
        replaced: an output name survived, and the operator is another: fused, folded, or made into several.
        by_position: it stands where a known one stood.
        by_weights: it reads the weights of one module call.
        by_tool: none of these, and the tool itself gave it a scope.
        by_neighbours: it is new, and stands among operations of a module call.
        unknown: no scope; of these ``unknown_before`` had none before either.
    """

    by_name: int = 0
    replaced: int = 0
    by_position: int = 0
    by_weights: int = 0
    by_tool: int = 0
    by_neighbours: int = 0
    unknown: int = 0
    unknown_before: int = 0


def carry(model: ir.Model, before: Snapshot) -> CarryCounts:
    """Bring back scopes, origins, tags and the metadata of model, graph and functions, as they were before a tool ran.

    Args:
        model: what the tool left; changed in place. Main graph, subgraphs and functions that were there before.
        before: taken before the tool ran, with `modelexport_passes.scopes.snapshot.take_snapshot`.
    """
    counts = CarryCounts()
    _restore(model.metadata_props, before.metadata)
    owners: list[tuple[ir.OperatorIdentifier | None, ir.Graph | ir.Function]] = [(None, model.graph)]
    owners += [(key, function) for key, function in model.functions.items()]
    for key, owner in owners:
        known = before.containers.get(key)
        if known is not None:
            _restore(owner.metadata_props, known.metadata)
            _Carrier(known, owner, counts, relative=key is not None).run()
    retag(all_nodes(model), tag_templates(model))
    return counts


def _restore(now: MutableMapping[str, str], before: Mapping[str, str]) -> None:
    for key, value in before.items():
        now.setdefault(key, value)


class _Carrier:
    """Carries the scopes of one container."""

    def __init__(
        self, before: Container, owner: ir.Graph | ir.Function, counts: CarryCounts, *, relative: bool
    ) -> None:
        self._before = before
        self._counts = counts
        self._relative = relative
        self._graph = owner.graph if isinstance(owner, ir.Function) else owner
        self._nodes = list(placed_nodes(self._graph))
        values = (*self._graph.inputs, *self._graph.initializers.values())
        self._alive = {value.name or "" for value in values}
        self._alive |= {value.name or "" for _, node in self._nodes for value in node.outputs}
        self._there: set[str] = set()  # names of values of before that are still there, under whatever name
        self._renamed: dict[ir.Value, str] = {}  # what a value was called before, where a tool gave it a new name
        self._same: dict[ir.Node, Operation] = {}  # what a node is, where its operator is still the same
        self._replaced: dict[ir.Node, list[Operation]] = {}  # what made a node's values, where that had another one

    def run(self) -> None:
        self._drop_scopes_of_bodies()
        left = [node for place, node in self._nodes if not self._by_name(node, place)]
        left = [node for node in reversed(left) if not self._by_users(node)][::-1]
        left = [node for node in left if not self._by_inputs(node)]
        self._there = self._alive.union(self._renamed.values())
        for node, makers in self._replaced.items():
            self._replace(node, makers)
        kept = [node for node in left if SCOPE_KEY in node.metadata_props]
        self._counts.by_tool += len(kept)
        left = [node for node in left if SCOPE_KEY not in node.metadata_props and not self._by_weights(node)]
        self._counts.by_neighbours += settle(self._graph, left, relative=self._relative)
        for _, node in self._nodes:
            if SCOPE_KEY not in node.metadata_props:
                self._counts.unknown += 1
                self._counts.unknown_before += node in self._same or node in self._replaced

    def _drop_scopes_of_bodies(self) -> None:
        """A tool that inlines leaves relative scopes outside of functions: there they say nothing."""
        for _, node in self._nodes:
            text = node.metadata_props.get(SCOPE_KEY)
            if text is not None and text.startswith(".") and not self._relative:
                _forget(node)

    # --- what a node was before --------------------------------------------------------------------------------------

    def _by_name(self, node: ir.Node, place: str) -> bool:
        makers = [self._before.maker(value.name or "", place) for value in node.outputs]
        found = list(dict.fromkeys(maker for maker in makers if maker is not None))
        if not found:
            return False
        if self._recognize(node, found):
            self._counts.by_name += 1
        else:
            self._counts.replaced += 1
        return True

    def _by_users(self, node: ir.Node) -> bool:
        """What stood where this node's values stand, for the operations that use them."""
        found: dict[Operation, None] = {}
        for value in node.outputs:
            for user, slot in value.uses():
                was = self._same.get(user)
                name = was.inputs[slot] if was is not None and slot < len(was.inputs) else ""
                maker = None if name in self._alive else self._before.maker(name)
                if maker is not None:
                    found[maker] = None
                    self._renamed[value] = name
        return self._position(node, list(found))

    def _by_inputs(self, node: ir.Node) -> bool:
        """The one operation of this operator that took the same values and whose own are gone."""
        names = [self._name_before(value) for value in node.inputs]
        known = [(slot, name) for slot, name in enumerate(names) if name and name not in self._before.constants]
        found: list[Operation] = []
        for operation in self._before.users(known[0][1]) if known else ():
            same = operation.kind == node.op_identifier() and not self._alive.intersection(operation.outputs)
            if same and all(slot < len(operation.inputs) and operation.inputs[slot] == name for slot, name in known):
                found.append(operation)
        return self._position(node, found)

    def _name_before(self, value: ir.Value | None) -> str:
        """The name that a value had; empty where it is not known."""
        if value is None or not value.name:
            return ""
        if value in self._renamed:
            return self._renamed[value]
        producer = value.producer()
        if producer is None or self._before.maker(value.name) is not None:
            return value.name
        # Another form of the same value, such as in fewer bits.
        return self._name_before(producer.inputs[0]) if producer.op_type in _CONVERSIONS else ""

    def _position(self, node: ir.Node, found: Sequence[Operation]) -> bool:
        if len(found) != 1:
            return False
        if self._recognize(node, found):
            set_scope(node, _inferred(scope_of(node)))
            for value, name in zip(node.outputs, found[0].outputs, strict=False):
                self._renamed[value] = name
        self._counts.by_position += 1
        return True

    def _recognize(self, node: ir.Node, makers: Sequence[Operation]) -> bool:
        """Note what made a node's values before. If it was this operator, the node has all that was known of it."""
        if len(makers) != 1 or makers[0].kind != node.op_identifier():
            self._replaced[node] = list(makers)
            return False
        self._same[node] = makers[0]
        _forget(node)
        node.metadata_props.update(makers[0].facts)
        return True

    def _by_weights(self, node: ir.Node) -> bool:
        stacks = {
            scope.frames
            for value in node.inputs
            if value is not None and value.name in self._before.constants
            for user in self._before.users(value.name or "")
            if (scope := user.scope) is not None
        }
        if len(stacks) != 1:
            return False
        set_scope(node, Scope(stacks.pop(), Source.PARAMETER, self._relative))
        self._counts.by_weights += 1
        return True

    # --- operations that took the place of others --------------------------------------------------------------------

    def _replace(self, node: ir.Node, makers: Sequence[Operation]) -> None:
        """Give a node the scope of what it stands for now."""
        _forget(node)
        whole = list(makers)
        # A constant is the value of one operation, computed ahead of time. And what takes values that were not there
        # before is the end of several operations that one was made into (a quantized MatMul).
        if node.op_type != "Constant" and all(self._name_before(value) for value in node.inputs if value is not None):
            whole = self._fused_from(makers)
        else:
            whole = list(dict.fromkeys([*self._weighed(node), *makers]))
        origins = [origin for operation in whole for origin in operation.origins]
        if not origins:
            return
        owner = self._folded_into(node, whole)
        frames = owner.frames if owner is not None else common_frames([origin.frames for origin in origins])
        if not frames and not self._relative:
            return
        source = max((origin.source for origin in origins), key=lambda source: source.rank)
        if any(origin.frames != frames for origin in origins):
            source = max(source, Source.DATAFLOW, key=lambda source: source.rank)
        scope = Scope(frames, source, self._relative)
        set_scope(node, scope)
        text = format_origins(scope, origins)
        if text is not None:
            node.metadata_props[ORIGINS_KEY] = text

    def _folded_into(self, node: ir.Node, whole: Sequence[Operation]) -> Scope | None:
        """The scope of the one operation that a node still is, the others having become part of its weights."""
        alike = [operation for operation in whole if operation.kind == node.op_identifier()]
        first = self._name_before(node.inputs[0]) if node.inputs else ""
        if len(alike) != 1 or not first or first not in alike[0].inputs:
            return None
        return alike[0].scope

    def _weighed(self, node: ir.Node) -> list[Operation]:
        """The operations that alone read a weight that a node reads now: whatever else it is, it is these."""
        found: list[Operation] = []
        for value in node.inputs:
            # Not a shape or an axis: of those, a tool makes one of many that are equal.
            if value is not None and value.name in self._before.constants and _is_real(value):
                users = self._before.users(value.name or "")
                found += users if len(users) == 1 else ()
        return found

    def _fused_from(self, makers: Sequence[Operation]) -> list[Operation]:
        """The operations that make these values from values that are still there, in their order.

        Those that computed constants are left out: an exporter shares constants between modules.
        """
        found = dict.fromkeys(makers)
        waiting = list(makers)
        while waiting and len(found) <= _MOST_ORIGINS:
            for name in waiting.pop().inputs:
                maker = self._before.maker(name) if name and name not in self._there else None
                if maker is not None and maker not in found:
                    found[maker] = None
                    waiting.append(maker)
        if len(found) > _MOST_ORIGINS:
            return list(makers)
        ordered = sorted(found, key=lambda operation: operation.index)
        constant: set[Operation] = set()
        for operation in ordered:
            if all(self._is_constant(name, constant) for name in operation.inputs if name):
                constant.add(operation)
        return [operation for operation in ordered if operation not in constant] or ordered

    def _is_constant(self, name: str, constant: set[Operation]) -> bool:
        maker = self._before.maker(name)
        if maker is None:
            return name in self._before.constants
        return maker.constant or maker in constant


def _is_real(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _forget(node: ir.Node) -> None:
    for key in KEPT:
        node.metadata_props.pop(key, None)


def _inferred(scope: Scope | None) -> Scope | None:
    if scope is None or not scope.source.exact:
        return scope
    return scope.with_source(Source.DATAFLOW)
