"""Moving invariant work out of functions: computed once in the caller, and passed to every call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.fast_nodes import set_inputs
from modelexport_passes.scopes.copying import copy_node
from modelexport_passes.scopes.ledger import ORIGIN_KEY, Ledger, read_ledger, state_pairs
from modelexport_passes.scopes.relative import to_absolute
from modelexport_passes.scopes.scope import Scope, scope_of, set_scope
from modelexport_passes.scopes.walk import owned_nodes, subgraphs_of
from modelexport_passes.surgery.invariants import MAIN, Calls, Invariants, Place, find_homes, find_invariants
from modelexport_passes.unique_names import Names


@dataclass
class Hoisted:
    """What hoisting did.

    Attributes:
        functions: those that work left, each with how many operations.
        operations: how many left a function; one that went out through two functions counts twice.
    """

    functions: dict[Place, int] = field(default_factory=dict[Place, int])

    @property
    def operations(self) -> int:
        """How many operations left a function; one that went out through two functions counts twice."""
        return sum(self.functions.values())


def hoist_invariants(model: ir.Model) -> Hoisted:
    """Move what every call of a function computes alike to its callers, as far out as it can go.

    In rounds: what has left one function may leave the one around it in the next. Each round goes from the outermost
    functions inwards, so that a whole call leaves, rather than the operations in it one by one.
    """
    hoisted = Hoisted()
    names: dict[Place, _PlaceNames] = {}
    used = {formal for function in model.functions.values() for formal in function.inputs if formal.uses()}
    while _round(model, hoisted, names, used):
        pass
    return hoisted


def _round(model: ir.Model, hoisted: Hoisted, names: dict[Place, _PlaceNames], used: set[ir.Value]) -> bool:
    calls = Calls(model)
    homes = find_homes(model, calls)
    weights = _weights(model, calls)
    ledger = read_ledger(model)
    moved = False
    stale: set[Place] = set()
    for key in calls.order:
        if key in calls.in_bodies or key in stale:
            continue
        found = find_invariants(model, key, calls, homes)
        if not found.results:
            continue
        moved = True
        hoisted.functions[key] = hoisted.functions.get(key, 0) + len(found.moved)
        move = _Move(model, key, found, calls, ledger, names)
        move.into_callers()
        move.out_of_function(weights, used)
        # Of a function whose calls have moved, the next round knows more.
        stale |= calls.below(node.op_identifier() for node in found.moved)
    return moved


def _weights(model: ir.Model, calls: Calls) -> set[ir.Value]:
    """Inputs of functions that are weights in the main graph."""
    weights: set[ir.Value] = set()
    for key in calls.order:
        for at, formal in enumerate(model.functions[key].inputs):
            actuals = [node.inputs[at] for _, node in calls.sites[key] if at < len(node.inputs)]
            if actuals and all(
                value is not None and (value in weights or (value.is_initializer() and not value.is_graph_input()))
                for value in actuals
            ):
                weights.add(formal)
    return weights


class _PlaceNames:
    """Names of values and nodes that are taken in one place."""

    def __init__(self, container: ir.Graph | ir.Function) -> None:
        self.values = Names(str(value.name) for value in _values(container))
        self.nodes = Names(str(node.name) for node in owned_nodes(container))


def _values(container: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    yield from container.inputs
    if isinstance(container, ir.Graph):
        yield from container.initializers.values()
    for node in container:
        yield from node.outputs
        for inner in subgraphs_of(node):
            yield from _values(inner)


class _Move:
    """Invariants on their way out of one function."""

    def __init__(
        self,
        model: ir.Model,
        key: Place,
        found: Invariants,
        calls: Calls,
        ledger: Ledger,
        names: dict[Place, _PlaceNames],
    ) -> None:
        self._model = model
        self._function = model.functions[key]
        self._found = found
        self._sites: dict[Place, list[ir.Node]] = {}
        for place, node in calls.sites[key]:
            self._sites.setdefault(place, []).append(node)
        self._ledger = ledger
        self._names = names

    def _names_in(self, place: Place) -> _PlaceNames:
        if place not in self._names:
            self._names[place] = _PlaceNames(self._container(place))
        return self._names[place]

    def _container(self, place: Place) -> ir.Graph | ir.Function:
        return self._model.graph if place == MAIN else self._model.functions[place]

    def into_callers(self) -> None:
        """Compute the results once in each caller, in front of its first call, and pass them to all of its calls."""
        leaving = {*self._found.moved, *self._found.along}
        ordered = [node for node in self._function if node in leaving]
        for place, sites in self._sites.items():
            container = self._container(place)
            first = sites[0]
            values: dict[ir.Value, ir.Value | None] = dict(zip(self._function.inputs, first.inputs, strict=False))
            copies = [self._copy(node, values, place, first) for node in ordered]
            graph = container if isinstance(container, ir.Graph) else container.graph
            graph.insert_before(first, copies)
            for node in copies:
                container.opset_imports.setdefault(node.domain, self._function.opset_imports.get(node.domain, 1))
            for site in sites:
                left_out = len(self._function.inputs) - len(site.inputs)
                _pass(site, [*site.inputs, *[None] * left_out, *(values[value] for value in self._found.results)])

    def _copy(self, node: ir.Node, values: dict[ir.Value, ir.Value | None], place: Place, call: ir.Node) -> ir.Node:
        """A copy of an operation in a caller, with the scope that it has in the caller's first call."""
        names = self._names_in(place)
        copy = copy_node(node, [None if value is None else values[value] for value in node.inputs])
        copy.name = names.nodes.take(node.name or node.op_type)
        for value, made in zip(node.outputs, copy.outputs, strict=True):
            made.name = names.values.take(value.name) if value.name else value.name
            values[value] = made
        set_scope(copy, self._scope_at(node, place, call))
        if place == MAIN:
            copy.metadata_props.pop(ORIGIN_KEY, None)
        return copy

    def _scope_at(self, node: ir.Node, place: Place, call: ir.Node) -> Scope | None:
        scope, around = scope_of(node), scope_of(call)
        if scope is None or not scope.relative or around is None:
            return scope if scope is not None and not scope.relative else None
        bases = {} if around.relative else self._ledger.call(around.frames, call).bases
        frames = to_absolute(scope.frames, around.frames, bases, inside=place != MAIN)
        return Scope(frames, scope.source, relative=around.relative)

    def out_of_function(self, weights: set[ir.Value], used: set[ir.Value]) -> None:
        """Let the results be inputs, behind the other activations; inputs that served what left alone go."""
        function = self._function
        new: list[ir.Value] = []
        for value in self._found.results:
            shape = None if value.shape is None else value.shape.copy()
            new.append(ir.Value(type=value.type, shape=shape))
            value.replace_all_uses_with(new[-1], replace_graph_outputs=True)
        for node in reversed(self._found.left):
            function.graph.remove(node, safe=True)
        taken = Names(str(value.name) for value in _values(function))
        for value, formal in zip(self._found.results, new, strict=True):
            formal.name = taken.take(str(value.name))
        used.update(new)
        columns = list(enumerate([*function.inputs, *new]))
        kept = [(at, formal) for at, formal in columns if formal.uses() or formal not in used]
        # Sorting is stable: activations, old and new, then state, then weights.
        state = state_pairs(function)
        kept.sort(key=lambda column: (column[1] in weights, column[1].name in state))
        function.inputs[:] = [formal for _, formal in kept]
        for site in (site for sites in self._sites.values() for site in sites):
            _pass(site, [site.inputs[at] for at, _ in kept])


def _pass(site: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    site.resize_inputs(len(inputs))
    set_inputs(site, inputs)
