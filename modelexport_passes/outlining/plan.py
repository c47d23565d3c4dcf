"""The plan of an outlining: every decision, as values that can be read, printed and tested before anything moves."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.fast_nodes import nodes_of
from modelexport_passes.outlining.boundary import find_results
from modelexport_passes.outlining.explain import NearMiss, near_misses
from modelexport_passes.outlining.flow import Op, read_graph
from modelexport_passes.outlining.known_values import KnownValues
from modelexport_passes.outlining.layout import Obstacle, dissolve, lay_out
from modelexport_passes.outlining.naming import FirstReaders, Formal, function_identity, name_formals
from modelexport_passes.outlining.placement import repair
from modelexport_passes.outlining.regions import Frames, Region, Selection, find_regions
from modelexport_passes.outlining.sharing import Bodies, Group, Likeness, share
from modelexport_passes.outlining.splitting import Split, lay_out_in_parts, number_parts
from modelexport_passes.outlining.state import State, StateRules, local_names, pair, settle_results
from modelexport_passes.scopes.scope import Scope, by_identity, scope_of, scopes_of
from modelexport_passes.unique_names import Names


@dataclass(frozen=True, eq=False)
class FunctionPlan:
    """One function to make.

    Attributes:
        domain: the class's Python module.
        name: the class, with ``_1``, ``_2`` for further bodies.
        group: the module calls that share it.
        formals: its inputs.
        state_results: names of its last outputs, those that are state.
        state: name of each input that is state -> which of these outputs is its next value; None without one.
    """

    domain: str
    name: str
    group: Group
    formals: list[Formal]
    state_results: list[str]
    state: dict[str, str | None]

    @functools.cached_property
    def order(self) -> list[int]:
        """For each formal the number of its column. A column is as long as there are calls: no call looks it up."""
        numbers = {column: at for at, column in enumerate(self.group.columns)}
        return [numbers[formal.column] for formal in self.formals]


@dataclass(frozen=True, eq=False)
class OutlinePlan:
    """What outlining will do.

    Attributes:
        ops: every operation, clones and withdrawn ones included.
        bodies: the regions, their order and what they share.
        functions: what to make, callers before callees, in call order.
        obstacles: module calls that cannot be cut, with the reason.
        splits: module calls that become several calls, with the reason.
    """

    ops: list[Op]
    bodies: Bodies
    functions: list[FunctionPlan]
    obstacles: list[Obstacle]
    splits: list[Split]

    def near_misses(self) -> list[NearMiss]:
        """Why calls of one class did not share."""
        return near_misses(self.bodies)

    def __str__(self) -> str:
        lines = [
            f"{plan.domain}::{plan.name}({', '.join(formal.name for formal in plan.formals)}) "
            f"for {', '.join(map(str, plan.group.instances))}"
            for plan in self.functions
        ]
        return "\n".join([*lines, *map(str, self.splits), *map(str, self.obstacles)])


def plan_outline(
    graph: ir.Graph,
    selection: Selection,
    *,
    taken: Collection[tuple[str, str]],
    own_calls: Mapping[ir.Node, int],
    likeness: Likeness,
    split: bool = False,
    min_nodes: int = 1,
    min_calls: int = 1,
    state: StateRules | None = None,
) -> OutlinePlan:
    """Decide which module calls become calls of which functions. Changes nothing.

    Args:
        graph: the main graph; operations without a scope stay where they are.
        selection: which module calls.
        taken: domain and name of functions that exist.
        own_calls: calls that an earlier outlining made, which lie in the region around their module call, and the
            number of operations that each stands for.
        likeness: in what module calls that share a function may differ.
        split: let module calls that others lie between become several calls.
        min_nodes: module calls with fewer operations, those of calls inside included, stay in their caller.
        min_calls: bodies that fewer module calls share stay in their callers.
        state: which inputs and outputs of the graph are state; none if None.
    """
    found_state = (state or StateRules({})).find(graph)
    few: set[Frames] = set()
    unfold = likeness.lift != "never"
    while True:
        plan = _plan(
            graph, selection, taken, own_calls, few, found_state, likeness,
            split=split, min_nodes=min_nodes, unfold=unfold,
        )  # fmt: skip
        if (plan.bodies.folded or plan.bodies.idle) and _has_stand_ins(plan.bodies):
            unfold = False
            continue
        found = {
            region.frames
            for group in plan.bodies.groups
            if len(group.instances) < min_calls
            for region in group.instances
        }
        if not found:
            return plan
        few |= found


def _plan(
    graph: ir.Graph,
    selection: Selection,
    taken: Collection[tuple[str, str]],
    own_calls: Mapping[ir.Node, int],
    unwanted: Collection[Frames],
    state: State,
    likeness: Likeness,
    *,
    split: bool,
    min_nodes: int,
    unfold: bool,
) -> OutlinePlan:
    root = Region((), None)
    nodes = nodes_of(graph)
    scopes = scopes_of(nodes)
    called = [node for node in nodes if node in own_calls] if own_calls else []
    done = {scope.frames for node in called if (scope := scope_of(node)) is not None}
    stacks = [_stack(scope, done) for scope in scopes]
    seen = by_identity(stacks)
    distinct = list(dict.fromkeys(seen.values()))
    selected = selection.predicate(distinct)
    innermost = find_regions(distinct, root, lambda frames: frames not in unwanted and selected(frames))
    places = {key: innermost[stack] for key, stack in seen.items()}
    flow = read_graph(graph, scopes, [places[id(stack)] for stack in stacks])
    ops = flow.ops
    for op in ops if called else ():
        op.weight = own_calls.get(op.node, 1)
    ops += repair(flow, root)
    if min_nodes > 1:
        dissolve(_small(ops, min_nodes), ops, root)
    lay = lay_out_in_parts if split else lay_out
    layout, obstacles = lay(ops, root)
    while True:
        results = find_results(layout, root)
        dead = [region for region, wires in results.items() if not wires]
        if not dead:
            break
        dissolve(dead, ops, root)
        layout, more = lay(ops, root)
        obstacles += more
    splits = number_parts(layout, root, obstacles) if split else []
    bodies = Bodies(root, layout, results, likeness)
    share(bodies, KnownValues(graph.opset_imports) if unfold else None)
    return OutlinePlan(ops, bodies, _name_functions(bodies, taken, state), [] if split else obstacles, splits)


def _has_stand_ins(bodies: Bodies) -> bool:
    """Whether the main graph came to have stand-ins but constants: no call would tell inlining what they are."""
    items = bodies.layout[bodies.root]
    return any(
        item in bodies.folded or (isinstance(item, Op) and item.stands_in and not item.constant) for item in items
    )


def _small(ops: Sequence[Op], min_nodes: int) -> list[Region]:
    """Regions of fewer operations, constants not counted."""
    sizes: dict[Region, int] = {}
    for op in ops:
        region: Region | None = op.region
        while region is not None:
            sizes[region] = sizes.get(region, 0) + (0 if op.constant or op.withdrawn else op.weight)
            region = region.parent
    return [region for region, size in sizes.items() if size < min_nodes and region.parent is not None]


def _stack(scope: Scope | None, done: Collection[Frames]) -> Frames:
    """The module calls that an operation may be put in: down to one that is a call in the graph already.

    What of such a module call is still outside, an earlier outlining left outside on purpose; the call itself, too.
    """
    if scope is None or scope.relative:
        return ()
    frames = scope.frames
    if not done:
        return frames
    return next((frames[:depth] for depth in range(len(frames)) if frames[: depth + 1] in done), frames)


def _name_functions(bodies: Bodies, taken: Collection[tuple[str, str]], state: State) -> list[FunctionPlan]:
    names: dict[str, Names] = {}
    for domain, name in taken:
        names.setdefault(domain, Names()).take(name)
    plans: list[FunctionPlan] = []
    planned: set[Group] = set()
    readers = FirstReaders()
    for region in bodies.in_call_order():
        group = bodies.group_of[region]
        if group in planned:
            continue
        planned.add(group)
        domain, name = function_identity(group.body.frame)
        results = settle_results(group, bodies, state)
        renamed = {str(wire.value.name) for wire in bodies.results[group.body][::-1][: len(results)]}
        inside = Names(bodies.value_names(bodies.layout[group.body]) - renamed)
        formals = name_formals(group.columns, group.body, inside, state, readers)
        made = dict(zip(local_names(results, inside), results, strict=True))
        pairs = pair({formal.name: formal.state for formal in formals if formal.state}, made)
        unique = names.setdefault(domain, Names()).take(name)
        plans.append(FunctionPlan(domain, unique, group, formals, list(made), pairs))
    return plans
